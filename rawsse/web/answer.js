/**
 * One answer on the page: its content blocks as they grow, how fast they came, and how it ended.
 *
 * This file knows the events of the Messages API and the elements that show them. It refuses to know where the events
 * come from, and what becomes of the answer afterwards.
 *
 *     const answer = new Answer(box);
 *     scroller.append(answer.element);
 *     for await (const event of events) answer.take(event);
 *     answer.finish({ kind: "complete" });
 *     answer.text;                                   // what the next request sends back
 *
 * Why plain text and no Markdown: half an answer is half a Markdown document, so each piece could change the meaning of
 * what stands before it (a table, a fence, a link) and the page would jump. And a renderer makes markup out of what the
 * model wrote, which is how `<img onerror>` gets into pages. Here nothing has to be cleaned, since nothing is parsed.
 */

import { GrowingText, make } from "./dom.js";
import { count, describeError, describeStopReason, seconds, tokensPerSecond } from "./words.js";

/** The line of numbers is renewed this often while the answer runs: often enough to live, not so often as to flicker. */
const FACTS_EVERY_MS = 250;

/** Characters of English per token, roughly. Only for the estimate while the answer runs; it is marked with a tilde. */
const CHARS_PER_TOKEN = 4;

// --- Content blocks: each has an `element`, takes deltas, and is told its end ----------------------------------------

class TextBlock {
  element = make("span", "text");
  pieces = [];
  sources = [];

  constructor(box, { text }) {
    this.growing = new GrowingText(box, this.element);
    this.#add(text);
  }

  take(delta) {
    if (delta.type === "text_delta") this.#add(delta.text);
    if (delta.type === "citations_delta" && delta.citation) this.sources.push(delta.citation);
  }

  stop() {}

  #add(text) {
    if (!text) return;
    this.pieces.push(text);
    this.growing.append(text);
  }
}

class ThinkingBlock {
  element = make("details", "thinking");
  #summary = make("summary", "", "Thinking…");
  #begun = performance.now();
  #isEmpty = true;

