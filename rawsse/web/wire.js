/**
 * The wire pane: the raw frames of the last answers as they came, in colours and with their times, a picture of when they came,
 * and which text of the answer each of them made.
 *
 *     const wire = new Wire(list, { conversation });     // an element that scrolls, and the one that has the answers
 *     wire.begin((index) => answer.blockElement(index)); // a request is sent: times count from here
 *     wire.opened({ method, url, status });              // and `frame(raw)`, `lost({ wait })`, `note(text)`
 *     wire.end("complete");                              // or "stopped", "failed"
 *
 * It keeps the frames, and draws the newest of them while it is shown.
 */

import { count, FollowingBox, parsed, seconds } from "./answer.js";
import { button, make } from "./markdown.js";
import { EventStreamParser } from "./rawsse.js";

export const WIRE_LIMITS = Object.freeze({
  /** Frames that are drawn, the newest, and their characters. A single tool result may have 181 kB. */
  maxFrames: 400,
  maxChars: 1_000_000,
  /** Characters of frames that are kept: to be drawn, to be saved, and to be found in the text. */
  maxKeptChars: 16_000_000,
});

/** The picture, and the time since the last frame, are drawn again this often. */
const DRAW_MS = 250;

/** Frames that are drawn in one animation frame: a screen has room for ten. */
const DRAWN_AT_ONCE = 20;

/** At most so many characters between two pieces of text are taken for markup: an address, for example. */
const MAX_MARKUP = 4096;

export class Wire {
  #list;
  #box;
  #limits;
  #entries = []; // all that are kept: { kind, raw, at, exchange }
  #chars = 0;
  #waiting = []; // those that will be drawn
  #drawn = new Map(); // the elements of those that are, the oldest first
  #drawnChars = 0;
  #above = 0; // the number of those that are not, for there are newer ones
  #count = 0;
  #exchange = null; // { begun, last, elementOf, status, ending, end }
  #selected = null;
  #isPaused = false;
  #filter = "";
  #figure = make("figure");
  #facts = make("p", "wire-facts");
  #said = "";
  #clock = 0;
  #told = new Set();

