/**
 * One answer on the page: its content blocks as they grow, how fast they came, and how it ended.
 *
 *     const answer = new Answer(box);
 *     scroller.append(answer.element);
 *     for await (const event of events) answer.take(event);
 *     await answer.finish({ kind: "complete" }, onRetry);
 *     answer.text;                                   // what the next request sends back
 *
 * `Answer.from(box, JSON.parse(JSON.stringify(answer)), onRetry, isLast)` makes it again after a reload.
 */

import { makeBlock, Sources, textsOf } from "./blocks.js";
import { button, make } from "./dom.js";
import { asText, count, describeStopReason, fields, isObject, seconds, tokensPerSecond } from "./words.js";

/** The line of numbers is renewed this often while the answer runs: often enough to live, not so often as to flicker. */
const FACTS_EVERY_MS = 250;

/** Characters of English per token, roughly. Only for the estimate while the answer runs; it is marked with a tilde. */
const CHARS_PER_TOKEN = 4;

class Meter {
  usage = {};
  stopReason = null;
  model = null;
  #sent = performance.now();
  #chars = 0;
  first = null; // ms from the request to the first content
  last = null;

  /** Content came. The times of the first and the last are what the speed is measured between. */
  content(text) {
    if (!text) return;
    this.last = performance.now() - this.#sent;
    this.first ??= this.last;
    this.#chars += text.length;
  }

  /** Counts in `usage` are totals so far: they replace, and null says nothing. */
  merge(usage) {
    for (const [name, value] of Object.entries(fields(usage))) {
      if (value !== null && (!name.endsWith("_tokens") || Number.isFinite(value))) this.usage[name] = value;
    }
  }

  get running() {
    const speed = tokensPerSecond(this.#chars / CHARS_PER_TOKEN, this.last - this.first);
    return speed ? ` · ~${Math.round(speed)} tokens/s` : "";
  }

  get final() {
    const { input_tokens: input, output_tokens: output } = this.usage;
    const isWhole = this.stopReason !== null;
    const sent = [input, this.usage.cache_read_input_tokens, this.usage.cache_creation_input_tokens];
    const parts = [
      this.model,
      isWhole && input !== undefined && `${count(sent.reduce((sum, n) => sum + (n ?? 0), 0))} tokens in`,
      isWhole && output !== undefined && `${count(output)} out`,
      this.last !== null && seconds(this.last),
      this.#speed && `${this.#speed.toFixed(1)} tokens/s`,
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
      ["First token", this.first && `${seconds(this.first)} after the request was sent`],
      ["Last token", this.last && `${seconds(this.last)} after the request was sent`],
      ["Speed", this.#speed && `${this.#speed.toFixed(1)} tokens/s: output_tokens over the time from first to last token`],
      ...Object.entries(this.usage).map(([name, value]) => [name, told(value)]),
    ];
    return rows.filter(([, value]) => value !== null);
  }

  /** Only from the API's own count, which is whole once a stop reason came. */
  get #speed() {
    const tokens = this.usage.output_tokens;
    return this.stopReason === null || !tokens ? null : tokensPerSecond(tokens, this.last - this.first);
  }
}

export class Answer {
  element = make("article", "answer");
  #box;
  #body = make("div", "body");
  #facts = make("p", "facts");
  #blocks = new Map();
  #last = null;
  #open = new Set();
  #sources = new Sources();
  #meter = new Meter();
  #factsDue = 0;
  #ending = null;

