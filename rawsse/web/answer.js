/**
 * One answer on the page: its content blocks as they grow, how fast they came, and how it ended. With it, what the whole page
 * uses: values in words, text that grows, and a scrolling box that follows its end.
 *
 *     const answer = new Answer(box);
 *     scroller.append(answer.element);
 *     for await (const event of events) answer.take(event);
 *     await answer.finish({ kind: "complete" }, onRetry);
 *     answer.text;                                   // what the next request sends back
 *
 * `Answer.from(box, JSON.parse(JSON.stringify(answer)), onRetry, isLast)` makes it again after a reload. What is encrypted, or
 * a signature, is neither kept nor shown.
 */

import { button, citationMark, cleaned, link, make, Markdown, trimmed } from "./markdown.js";

/** Links to sources that are listed beside a result, at most. */
const MAX_RESULTS = 50;

// --- Values, and their words -------------------------------------------------------------------------------------------

// Values of another type than they should have are as good as missing.
export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
export const fields = (value) => (isObject(value) ? value : {});
export const asText = (value) => (typeof value === "string" ? value : "");

/** The value of a JSON text; undefined if the text is not JSON. */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Milliseconds as seconds, with as many digits as a reader can use. */
export const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s`;

/** A count with thin spaces between the thousands. */
export const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** Stop reasons that a reader must be told of: the stream is complete, and yet the answer is not what was asked for. */
const STOP_REASONS = {
  __proto__: null, // so that a name from outside, such as "constructor", is not found
  max_tokens: "Cut off: the limit of output tokens was reached.",
  model_context_window_exceeded: "Cut off: the model's context window is full.",
  tool_use: "The model waits for the result of a tool, and this page runs none.",
  pause_turn: "The API paused a long turn. Ask it to go on.",
  refusal: "The model declined to answer.",
};

/** How the relay saw the API's stream end. It says more than an error type where the API itself said nothing. */
const ENDINGS = {
  __proto__: null,
  truncated: "The API's answer broke off before it was complete.",
  timeout: "The API fell silent before the answer was complete.",
  limit: "The answer was larger than the server allows.",
};

/** An error as { headline, detail }: what happened, and what the other side said about it. */
export function describeError(error) {
  // The page has a button for another try.
  const advice = error.advice === "Try again." ? "" : error.advice;
  const headline = ENDINGS[error.ending] ?? ([error.headline, advice].filter(Boolean).join(" ") || "The page itself failed.");
  const { status, type, field, requestId } = error;
  const facts = [status && `status ${status}`, type, field && `field ${field}`, requestId && `request ${requestId}`].filter(Boolean);
  const said = error.headline ? (error.detail ?? "") : error.message;
  return { headline, detail: facts.length ? `${said} (${facts.join(", ")})`.trim() : said };
}

/** The sentence for a stop reason; null where nothing is wrong, or the reason is not known yet. */
export const describeStopReason = (reason) => STOP_REASONS[reason] ?? null;

/** Tokens per second over a time in ms; null where the time is too short to divide by. */
export function tokensPerSecond(tokens, ms) {
  // Within 50 ms the answer came in one or two packets: the quotient would measure the network's buffers.
  return ms < 50 ? null : (tokens / ms) * 1000;
}

// --- Content blocks: each has an `element`, takes deltas, is told its end, and gives what it was made of -----------------

/** An object without what only the API can read. */
const readable = (value) =>
  JSON.parse(
    JSON.stringify(value ?? null, function (name, part) {
      const isCipher = /^(encrypted_\w+|signature)$/.test(name) || (name === "data" && /^(base64|redacted_thinking)$/.test(this.type));
      return isCipher ? undefined : part;
    }),
  );

/** The cited sources, numbered in the order of their first citation. */
export class Sources {
  #numbers = new Map();
  #known = [];

  /** The number of what this citation cites; 0 if it does not say. */
  numberOf({ title, document_title, url, source }) {
    const address = asText(url) || asText(source);
    const name = asText(title) || asText(document_title) || address;
    const key = JSON.stringify([name, address]);
    if (name && !this.#numbers.has(key)) this.#numbers.set(key, this.#known.push({ name, address }));
    return this.#numbers.get(key) ?? 0;
  }

  /** The mark in the text. */
  cite = (number) => {
    const { name = "", address = "" } = this.#known[number - 1] ?? {};
    const mark = link(address, String(number)) ?? make("span", "", String(number));
    Object.assign(mark, { title: name, ariaLabel: `Source ${number}: ${name}`, role: mark.href ? "link" : "note" });
    return make("sup", "cite", mark);
  };

  /** The elements of the list. */
  get list() {
    const items = this.#known.map(({ name, address }) => sourceItem(name, address));
    return items.length ? [make("h3", "", "Sources"), make("ol", "sources", ...items)] : [];
  }
}

function sourceItem(name, address, more = "") {
  const title = link(address, name) ?? make("cite", "", [...new Set([name, address])].filter(Boolean).join(", "));
  const facts = [title.hostname, more].filter(Boolean).join(" · ");
  return Object.assign(make("li", "", title, facts && make("span", "host", facts)), { dir: "auto" });
}

class TextBlock {
  pieces = [];
  citations = [];

  constructor({ text, citations }, { box, sources, last }) {
    Object.assign(this, { box, sources });
    // Texts with and without citations are separate blocks, and yet one text: sentences go on, lists too.
    this.flow = last instanceof TextBlock ? last.flow : this.#newFlow();
    this.element = this.flow.element;
    this.#add(asText(text));
    if (Array.isArray(citations)) this.citations.push(...citations.filter(isObject));
  }

  take({ text, citation }) {
    this.#add(asText(text));
    if (isObject(citation)) this.citations.push(citation);
  }

  /** The citations of a block are those of all of its text. */
  stop() {
    const numbers = new Set(this.citations.map((citation) => this.sources.numberOf(citation)));
    for (const number of numbers) if (number) this.#draw(citationMark(number));
  }

  toJSON() {
    return { type: "text", text: this.pieces.join(""), citations: readable(this.citations) };
  }

  #newFlow() {
    const element = make("div", "text");
    return { element, markdown: new Markdown(element, { cite: this.sources.cite }), space: "", isDue: false };
  }

  #add(text) {
    if (!text) return;
    this.pieces.push(text);
    // White space at the end waits: a citation stands before it.
    const kept = trimmed(text);
    if (kept) this.#draw(this.flow.space + cleaned(kept));
    this.flow.space = (kept ? "" : this.flow.space) + text.slice(kept.length);
  }

  #draw(source) {
    const { flow } = this;
    flow.markdown.append(source);
    if (flow.isDue) return;
    flow.isDue = true;
    this.box.later((until) => !(flow.isDue = !flow.markdown.draw(until)));
  }

  /** No more text comes. */
  end() {
    this.flow.markdown.end();
    this.#draw("");
  }
}

class ThinkingBlock {
  pieces = [];
  #summary = make("summary", "", "Thinking…");
  #progress = Object.assign(make("progress"), { ariaLabel: "Thinking" });
  #tokens = 0;
  #begun = performance.now();

  constructor({ thinking, time }, { box, isTimed }) {
    const body = Object.assign(make("div", "thought"), { dir: "auto" });
    Object.assign(this, { box, isTimed, time, element: make("details", "thinking", this.#summary, body) });
    this.growing = new GrowingText(box, body);
    if (time === undefined) this.#summary.append(this.#progress);
    this.take({ thinking });
  }

  take({ thinking, estimated_tokens: tokens }) {
    if (asText(thinking)) {
      this.pieces.push(thinking);
      this.growing.append(thinking);
      this.#progress.remove();
    }
    if (!(tokens > 0)) return;
    this.#tokens += tokens; // each is what came since the last
    this.box.later(() => {
      if (this.time === undefined) this.#summary.firstChild.data = `Thinking… about ${count(this.#tokens)} tokens`;
    });
  }

  stop(isWhole) {
    this.time ??= `${this.isTimed ? seconds(performance.now() - this.#begun) : "a while"}${isWhole ? "" : ", not to the end"}`;
    this.#summary.textContent = `Thought for ${this.time}`;
    if (!this.pieces.length) this.growing.append("The API did not send the text of this thinking.");
  }

  toJSON() {
    return { type: "thinking", thinking: this.pieces.join(""), time: this.time };
  }
}