  constructor(list, { conversation, ...limits } = {}) {
    this.#list = Object.assign(list, { role: "listbox" });
    this.#limits = { ...WIRE_LIMITS, ...limits };
    this.#box = new FollowingBox(list);
    list.before(this.#tools(), this.#figure, this.#facts);
    list.addEventListener("click", ({ target }) => this.#select(target.closest("li")));
    list.addEventListener("keydown", (event) => this.#walk(event));
    conversation.addEventListener("click", () => this.#isShown && this.#find(getSelection()));
    this.#begin();
  }

  begin(elementOf) {
    this.#begin(elementOf);
    this.#clock ||= setInterval(() => this.#draw(), DRAW_MS);
  }

  opened({ method, url, status }) {
    if (status !== 202) this.#exchange.status ??= status;
    this.note(`${method} ${url.pathname}: ${status}`);
  }

  lost({ wait }) {
    this.note(`connection lost, next try in ${seconds(wait)}`, "lost");
  }

  /** A line of the page's own, between the frames. */
  note(raw, kind = "note") {
    const [at, exchange] = [this.#now, this.#exchange];
    const entry = { kind, raw, at, gap: at - exchange.last, exchange, isLate: this.#isPaused };
    exchange.last = at;
    this.#entries.push(entry);
    this.#chars += raw.length;
    while (this.#chars > this.#limits.maxKeptChars) {
      const { raw, exchange } = this.#entries.shift();
      this.#chars -= raw.length;
      exchange.isCut = true;
    }
    this.#want([entry]);
  }

  frame(raw) {
    this.note(raw, kindOf(raw));
  }

  end(ending) {
    Object.assign(this.#exchange, { ending, end: this.#now });
    this.#clock = clearInterval(this.#clock);
    this.#draw();
  }

  /** Draw all again, and follow the end from there: for when the pane is shown, too. */
  redraw() {
    this.#list.replaceChildren();
    this.#drawn.clear();
    this.#told.clear();
    [this.#waiting, this.#drawnChars, this.#above] = [[], 0, 0];
    this.#want(this.#entries);
    this.#say("");
    this.#box.toEnd();
  }

  get #now() {
    return performance.now() - this.#exchange.begun;
  }

  get #isShown() {
    return !this.#list.closest("[hidden]");
  }

  /** Of the last answer; none if the first ones are gone: a part would be a wrong picture, and no recording. */
  get #frames() {
    const exchange = this.#exchange;
    return exchange.isCut ? [] : this.#entries.filter((entry) => entry.exchange === exchange && entry.kind !== "note");
  }

  #begin(elementOf = () => null) {
    this.#exchange = { begun: performance.now(), last: 0, elementOf };
  }

  // --- Drawing -----------------------------------------------------------------------------------------------------------

  #tools() {
    const filter = make("input");
    Object.assign(filter, { type: "search", placeholder: "Filter", ariaLabel: "Show only frames with this event or text" });
    filter.oninput = () => {
      this.#filter = filter.value.toLowerCase();
      this.redraw();
    };
    const clear = () => {
      for (const entry of this.#entries) entry.isCleared = true;
      this.redraw();
    };
    const pause = button("", "Pause", { ariaPressed: false, onclick: () => this.#pause(pause) });
    const others = [button("", "Clear", { onclick: clear }), button("", "Save", { onclick: () => this.#save() })];
    return make("div", "wire-tools", filter, pause, ...others);
  }

  #pause(tool) {
    tool.ariaPressed = this.#isPaused = !this.#isPaused;
    if (this.#isPaused) return this.#draw();
    for (const entry of this.#entries) entry.isLate = false;
    this.redraw();
  }

  #save() {
    const text = recordingOf({ frames: this.#frames, end: this.#now, ...this.#exchange });
    if (!text) return this.#say("Nothing to save: a recording needs all of the API's events.");
    const link = Object.assign(make("a"), { href: URL.createObjectURL(new Blob([text])), download: "answer.sse.jsonl" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
  }

  /** Have entries drawn, as far as they are wanted, in place of the oldest. */
  #want(entries) {
    if (!this.#isShown) return;
    if (!this.#waiting.length) this.#box.later(() => this.#write());
    const isWanted = ({ raw, isLate, isCleared }) => !isLate && !isCleared && raw.toLowerCase().includes(this.#filter);
    this.#waiting = this.#waiting.concat(entries.filter(isWanted));
    this.#above += this.#waiting.splice(0, this.#waiting.length - this.#limits.maxFrames).length;
    this.#trim();
  }

  /** False if there is more to be drawn. */
  #write() {
    this.#list.append(...this.#waiting.splice(0, DRAWN_AT_ONCE).map((entry) => this.#draft(entry)));
    this.#trim();
    return this.#waiting.length === 0;
  }

  #trim() {
    const { maxFrames, maxChars } = this.#limits;
    for (const [item, { raw }] of this.#drawn) {
      if (this.#drawn.size + this.#waiting.length <= maxFrames && this.#drawnChars <= maxChars) break;
      this.#drawn.delete(item);
      this.#drawnChars -= raw.length;
      this.#above += 1;
      item.remove();
    }
  }

  #draft(entry) {
    const { kind, raw, at, gap } = entry;
    const isNote = /note|lost/.test(kind);
    const parts = isNote ? [["", raw]] : partsOf(raw);
    const pre = make("pre", "", ...parts.map(([name, text]) => (name ? make("span", `wire-${name}`, text) : text)));
    const time = make("span", "at", `${seconds(at)} +${seconds(gap)}`);
    const item = make("li", isNote ? "note" : "frame", time, pre);
    Object.assign(item, { role: "option", id: `frame-${(this.#count += 1)}`, ariaSelected: entry === this.#selected });
    this.#drawn.set(item, entry);
    this.#drawnChars += raw.length;
    const odd = isNote ? "" : oddity(raw);
    if (odd) item.append(make("span", "odd", odd));
    // Each is told once, and then of the frame that is chosen.
    const told = odd.replace(/^\d+ \w+/, "");
    item.classList.toggle("known", this.#told.has(told));
    this.#told.add(told);
    return item;
  }

  /** Tell something until another frame is chosen, or all is drawn again. */
  #say(sentence) {
    this.#said = sentence;
    this.#draw();
  }

  #draw() {
    if (!this.#isShown) return;
    const { isCut, end } = this.#exchange;
    const times = timesOf(this.#frames, end);
    const facts = [
      this.#said,
      this.#isPaused && `paused, ${count(this.#entries.filter(({ isLate }) => isLate).length)} waiting`,
      times.count > 0 && end === undefined && `last frame ${seconds(this.#now - times.last)} ago`,
      isCut && "the answer is too long for a picture",
      this.#above > 0 && `${count(this.#above)} older not shown`,
    ];
    this.#facts.textContent = facts.filter(Boolean).join(" · ");
    this.#figure.replaceChildren(picture(times), make("figcaption", "", inWords(times)));
  }

  // --- Frames and text -------------------------------------------------------------------------------------------------

  /** Choose a frame, and show what text it made. */
  #select(item) {
    const entry = this.#drawn.get(item);
    if (!entry) return;
    const before = this.#list.querySelector("[aria-selected=true]");
    if (before) before.ariaSelected = false;
    this.#selected = entry;
    this.#say("");
    item.ariaSelected = true;
    item.scrollIntoView({ block: "nearest" });
    this.#list.setAttribute("aria-activedescendant", item.id);
    CSS.highlights?.delete("wire");
    for (const [index, { source, pieces }] of linksOf(this.#frames)) {
      const [, at, end] = pieces.find(([frame]) => frame === entry) ?? [];
      const element = at < end && this.#exchange.elementOf(index);
      if (element) light(element, origins(element, source), at, end);
    }
  }

  /** Choose the frame that made the text at a place in the conversation. */
  #find({ focusNode, focusOffset }) {
    for (const [index, { source, pieces }] of linksOf(this.#frames)) {
      const element = this.#exchange.elementOf(index);
      const origin = element?.contains(focusNode) && origins(element, source).find(({ node }) => node === focusNode);
      if (!origin) continue;
      const [frame] = pieces.find(([, , end]) => end > origin.at + focusOffset) ?? pieces.at(-1);
      const [item] = [...this.#drawn].find(([, entry]) => entry === frame) ?? [];
      if (item) this.#select(item);
      else this.#say("The frame of this text is not shown.");
    }
  }

  #walk(event) {
    const step = { ArrowUp: "previousElementSibling", ArrowDown: "nextElementSibling" }[event.key];
    if (!step) return;
    event.preventDefault();
    const before = this.#list.querySelector("[aria-selected=true]");
    this.#select(before ? before[step] : this.#list.firstElementChild);
  }
}

/** Where in its source each text node of an element comes from. Markup, which a renderer leaves out, is skipped. */
function origins(element, source) {
  const blank = (text) => text.replace(/\s/g, " ");
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let from = 0, node; (node = walker.nextNode()); ) {
    const { length } = node.data;
    const near = blank(source.slice(from, from + length + MAX_MARKUP)).indexOf(blank(node.data));
    if (near < 0 || length === 0 || node.parentElement.closest("button")) continue;
    found.push({ node, at: from + near, end: from + near + length });
    from += near + length;
  }
  return found;
}

/** Light up a piece of the source where it is shown. */
function light(element, from, at, end) {
  if ("open" in element) element.open = true; // thinking is folded
  const shown = from.filter((origin) => origin.end > at && origin.at < end);
  const [first, last] = [shown[0], shown.at(-1)];
  (first?.node.parentElement ?? element).scrollIntoView({ block: "nearest" });
  if (!first || !globalThis.Highlight) return;
  const range = new Range();
  range.setStart(first.node, Math.max(0, at - first.at));
  range.setEnd(last.node, Math.min(last.end, end) - last.at);
  CSS.highlights.set("wire", new Highlight(range));
}

// --- Frames: pure functions --------------------------------------------------------------------------------------------

/** Longer lines are not coloured: a page of them would have a hundred thousand elements. */
const MAX_COLOURED = 20_000;

const JSON_TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|true|false|null/g;

/** A frame's event and data; "" and null where it has none. */
const read = (raw) => new EventStreamParser().feed(new TextEncoder().encode(`${raw}\n\n`))[0] ?? { event: "", data: null };

const valueOf = (raw) => Object(parsed(read(raw).data));

/** A field that is not empty, of those that `bringsContent` in answer.js looks at. */
const CONTENT = /"(text|thinking|partial_json|input|content)":(?! ?(""|\[\]|\{\}|null))/;

/** For the timeline: "piece" of content, "ping", or "frame". */
function kindOf(raw) {
  if (/^(event: ?content_block_|data: ?\{"text")/m.test(raw) && CONTENT.test(raw)) return "piece";
  return /^event: ?ping/m.test(raw) ? "ping" : "frame";
}

/** How many blanks stand before the last bracket. */
function padOf(data) {
  const whole = data.trimEnd();
  return /[}\]]$/.test(whole) ? whole.length - 1 - whole.slice(0, -1).trimEnd().length : 0;
}

/** The frame in parts [kind, text], which add up to it. */
export function partsOf(raw) {
  return raw.split(/(?<=\n)/).flatMap((line) => {
    const [, kind, space, value] = /^(\w+):( ?)(.*\n?)$/s.exec(line) ?? [];
    if (!kind) return [["comment", line]];
    return [["field", `${kind}:${space}`], ...(kind === "data" ? json(value) : [[kind, value]])];
  });
}

function json(text) {
  if (text.length > MAX_COLOURED) return [["", text]];
  const tail = text.trimEnd().length - 1;
  const pad = tail - padOf(text);
  const parts = [];
  let end = 0;
  for (const { 0: all, 1: string, 2: colon, index } of text.slice(0, pad).matchAll(JSON_TOKEN)) {
    parts.push(["", text.slice(end, index)], [colon ? "key" : string ? "string" : "word", all]);
    end = index + all.length;
  }
  parts.push(["", text.slice(end, pad)], ["pad", text.slice(pad, tail)], ["", text.slice(tail)]);
  return parts.filter(([, part]) => part);
}

/** An explanation for a reader who wonders about the frame; "" where nothing is odd. */
export function oddity(raw) {
  const { event, data } = read(raw);
  const pad = padOf(data ?? "");
  if (data === "[DONE]") return "The relay's end mark. The API's own last event is message_stop.";
  if (raw.startsWith(":")) return "A comment, which keeps a quiet connection open.";
  if (data === null) return raw.startsWith("retry") ? "The wait before the next connection, in ms." : "No data: no event.";
  if (event === "ping") return "The API is at work, and has nothing to say yet.";
  if (event === "error") return "The stream ends here.";
  return pad ? `${pad} blank${pad === 1 ? "" : "s"} before the last bracket: the API pads its data to hide their length.` : "";
}

/** Of each content block the text, and which frame made which piece of it, as [frame, from, to]. */
export function linksOf(frames) {
  const blocks = new Map();
  for (const frame of frames) {
    const { index = 0, delta, content_block: begun } = valueOf(frame.raw);
    const { text, thinking, partial_json } = delta ?? begun ?? {};
    const piece = text ?? thinking ?? partial_json;
    if (!piece || typeof piece !== "string") continue;
    const block = blocks.get(index) ?? blocks.set(index, { source: "", pieces: [] }).get(index);
    block.pieces.push([frame, block.source.length, (block.source += piece).length]);
  }
  return blocks;
}

/**
 * An exchange as a recording, which `rawsse explain` and `rawsse replay` take; null if its frames are not the API's events, as
 * those of the text dialect.
 *
 * The relay's additions are left out: ids, comments, the end mark, and its words on how the API's stream ended. `frames` are
 * { at, raw }, in ms since the request; `ending` is "complete", "stopped" or "failed", or nothing yet; `end` is the time of it.
 */
export function recordingOf({ frames, status = 200, ending, end }) {
  const seconds = (time) => Math.round(time) / 1000;
  const kept = [];
  let how = ending === "complete" ? "clean" : ending === "failed" ? "cut" : "client_closed";
  for (const { at, raw } of frames) {
    const { type, ending: seen, ...rest } = valueOf(raw);
    if (typeof type !== "string") continue;
    const isRelays = type === "error" && seen !== undefined && seen.kind !== "error";
    if (type === "error") how = seen?.kind === "cancelled" ? "client_closed" : isRelays ? "cut" : "clean";
    const data = status >= 400 ? JSON.stringify({ type, ...rest }) : raw.replace(/(^|\n)((id|retry):[^\n]*\n)+/g, "$1");
    if (!isRelays || status >= 400) kept.push({ t: seconds(at), data });
  }
  if (!kept.length) return null;
  const headers = { "content-type": status >= 400 ? "application/json" : "text/event-stream; charset=utf-8" };
  const lines = [{ rawsse: 1, request: null, status, headers }, ...kept, { end: how, t: Math.max(seconds(end), kept.at(-1).t) }];
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}

// --- The timeline ------------------------------------------------------------------------------------------------------

/** Marks of one kind in the picture, the silences in it (the longest ones), and its columns. */
const [MARKS, SILENCES, COLUMNS] = [60, 3, 120];

/** Silences that are shorter than this are not told. */
const SILENCE_MS = 400;

const [WIDTH, HEIGHT, BASE] = [600, 48, 40];

/** The figures of an answer so far. `frames` are { at, kind }, in order; times are in ms since the request. */
export function timesOf(frames, end) {
  const times = { first: null, last: end ?? frames.at(-1)?.at ?? 0, end, count: 0, ping: [], lost: [], silences: [] };
  times.columns = Array(COLUMNS).fill(0);
  let before = 0;
  for (const { at, kind } of [...frames, { at: times.last }]) {
    if (at - before >= SILENCE_MS) times.silences.push([before, at]);
    before = at;
    if (kind === "ping" || kind === "lost") times[kind].push(at);
    if (kind && kind !== "lost") times.count += 1;
    if (kind !== "piece") continue;
    times.first ??= at;
    times.columns[Math.min(COLUMNS - 1, Math.floor((at / (times.last || 1)) * COLUMNS))] += 1;
  }
  times.silences.sort(([a, b], [c, d]) => d - c - (b - a)).splice(SILENCES);
  return times;
}

/** The picture in words: for those who do not see it, and for its numbers. */
export function inWords({ first, last, end, count, ping, lost, silences }) {
  const many = (n, one) => n > 0 && `${n} ${one}${n === 1 ? "" : "s"}`;
  const gap = first !== null && silences.find(([from]) => from >= first);
  return [
    first === null ? "no content yet" : `first content ${seconds(first)}`,
    many(count, "frame"),
    many(ping.length, "ping"),
    gap && `longest gap ${seconds(gap[1] - gap[0])}`,
    many(lost.length, "reconnect"),
    `${end === undefined ? "at" : "end"} ${seconds(last)}`,
  ].filter(Boolean).join(" · ");
}

/** An SVG: bars are pieces of content, boxes are silences, ticks below are pings, lines are the first content, losses, the end. */
function picture(times) {
  const { first, last, end, ping, lost, silences, columns } = times;
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": true });
  const box = (kind, x, y, width, height) => svg.append(shape("rect", { class: kind, x, y, width, height }));
  const at = (ms) => Math.min(WIDTH - 3, (ms / (last || 1)) * WIDTH);
  for (const [from, to] of silences) box("silence", at(from), 0, at(to) - at(from), BASE);
  const [step, most] = [WIDTH / COLUMNS, Math.log1p(Math.max(...columns))];
  columns.forEach((pieces, i) => {
    const height = (BASE * 0.9 * Math.log1p(pieces)) / most;
    if (pieces) box("piece", i * step, BASE - height, step - 0.5, height);
  });
  box("base", 0, BASE, WIDTH, 0.5);
  for (const ms of ping.slice(0, MARKS)) box("ping", at(ms), BASE + 2, 2, 6);
  for (const ms of lost.slice(0, MARKS)) box("lost", at(ms), 0, 2, BASE);
  if (first !== null) box("first", at(first), 0, 2, BASE);
  if (end !== undefined) box("end", at(end), 0, 3, HEIGHT);
  return svg;
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