  constructor(box) {
    this.#box = box;
    this.element.setAttribute("aria-busy", "true");
    this.element.append(make("h2", "unseen", "Claude"), this.#body, this.#facts);
  }

  /** An answer as it was: `kept` is what `toJSON` gave. */
  static from(box, { message, times, ending }, onRetry, isLast) {
    const answer = new Answer(box);
    answer.#start({ ...message, content: null });
    for (const [index, block] of message.content.entries()) {
      answer.#startBlock(index, block);
      answer.#stopBlock(index, true);
    }
    answer.#meter.stopReason = message.stop_reason;
    Object.assign(answer.#meter, times);
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
    else if (type === "content_block_delta") this.#delta(index, fields(delta));
    else if (type === "content_block_stop") this.#stopBlock(index, true);
    else if (type === "message_delta") this.#end(fields(delta), usage);
  }

  /** What was said, for the next request: thinking and tool calls need not be sent back where no tool is run. */
  get text() {
    return textsOf([...this.#blocks.values()]).flatMap((block) => block.pieces).join("");
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
    return describeStopReason(this.#meter.stopReason) ?? "Answer complete.";
  }

  /**
   * The answer is over, and is drawn to its end. `ending` is { kind: "complete" | "stopped" } or { kind: "failed", headline,
   * detail }. An answer that is not the last cannot be tried again.
   */
  async finish(ending, onRetry, isLast = true) {
    this.#ending = ending;
    for (const index of this.#open) this.#stopBlock(index, ending.kind === "complete");
    for (const block of textsOf([...this.#blocks.values()])) block.end();
    await this.#box.settled();
    this.element.removeAttribute("aria-busy");
    this.#facts.remove();
    const limited = describeStopReason(this.#meter.stopReason);
    this.element.append(...this.#sources.list);
    if (ending.kind !== "complete") this.element.append(this.#describe(ending, onRetry));
    else if (limited) this.element.append(make("div", "ending limited", limited));
    this.element.append(this.#footer(onRetry));
    if (!isLast) for (const again of this.element.querySelectorAll(".again")) again.remove();
    this.#box.flush();
  }

  #start({ model, usage, content }) {
    this.#meter.model = asText(model) || null;
    this.#meter.merge(usage);
    this.#showFacts();
    (Array.isArray(content) ? content : []).forEach((block, index) => this.#startBlock(index, block));
  }

  #startBlock(index, data) {
    if (!isObject(data)) return;
    const last = this.#last;
    const block = makeBlock(data, { box: this.#box, sources: this.#sources, last });
    if (last && last.element !== block.element) for (const text of textsOf([last])) text.end();
    this.#blocks.set(index, block);
    this.#last = block;
    this.#open.add(index);
    if (block.element !== last?.element) this.#box.later(() => this.#body.append(block.element));
  }

  #delta(index, delta) {
    this.#blocks.get(index)?.take(delta);
    this.#meter.content([delta.text, delta.thinking, delta.partial_json].find(asText));
    if (performance.now() >= this.#factsDue) this.#showFacts();
  }

  #showFacts() {
    this.#factsDue = performance.now() + FACTS_EVERY_MS;
    this.#box.later(() => this.#facts.replaceChildren(make("span", "model", this.#meter.model ?? ""), this.#meter.running));
  }

  #stopBlock(index, isWhole) {
    if (this.#open.delete(index)) this.#blocks.get(index).stop(isWhole);
  }

  #end(delta, usage) {
    this.#meter.stopReason = asText(delta.stop_reason) || this.#meter.stopReason;
    this.#meter.merge(usage);
  }

  /** What can be done with the answer, and its numbers: one line, which opens to a table that says what each means. */
  #footer(onRetry) {
    const footer = make("div", "footer");
    if (this.text.trim()) footer.append(button("copy", "Copy", "Copy the answer"));
    if (this.#ending.kind === "complete") footer.append(retryButton("Retry", onRetry));
    const table = make("dl");
    for (const [name, value] of this.#meter.rows) table.append(make("dt", "", name), make("dd", "", value));
    const summary = make("summary", "", this.#meter.final || "no numbers");
    const details = make("details", "facts", summary, table);
    details.addEventListener("toggle", () => this.#box.grown(summary));
    if (table.childElementCount) footer.append(details);
    return footer;
  }

  #describe(ending, onRetry) {
    const hasFailed = ending.kind === "failed";
    const { headline, detail } = hasFailed ? ending : { headline: "Stopped." };
    const more = this.hasContent ? " The answer above is incomplete." : "";
    const box = make("div", `ending ${ending.kind}`, make("strong", "", headline), more);
    if (detail) box.append(make("p", "", detail));
    box.append(retryButton(hasFailed ? "Try again" : "Answer again", onRetry));
    return box;
  }
}

function retryButton(text, onRetry) {
  const again = button("again", text);
  again.addEventListener("click", onRetry);
  return again;
}
