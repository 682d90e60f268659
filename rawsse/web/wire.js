/**
 * The wire pane: the raw frames of the last answers as they came, in colours and with their times, a picture of when they came,
 * and which text of the answer each of them made.
 *
 *     const wire = new Wire(list, { conversation });     // an element that scrolls, and the one that has the answers
 *     wire.begin((index) => answer.blockElement(index)); // a request is sent: times count from here
 *     wire.opened({ method, url, status });              // and `frame(raw)`, `lost({ wait })`, `note(text)`
 *     wire.end("complete");                              // or "stopped", "failed"
 *
 * It keeps the last frames, and counts those that it dropped. A pane that is hidden, or paused, draws no frames.
 */

import { button, FollowingBox, make } from "./dom.js";
import { kindOf, linksOf, oddity, partsOf, recordingOf } from "./frames.js";
import { picture, timesOf, words } from "./timeline.js";
import { count, seconds } from "./words.js";

export const WIRE_LIMITS = Object.freeze({
  /** Frames that the pane keeps, and their characters. A single tool result may have 181 kB. */
  maxFrames: 400,
  maxChars: 1_000_000,
  /** Characters of the last answer that are kept to be saved, and found in its text. */
  maxAnswerChars: 16_000_000,
});

/** The picture, and the time since the last frame, are drawn again this often. */
const DRAW_MS = 250;

/** Frames that are drawn in one animation frame: a screen has room for ten. */
const DRAWN_AT_ONCE = 20;

/** So many characters between two pieces of text may be markup: an address, say. */
const MAX_MARKUP = 4096;

const UNSAVED = "Nothing to save: a recording needs the API's events, as /api/chat sends them, from the first on.";

export class Wire {
  #list;
  #box;
  #limits;
  #entries = []; // { kind, raw, at, exchange, number }, and `item` where it is drawn
  #waiting = []; // those that are not drawn yet
  #chars = 0;
  #count = 0;
  #dropped = 0;
  #exchange = null;
  #selected = null;
  #isPaused = false;
  #isIndented = false;
  #filter = "";
  #figure = make("figure");
  #facts = make("p", "wire-facts");
  #clock = 0;
  #at = null; // the time of a call that is repeated
  #told = new Set();