  constructor(box, { thinking }) {
    const body = make("div", "thought");
    this.element.append(this.#summary, body);
    this.growing = new GrowingText(box, body);
    this.#add(thinking);
  }

  take(delta) {
    if (delta.type === "thinking_delta") this.#add(delta.thinking);
  }

  stop(isWhole) {
    const time = seconds(performance.now() - this.#begun);
    this.#summary.textContent = isWhole ? `Thought for ${time}` : `Thought for ${time}, not to the end`;
    if (this.#isEmpty) this.growing.append("The API did not send the text of this thinking.");
  }

  #add(text) {
    if (!text) return;
    this.#isEmpty = false;
    this.growing.append(text);
  }
}

class ToolBlock {
  element = make("div", "tool");
  #pieces = [];
  #note = make("span", "tool-note");

  constructor(box, { name, input }) {
    this.input = input ?? {};
    const line = make("div", "tool-name", "Tool call ");
    line.append(make("code", "", name ?? ""), this.#note);
    const body = make("pre", "tool-input");
    this.element.append(line, body);
    this.growing = new GrowingText(box, body);
  }

  take(delta) {
    if (delta.type !== "input_json_delta" || !delta.partial_json) return;
    this.#pieces.push(delta.partial_json);
    this.growing.append(delta.partial_json);
  }

  stop(isWhole) {
    // A tool without arguments streams nothing, or empty strings: then the input is the one that the block began with.
    const json = this.#pieces.join("");
    if (json === "" && isWhole) this.growing.append(JSON.stringify(this.input));
    if (!isWhole || !isJSON(json || "{}")) this.#note.textContent = " (input incomplete)";
  }
}

/** Any other block: results of the API's own tools, redacted thinking, and what is invented next year. */
class OtherBlock {
  element = make("details", "other");

  constructor(box, block) {
    this.element.append(make("summary", "", block.type ?? ""), make("pre", "", JSON.stringify(block, null, 2)));
  }

  take() {}
  stop() {}
}

const BLOCKS = {
  __proto__: null, // or a block of type "constructor" would be found
  text: TextBlock,
  thinking: ThinkingBlock,
  tool_use: ToolBlock,
  server_tool_use: ToolBlock,
  mcp_tool_use: ToolBlock,
};

function isJSON(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// --- The numbers -----------------------------------------------------------------------------------------------------

class Meter {
  usage = {};
  stopReason = null;
  model = null;
  #sent = performance.now();
  #first = null;
  #last = null;
  #chars = 0;

  /** Content came. The times of the first and the last are what the speed is measured between. */
  content(text) {
    if (!text) return;
    this.#last = performance.now();
    this.#first ??= this.#last;
    this.#chars += text.length;
  }

  /** Counts in `usage` are totals so far: they replace, and null says nothing. */
  merge(usage) {
    for (const [name, value] of Object.entries(usage ?? {})) if (value !== null) this.usage[name] = value;
  }

  get running() {
    if (this.#first === null) return "";
    const speed = tokensPerSecond(this.#chars / CHARS_PER_TOKEN, this.#last - this.#first);
    return [this.#firstToken, speed && `~${Math.round(speed)} tokens/s`].filter(Boolean).join(" · ");
  }

  get final() {
    const speed = this.#speed;
    const parts = [
      this.stopReason,
      this.stopReason && "output_tokens" in this.usage && `${count(this.usage.output_tokens)} tokens`,
      this.#first !== null && this.#firstToken,
      speed && `${speed.toFixed(1)} tokens/s`,
    ];
    return parts.filter(Boolean).join(" · ");
  }

  /** The numbers with what they mean, as [name, value] pairs. */
  get rows() {
    const rows = [];
    const add = (name, value) => value !== null && rows.push([name, value]);
    add("Model", this.model);
    add("Stop reason", this.stopReason);
    add("First token", this.#first && `${seconds(this.#first - this.#sent)} after the request was sent`);
    add("Last token", this.#last && `${seconds(this.#last - this.#sent)} after the request was sent`);
    const speed = this.#speed?.toFixed(1);
    add("Speed", speed ? `${speed} tokens/s: output_tokens over the time from first to last token` : null);
    const when = this.stopReason === null ? " at the start" : "";
    for (const [name, value] of Object.entries(this.usage)) {
      add(name, (typeof value === "number" ? count(value) : JSON.stringify(value)) + when);
    }
    return rows;
  }

  get #firstToken() {
    return `first token ${seconds(this.#first - this.#sent)}`;
  }

  /** Only from the API's own count, which is whole once a stop reason came. */
  get #speed() {
    const tokens = this.usage.output_tokens;
    return this.stopReason === null || !tokens ? null : tokensPerSecond(tokens, this.#last - this.#first);
  }
}

// --- The answer ------------------------------------------------------------------------------------------------------

export class Answer {
  element = make("article", "answer");
  #hasStopped = false;
  #box;
  #heading = make("h2", "", "Claude");
  #body = make("div", "body");
  #facts = make("p", "facts");
  #blocks = new Map();
  #open = new Set();
  #meter = new Meter();
  #factsDue = 0;

  constructor(box) {
    this.#box = box;
    this.element.setAttribute("aria-busy", "true");
    this.element.append(this.#heading, this.#body, this.#facts);
  }

  /**
   * Take one event of the Messages API. Unknown parts are left out: the wire pane shows them. So are parts that are missing or
   * null, as gateways send them.
   */
  take(event) {
    if (event.type === "message_start") this.#start(event.message ?? {});
    else if (event.type === "content_block_start") this.#startBlock(event.index, event.content_block);
    else if (event.type === "content_block_delta") this.#delta(event.index, event.delta ?? {});
    else if (event.type === "content_block_stop") this.#stopBlock(event.index, true);
    else if (event.type === "message_delta") this.#end(event);
    else if (event.type === "message_stop") this.#hasStopped = true;
  }

  /** The whole answer is there: `message_stop` came, or only that is missing, since the stop reason is known. */
  get isComplete() {
    return this.#hasStopped || this.#meter.stopReason !== null;
  }

  /** What was said, for the next request: thinking and tool calls need not be sent back where no tool is run. */
  get text() {
    return this.#textBlocks.flatMap((block) => block.pieces).join("");
  }

  /** The element that shows a content block: the wire lights up pieces of it. */
  blockElement(index) {
    return this.#blocks.get(index)?.element ?? null;
  }

  get hasContent() {
    return this.#blocks.size > 0;
  }

  /** The answer in one sentence, once it is complete. */
  get summary() {
    const tokens = this.#meter.usage.output_tokens;
    const plain = tokens === undefined ? "Answer complete." : `Answer complete, ${count(tokens)} tokens.`;
    return describeStopReason(this.#meter.stopReason) ?? plain;
  }

  /** The answer is over. `ending` is { kind: "complete" | "stopped" } or { kind: "failed", error }. */
  finish(ending, onRetry) {
    for (const index of this.#open) this.#stopBlock(index, false);
    this.#box.later(() => {
      this.element.removeAttribute("aria-busy");
      this.#facts.replaceWith(...this.#footer());
      const limited = describeStopReason(this.#meter.stopReason);
      if (ending.kind !== "complete") this.element.append(this.#describe(ending, onRetry));
      else if (limited) this.element.append(make("div", "ending limited", limited));
    });
    this.#box.flush();
  }

  #start({ model, usage, content }) {
    this.#meter.model = model ?? null;
    this.#meter.merge(usage);
    this.#box.later(() => this.#heading.append(make("span", "model", model ?? "")));
    (Array.isArray(content) ? content : []).forEach((block, index) => this.#startBlock(index, block));
  }

  #startBlock(index, data) {
    if (!data) return;
    const block = new (BLOCKS[data.type] ?? OtherBlock)(this.#box, data);
    this.#blocks.set(index, block);
    this.#open.add(index);
    this.#box.later(() => this.#body.append(block.element));
  }

  #delta(index, delta) {
    this.#blocks.get(index)?.take(delta);
    this.#meter.content(delta.text ?? delta.thinking ?? delta.partial_json);
    if (performance.now() < this.#factsDue) return;
    this.#factsDue = performance.now() + FACTS_EVERY_MS;
    this.#box.later(() => (this.#facts.textContent = this.#meter.running));
  }

  #stopBlock(index, isWhole) {
    if (this.#open.delete(index)) this.#blocks.get(index).stop(isWhole);
  }

  #end({ delta, usage }) {
    this.#meter.stopReason = delta?.stop_reason ?? this.#meter.stopReason;
    this.#meter.merge(usage);
  }

  get #textBlocks() {
    return [...this.#blocks.values()].filter((block) => block instanceof TextBlock);
  }

  /** The sources that were cited, and the numbers: one line, which opens to a table that says what each means. */
  #footer() {
    const details = make("details", "facts");
    const table = make("dl");
    for (const [name, value] of this.#meter.rows) table.append(make("dt", "", name), make("dd", "", value));
    const summary = make("summary", "", this.#meter.final || "no numbers");
    details.append(summary, table);
    details.addEventListener("toggle", () => this.#box.grown(summary));
    return [...this.#sources(), ...(table.childElementCount ? [details] : [])];
  }

  #sources() {
    const cited = this.#textBlocks.flatMap((block) => block.sources);
    const nameOf = ({ title, document_title, url, source }) => [title ?? document_title, url ?? source];
    const names = new Set(cited.map((citation) => nameOf(citation).filter(Boolean).join(", ")));
    names.delete("");
    if (names.size === 0) return [];
    const list = make("ol", "sources");
    for (const name of names) list.append(make("li", "", name));
    return [make("h3", "", "Sources"), list];
  }

  #describe(ending, onRetry) {
    const box = make("div", `ending ${ending.kind}`);
    const hasFailed = ending.kind === "failed";
    const { headline, detail } = hasFailed ? describeError(ending.error) : { headline: "Stopped.", detail: "" };
    box.append(make("strong", "", headline), this.hasContent ? " The answer above is incomplete." : "");
    if (detail) box.append(make("p", "", detail));
    const again = make("button", "again", hasFailed ? "Try again" : "Answer again");
    again.type = "button";
    again.addEventListener("click", onRetry);
    box.append(again);
    return box;
  }
}