class ToolBlock {
  json = "";
  #note = make("span", "tool-note");

  constructor({ type, name, input = {}, json }, { box }) {
    Object.assign(this, { type, name, input });
    const kind = type === "tool_use" ? "Tool call " : "Server tool ";
    const body = make("pre", "tool-input");
    this.element = make("div", "tool", make("div", "tool-name", kind, make("code", "", asText(name)), this.#note), body);
    this.growing = new GrowingText(box, body);
    this.take({ partial_json: json });
  }

  take({ partial_json: piece }) {
    this.json += asText(piece);
    this.growing.append(asText(piece));
  }

  stop(isWhole) {
    // A tool without arguments streams nothing, or empty strings: then the input is the one that the block began with.
    if (!this.json && isWhole) this.growing.append(JSON.stringify(this.input ?? {}));
    if (!isWhole || parsed(this.json || "{}") === undefined) this.#note.textContent = " (input incomplete)";
  }

  toJSON() {
    const { type, name, input, json } = this;
    return { type, name, input, json };
  }
}

/** Any other block: results of the API's own tools, and kinds that do not exist yet. */
class OtherBlock {
  constructor(block) {
    this.block = readable(block);
    const { type, content } = this.block;
    const items = [content].flat().filter(isObject);
    const links = items.filter(({ url, source }) => asText(url) || asText(source));
    const code = asText(items.find((item) => item.error_code)?.error_code);
    const tool = asText(type).replace(/_tool_result$/, "").replaceAll("_", " ");
    const results = links.length && `${tool}: ${links.length} result${links.length === 1 ? "" : "s"}`;
    const headline = (code && `${tool} failed: ${code}`) || results || asText(type);
    const list = make("ul", "sources", ...links.slice(0, MAX_RESULTS).map(resultItem));
    this.element = make("details", "other", make("summary", "", headline), links.length ? list : make("pre", "", this.#text(items)));
  }

  take() {}
  stop() {}
  toJSON() {
    return this.block;
  }

  /** The output of code, or the text of a result, if it is nothing else; else all of it. */
  #text(items) {
    const texts = items.map(({ stdout, stderr, text }) => (stdout || stderr ? [stdout, stderr].filter(Boolean).join("\n") : text));
    const isText = texts.length > 0 && texts.every((text) => typeof text === "string");
    return isText ? texts.join("\n") : JSON.stringify(this.block, null, 2);
  }
}

function resultItem({ title, content, url, source, page_age: age }) {
  const address = asText(url) || asText(source);
  return sourceItem(asText(title) || asText(content?.title) || address, address, asText(age));
}

class RedactedBlock extends OtherBlock {
  element = make("p", "thinking", "Some of the thinking is encrypted by the API, and cannot be shown.");
}

const BLOCKS = {
  __proto__: null, // or a block of type "constructor" would be found
  text: TextBlock,
  thinking: ThinkingBlock,
  redacted_thinking: RedactedBlock,
  tool_use: ToolBlock,
  server_tool_use: ToolBlock,
  mcp_tool_use: ToolBlock,
};

/** `context` is { box, sources, last, isTimed }. `last` is the block before it: a text may go on with one. */
export const makeBlock = (data, context) => new (BLOCKS[data.type] ?? OtherBlock)(data, context);

// --- The answer --------------------------------------------------------------------------------------------------------

/** Whether a reader gets more of the answer from an event: text, thinking, a tool's input or its result. */
function bringsContent({ type, delta, content_block: block }) {
  const part = fields({ content_block_delta: delta, content_block_start: block }[type]);
  const isThere = (value) => (isObject(value) ? Object.keys(value).length : value?.length) > 0;
  return [part.text, part.thinking, part.partial_json, part.input, part.content].some(isThere);
}

class Meter {
  isTimed = true;
  usage = {};
  stopReason = null;
  model = null;
  first = null; // ms from the request to the first content
  last = null;
  #sent = performance.now();

  /** Content came. The times of the first and the last are what the speed is measured between. */
  content() {
    if (!this.isTimed) return;
    this.last = performance.now() - this.#sent;
    this.first ??= this.last;
  }

  /** Counts in `usage` are totals so far: they replace, and null says nothing. */
  merge(usage) {
    for (const [name, value] of Object.entries(fields(usage))) {
      if (value !== null && (!name.endsWith("_tokens") || Number.isFinite(value))) this.usage[name] = value;
    }
  }

  get line() {
    const { input_tokens: input, output_tokens: output, cache_read_input_tokens: read, cache_creation_input_tokens: made } = this.usage;
    const isWhole = this.stopReason !== null;
    const parts = [
      this.model,
      isWhole && input !== undefined && `${count(input + (read ?? 0) + (made ?? 0))} tokens in`,
      isWhole && output !== undefined && `${count(output)} out`,
      this.last !== null && seconds(this.last),
      this.#speed,
    ];
    return parts.filter(Boolean).join(" · ");
  }

  /** The numbers with what they mean, as [name, value] pairs. */
  get rows() {
    const when = this.stopReason === null ? " at the start" : "";
    const told = (value) => (typeof value === "number" ? count(value) : JSON.stringify(value)) + when;
    const rows = [
      ["Model", this.model],
      ["Stop reason", this.stopReason],
      ["First content", this.first && `${seconds(this.first)} after the request was sent`],
      ["Last content", this.last && `${seconds(this.last)} after the request was sent`],
      ["Speed", this.#speed && `${this.#speed}: output_tokens over the time from first to last content`],
      ...Object.entries(this.usage).map(([name, value]) => [name, told(value)]),
    ];
    return rows.filter(([, value]) => value !== null);
  }

  /** Only from the API's own count, which is whole once a stop reason came. */
  get #speed() {
    const tokens = this.stopReason === null ? 0 : this.usage.output_tokens;
    const speed = tokens ? tokensPerSecond(tokens, this.last - this.first) : null;
    return speed && `${speed.toFixed(1)} tokens/s`;
  }
}

export class Answer {
  #box;
  #body = make("div", "body");
  #facts = make("p", "facts");
  #blocks = new Map();
  #last = null;
  #open = new Set();
  #sources = new Sources();
  #meter = new Meter();
  #ending = null;

  /** Not timed: it is read once more from its start, and comes as fast as it can. */
  constructor(box, isTimed = true) {
    this.#box = box;
    this.#meter.isTimed = isTimed;
    this.element = make("article", "answer", make("h2", "unseen", "Claude"), this.#body, this.#facts);
    this.element.ariaBusy = true;
  }

  /** An answer as it was: `kept` is what `toJSON` gave. */
  static from(box, { message, times, ending }, onRetry, isLast) {
    const answer = new Answer(box);
    answer.#start({ ...message, content: null });
    for (const [index, block] of message.content.entries()) {
      answer.#startBlock(index, block);
      answer.#stopBlock(index, true);
    }
    Object.assign(answer.#meter, times, { stopReason: message.stop_reason });
    answer.finish(ending, onRetry, isLast);
    return answer;
  }

  toJSON() {
    const { model, usage, stopReason, first, last } = this.#meter;
    const content = [...this.#blocks.values()].map((block) => block.toJSON());
    return { message: { model, usage, stop_reason: stopReason, content }, times: { first, last }, ending: this.#ending };
  }

  /**
   * Take one event of the Messages API. Unknown parts are left out: the wire pane shows them. So are events and parts that are
   * missing, null or of another type, as gateways send them.
   */
  take(event) {
    const { type, index, message, content_block: block, delta, usage } = fields(event);
    if (type === "message_start") this.#start(fields(message));
    else if (type === "content_block_start") this.#startBlock(index, block);
    else if (type === "content_block_delta") this.#blocks.get(index)?.take(fields(delta));
    else if (type === "content_block_stop") this.#stopBlock(index, true);
    else if (type === "message_delta") this.#end(fields(delta), usage);
    if (bringsContent(fields(event))) this.#meter.content();
  }

  get #texts() {
    return [...this.#blocks.values()].filter((block) => block instanceof TextBlock);
  }

  /** The text, for the next request: thinking and tool calls need not be sent back where no tool runs. */
  get text() {
    return this.#texts.flatMap((block) => block.pieces).join("");
  }

  /** The element that shows a content block: the wire lights up pieces of it. */
  blockElement(index) {
    return this.#blocks.get(index)?.element;
  }

  get hasContent() {
    return this.#blocks.size > 0;
  }

  /** The answer in one sentence, once it is complete. */
  get summary() {
    return describeStopReason(this.#meter.stopReason) ?? "Answer complete.";
  }

  /**
   * The answer is over, and is drawn to its end. `ending` is { kind: "complete" | "stopped" } or { kind: "failed", headline,
   * detail }. An answer that is not the last cannot be tried again.
   */
  async finish(ending, onRetry, isLast = true) {
    const { kind, headline = "Stopped.", detail } = (this.#ending = ending);
    const isComplete = kind === "complete";
    for (const index of this.#open) this.#stopBlock(index, isComplete);
    for (const block of this.#texts) block.end();
    await this.#box.settled();
    this.element.ariaBusy = null;
    this.#facts.remove();
    const again = (text) => isLast && button("again", text, { onclick: onRetry });
    const limited = describeStopReason(this.#meter.stopReason);
    const more = this.hasContent ? " The answer above is incomplete." : "";
    this.element.append(...this.#sources.list);
    if (!isComplete) {
      const said = [make("strong", "", headline), more, detail && make("p", "", detail)];
      this.element.append(make("div", `ending ${kind}`, ...said, again(kind === "failed" ? "Try again" : "Answer again")));
    } else if (limited) {
      this.element.append(make("div", "ending limited", limited));
    }
    this.element.append(this.#footer(isComplete && again("Retry")));
    this.#box.flush();
  }

  #start({ model, usage, content }) {
    this.#meter.model = asText(model) || null;
    this.#meter.merge(usage);
    this.#box.later(() => this.#facts.replaceChildren(make("span", "model", this.#meter.model)));
    if (Array.isArray(content)) content.forEach((block, index) => this.#startBlock(index, block));
  }

  #startBlock(index, data) {
    if (!isObject(data)) return;
    const last = this.#last;
    const block = makeBlock(data, { box: this.#box, sources: this.#sources, last, isTimed: this.#meter.isTimed });
    this.#blocks.set(index, block);
    this.#last = block;
    this.#open.add(index);
    if (block.element !== last?.element) this.#box.later(() => this.#body.append(block.element));
  }

  #stopBlock(index, isWhole) {
    if (this.#open.delete(index)) this.#blocks.get(index).stop(isWhole);
  }

  #end(delta, usage) {
    this.#meter.stopReason = asText(delta.stop_reason) || this.#meter.stopReason;
    this.#meter.merge(usage);
  }

  /** The buttons of the answer, and its numbers: one line, which opens to a table with their meaning. */
  #footer(retry) {
    const rows = this.#meter.rows.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]);
    const summary = make("summary", "", this.#meter.line || "no numbers");
    const details = make("details", "facts", summary, make("dl", "", ...rows));
    details.ontoggle = () => this.#box.grown(summary);
    const copy = this.text.trim() && button("copy", "Copy", { ariaLabel: "Copy the answer" });
    return make("div", "footer", copy, retry, rows.length && details);
  }
}

// --- Text that grows, and the box that scrolls with it -------------------------------------------------------------------

// An answer brings up to hundreds of events a second, a screen shows 60 pictures. One change of the page per event would lay
// the page out several times per picture: changes wait for the next frame.
//
//     const box = new FollowingBox(scroller);
//     const text = new GrowingText(box, element);
//     text.append("Hel");                           // both are written in the next frame
//     text.append("lo");

/** How long changes may take in one frame, in ms; what is left is made in the next ones. */
const BUDGET_MS = 8;

/** A hidden tab has no frames: there, changes are made after this time, in ms. */
const HIDDEN_MS = 200;

/** So near to its end a box counts as being there: half a line, and the fractions of a pixel that zooming makes. */
const END_PX = 12;

/** Let the browser paint and take input, then go on. A message, since timers of hidden tabs fire once a second. */
export function turn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), resolve());
    port2.postMessage(null);
  });
}

export class FollowingBox {
  #box;
  #changes = [];
  #waiting = []; // for all changes to be made
  #top = 0;
  #frame = 0;
  #timer = 0;
  #isAtEnd = true; // until the reader scrolls up: then the box stays where it is, until he comes back to the end

  constructor(box) {
    this.#box = box;
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // A box that shrinks (the wire opens, a telephone shows its keyboard) hides its end, and no scrolling is reported.
    new ResizeObserver(() => this.#isAtEnd && this.toEnd()).observe(box);
  }

  /** Make a change in the next animation frame, in the order of the calls. `change(until)` may return false at that time, a
   * `performance.now()`, to go on in the frame after it. */
  later(change) {
    this.#changes.push(change);
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => this.#make(performance.now() + BUDGET_MS));
    this.#timer = setTimeout(() => this.flush(), HIDDEN_MS);
  }

  /** Make all changes now. */
  flush() {
    this.#make(Infinity);
  }

  /** Resolves when all changes are made. */
  settled() {
    if (document.hidden) this.flush();
    return this.#changes.length ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve();
  }

  #make(until) {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = 0;
    for (const change of this.#changes.splice(0)) if (change(until) === false) this.later(change);
    if (this.#isAtEnd) this.toEnd();
    if (this.#changes.length === 0) for (const resolve of this.#waiting.splice(0)) resolve();
  }

  toEnd() {
    this.#isAtEnd = true;
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#top = this.#box.scrollTop; // the reader may scroll up before this is reported
  }

  /** Something opened or closed below `head` at the reader's wish: show what came, but never at the cost of its head. */
  grown(head) {
    if (!this.#isAtEnd) return;
    this.toEnd();
    head.scrollIntoView({ block: "nearest" });
  }

  /** A reader scrolls up. That the end went away meanwhile, since the text grew or the box shrank, does not count. */
  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    if (scrollHeight - scrollTop - clientHeight <= END_PX) this.#isAtEnd = true;
    else if (scrollTop < this.#top) this.#isAtEnd = false;
    this.#top = scrollTop;
  }
}

/** Growing text is laid out in pieces of about this length, each of them once. A line longer than four of them is broken. */
const PIECE = 4096;

export class GrowingText {
  #box;
  #element;
  #piece = null;
  #length = 0;
  #isInLine = false;
  #texts = [];

  constructor(box, element) {
    [this.#box, this.#element] = [box, element];
  }

  append(text) {
    if (!text) return;
    if (this.#texts.length === 0) this.#box.later(() => this.#write(this.#texts.splice(0).join("")));
    this.#texts.push(text);
  }

  #write(text) {
    for (const part of text.match(/[^\n]{1,4096}\n?|\n/gu)) {
      if (!this.#piece || this.#length > (this.#isInLine ? 4 * PIECE : PIECE)) {
        this.#element.append((this.#piece = make("span", "piece")));
        this.#length = 0;
      }
      this.#piece.append(part);
      this.#length += part.length;
      this.#isInLine = !part.endsWith("\n");
    }
  }
}