  constructor(list, { conversation, ...limits } = {}) {
    this.#list = Object.assign(list, { role: "listbox" });
    this.#limits = { ...WIRE_LIMITS, ...limits };
    this.#box = new FollowingBox(list);
    list.before(this.#tools(), this.#figure, this.#facts);
    list.addEventListener("click", ({ target }) => this.#select(this.#entries.find(({ item }) => item?.contains(target))));
    list.addEventListener("keydown", (event) => this.#walk(event));
    conversation?.addEventListener("click", () => this.#isShown && this.#find(getSelection()));
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
    this.#keep("lost");
    this.note(`connection lost, next try in ${seconds(wait)}`);
  }

  /** A line of the page's own, between the frames. */
  note(raw) {
    this.#add({ kind: "note", raw, at: this.#now });
  }

  frame(raw) {
    this.#keep(kindOf(raw), raw);
    this.#add({ kind: "frame", raw, at: this.#now, exchange: this.#exchange, number: this.#exchange.frames.length - 1 });
  }

  end(ending) {
    Object.assign(this.#exchange, { ending, ms: this.#now });
    this.#keep("end");
    this.#clock = clearInterval(this.#clock);
    this.#draw();
  }

  /** Go to the end, and follow it from there: for when the pane is shown. */
  toEnd() {
    this.#write();
    this.#draw();
    this.#box.toEnd();
  }

  /** Do what was to be done at other times: calls as [name, arguments, time]. */
  repeat(calls) {
    for (const [name, given, at] of calls) {
      this.#at = at;
      this[name](...given);
    }
    this.#at = null;
  }

  get #time() {
    return this.#at ?? performance.now();
  }

  get #now() {
    return this.#time - this.#exchange.begun;
  }

  get #isShown() {
    return this.#list.getClientRects().length > 0;
  }

  #begin(elementOf = () => null) {
    this.#exchange = { begun: this.#time, frames: [], chars: 0, elementOf };
  }

  // --- Keeping ---------------------------------------------------------------------------------------------------------

  #keep(kind, raw = "") {
    const exchange = this.#exchange;
    exchange.chars += raw.length;
    exchange.frames.push([this.#now, kind, raw]);
    if (exchange.chars > this.#limits.maxAnswerChars) exchange.frames = []; // a part of it would be a wrong picture
  }

  #add(entry) {
    if (!this.#waiting.length) this.#box.later(() => this.#write());
    this.#entries.push(entry);
    this.#waiting.push(entry);
    this.#chars += entry.raw.length;
    const { maxFrames, maxChars } = this.#limits;
    while (this.#entries.length > maxFrames || this.#chars > maxChars) {
      const first = this.#entries.shift();
      this.#chars -= first.raw.length;
      this.#dropped += 1;
      if (this.#waiting[0] === first) this.#waiting.shift();
      first.item?.remove();
    }
  }

  #clear() {
    [this.#entries, this.#chars, this.#dropped] = [[], 0, 0];
    this.#rewrite();
  }

  #save() {
    const text = recordingOf({ ms: this.#now, ...this.#exchange });
    if (!text) return void (this.#facts.textContent = UNSAVED);
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text]));
    link.download = "answer.sse.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
  }

  // --- Drawing -----------------------------------------------------------------------------------------------------------

  #tools() {
    const tools = make("div", "wire-tools");
    const filter = make("input");
    Object.assign(filter, { type: "search", placeholder: "Filter", ariaLabel: "Show only frames with this event or text" });
    filter.addEventListener("input", () => this.#rewrite((this.#filter = filter.value.toLowerCase())));
    const add = (label, act, ariaPressed = null) => {
      const tool = Object.assign(button("", label), { ariaPressed });
      tool.addEventListener("click", () => (tool.ariaPressed = act() ?? null));
      tools.append(tool);
    };
    tools.append(filter);
    add("Pause", () => (this.toEnd((this.#isPaused = !this.#isPaused)), this.#isPaused), false);
    add("Indent", () => (this.#rewrite((this.#isIndented = !this.#isIndented)), this.#isIndented), false);
    add("Clear", () => this.#clear());
    add("Save", () => void this.#save());
    return tools;
  }

  #write() {
    if (this.#isPaused || !this.#isShown) return;
    for (const entry of this.#waiting.splice(0, DRAWN_AT_ONCE)) {
      if (entry.raw.toLowerCase().includes(this.#filter)) this.#list.append(this.#draft(entry));
    }
    if (this.#waiting.length) this.#box.later(() => this.#write());
  }

  #rewrite() {
    this.#list.replaceChildren();
    for (const entry of this.#entries) entry.item = null;
    this.#told.clear();
    this.#waiting = [...this.#entries];
    this.toEnd();
  }

  #draft(entry) {
    const { kind, raw, at } = entry;
    const id = `frame-${(this.#count += 1)}`;
    const ariaSelected = String(entry === this.#selected);
    const item = (entry.item = Object.assign(make("li", kind), { role: "option", id, ariaSelected }));
    const parts = kind === "note" ? [["", raw]] : partsOf(raw, this.#isIndented);
    const pre = make("pre");
    pre.append(...parts.map(([name, text]) => (name ? make("span", `wire-${name}`, text) : text)));
    item.append(make("span", "at", `+${seconds(at)}`), pre);
    const odd = kind === "frame" && oddity(raw);
    if (odd) item.append(make("span", "odd", odd));
    // Each is told once, and then of the frame that is chosen.
    const told = odd && odd.replace(/^\d+ \w+/, "");
    if (this.#told.has(told)) item.classList.add("known");
    else if (odd) this.#told.add(told);
    return item;
  }

  #draw() {
    if (!this.#isShown) return;
    const { frames, chars, ending } = this.#exchange;
    const times = timesOf(frames);
    const facts = [
      this.#isPaused && `paused, ${count(this.#waiting.length)} waiting`,
      times.count > 0 && !ending && `last frame ${seconds(this.#now - times.last)} ago`,
      chars > this.#limits.maxAnswerChars && "the answer is too long for a picture",
      this.#dropped > 0 && `${count(this.#dropped)} older dropped`,
    ];
    this.#facts.textContent = facts.filter(Boolean).join(" · ");
    this.#figure.replaceChildren(picture(times), make("figcaption", "", words(times)));
  }

  // --- Frames and text -------------------------------------------------------------------------------------------------

  /** Choose a frame, and show what text it made. */
  #select(entry) {
    if (!entry) return;
    this.#mark(entry);
    if (entry.exchange !== this.#exchange) return;
    for (const [index, { source, pieces }] of linksOf(this.#exchange.frames)) {
      const [, at, end] = pieces.find(([number]) => number === entry.number) ?? [];
      const element = at < end && this.#exchange.elementOf(index);
      if (element) light(element, origins(element, source), at, end);
    }
  }

  /** Choose the frame that made the text at a place in the conversation. */
  #find({ focusNode, focusOffset }) {
    for (const [index, { source, pieces }] of linksOf(this.#exchange.frames)) {
      const element = this.#exchange.elementOf(index);
      if (!element?.contains(focusNode)) continue;
      const origin = origins(element, source).find(({ node }) => node === focusNode);
      const [number] = pieces.find(([, , end]) => end > origin?.at + focusOffset) ?? pieces.at(-1);
      const entry = this.#entries.find((each) => each.exchange === this.#exchange && each.number === number);
      if (entry?.item) this.#select(entry);
      else if (origin) this.#facts.textContent = "The frame of this text is no longer kept, or not shown.";
    }
  }

  #mark(entry) {
    if (this.#selected?.item) this.#selected.item.ariaSelected = "false";
    this.#selected = entry;
    entry.item.ariaSelected = "true";
    entry.item.scrollIntoView({ block: "nearest" });
    this.#list.setAttribute("aria-activedescendant", entry.item.id);
    globalThis.CSS.highlights?.delete("wire");
  }

  #walk(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const shown = this.#entries.filter(({ item }) => item?.isConnected);
    if (!step || !shown.length) return;
    event.preventDefault();
    this.#select(shown[shown.indexOf(this.#selected) + step]);
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
