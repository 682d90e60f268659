/**
 * The content blocks of an answer, as they grow: each has an `element`, takes deltas, is told its end, and gives what it was
 * made of, so that it can be made again after a reload. What is encrypted, or a signature, is neither kept nor shown.
 *
 *     const block = makeBlock(data, { box, sources, last });    // `last`: the block before it; texts may go on with one
 */

import { GrowingText, make } from "./dom.js";
import { citationMark, cleaned, link, trimmed } from "./inline.js";
import { Markdown } from "./markdown.js";
import { asText, count, isObject, parsed, seconds } from "./words.js";

/** Links to sources that are listed beside a result, at most. */
const MAX_RESULTS = 50;

/** An object without what only the API can read. */
const readable = (value) =>
  JSON.parse(
    JSON.stringify(value ?? null, function (name, part) {
      const isCipher = /^(encrypted_\w+|signature)$/.test(name) || (name === "data" && /^(base64|redacted_thinking)$/.test(this.type));
      return isCipher ? undefined : part;
    }),
  );

/** What was cited, numbered in the order of its first citation. */
export class Sources {
  #numbers = new Map();
  #known = [];

  /** The number of what this citation cites; null if it does not say. */
  numberOf({ title, document_title, url, source }) {
    const address = asText(url) || asText(source);
    const name = asText(title) || asText(document_title) || address;
    if (!name) return null;
    const key = JSON.stringify([name, address]);
    if (!this.#numbers.has(key)) this.#numbers.set(key, this.#known.push({ name, address }));
    return this.#numbers.get(key);
  }

  /** The mark in the text. */
  cite = (number) => {
    const { name = "", address = "" } = this.#known[number - 1] ?? {};
    const mark = make("sup", "cite", link(address, String(number)) ?? make("span", "", String(number)));
    const role = mark.firstChild.href ? "link" : "note";
    Object.assign(mark.firstChild, { title: name, ariaLabel: `Source ${number}: ${name}`, role });
    return mark;
  };

  /** The elements of the list. */
  get list() {
    if (this.#known.length === 0) return [];
    const list = make("ol", "sources");
    for (const { name, address } of this.#known) list.append(sourceItem(name, address));
    return [make("h3", "", "Sources"), list];
  }
}

function sourceItem(name, address, more = "") {
  const item = make("li");
  item.dir = "auto";
  item.append(link(address, name) ?? make("cite", "", [...new Set([name, address])].filter(Boolean).join(", ")));
  const host = item.firstChild.hostname;
  const facts = [host, more].filter(Boolean).join(" · ");
  if (facts) item.append(make("span", "host", facts));
  return item;
}

class TextBlock {
  pieces = [];
  citations = [];

  constructor({ text, citations }, { box, sources, last }) {
    this.box = box;
    this.sources = sources;
    // Texts with and without citations are blocks of their own, and yet one text: sentences go on, lists too.
    this.flow = last instanceof TextBlock ? last.flow : this.#newFlow();
    this.element = this.flow.element;
    this.#add(asText(text));
    if (Array.isArray(citations)) this.citations.push(...citations.filter(isObject));
  }

  take(delta) {
    if (delta.type === "text_delta") this.#add(asText(delta.text));
    if (delta.type === "citations_delta" && isObject(delta.citation)) this.citations.push(delta.citation);
  }

  /** The citations of a block are those of all of its text. */
  stop() {
    const numbers = new Set(this.citations.map((citation) => this.sources.numberOf(citation)));
    for (const number of numbers) if (number !== null) this.#draw(citationMark(number));
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
    this.box.later((until) => {
      flow.isDue = !flow.markdown.draw(until);
      return !flow.isDue;
    });
  }

  /** No more text comes. */
  end() {
    this.flow.markdown.end();
    this.#draw("");
  }
}

class ThinkingBlock {
  element = make("details", "thinking");
  pieces = [];
  #summary = make("summary", "", "Thinking…");
  #progress = make("progress");
  #tokens = 0;
  #begun = performance.now();

  constructor({ thinking, time }, { box }) {
    const body = make("div", "thought");
    body.dir = "auto";
    this.box = box;
    this.time = time;
    this.#progress.ariaLabel = "Thinking";
    this.element.append(this.#summary, body);
    this.growing = new GrowingText(box, body);
    this.#add(asText(thinking));
    if (!thinking && time === undefined) this.#summary.append(this.#progress);
  }

  take({ type, thinking, estimated_tokens: tokens }) {
    if (type !== "thinking_delta") return;
    this.#add(asText(thinking));
    if (!(tokens > 0)) return;
    this.#tokens += tokens; // each is what came since the last
    this.box.later(() => {
      if (this.time === undefined) this.#summary.firstChild.data = `Thinking… about ${count(this.#tokens)} tokens`;
    });
  }

  stop(isWhole) {
    this.time ??= `${seconds(performance.now() - this.#begun)}${isWhole ? "" : ", not to the end"}`;
    this.#summary.textContent = `Thought for ${this.time}`;
    if (!this.pieces.length) this.growing.append("The API did not send the text of this thinking.");
  }

  toJSON() {
    return { type: "thinking", thinking: this.pieces.join(""), time: this.time };
  }

  #add(text) {
    if (!text) return;
    this.pieces.push(text);
    this.growing.append(text);
    this.#progress.remove();
  }
}

class ToolBlock {
  element = make("div", "tool");
  #pieces = [];
  #note = make("span", "tool-note");

  constructor({ type, name, input, json }, { box }) {
    Object.assign(this, { type, name, input: input ?? {} });
    const kind = type === "tool_use" ? "Tool call " : "Server tool ";
    const line = make("div", "tool-name", kind, make("code", "", asText(name)), this.#note);
    const body = make("pre", "tool-input");
    this.element.append(line, body);
    this.growing = new GrowingText(box, body);
    this.take({ type: "input_json_delta", partial_json: json });
  }

  take(delta) {
    if (delta.type !== "input_json_delta" || !asText(delta.partial_json)) return;
    this.#pieces.push(delta.partial_json);
    this.growing.append(delta.partial_json);
  }

  stop(isWhole) {
    // A tool without arguments streams nothing, or empty strings: then the input is the one that the block began with.
    const json = this.#pieces.join("");
    if (json === "" && isWhole) this.growing.append(JSON.stringify(this.input));
    if (!isWhole || parsed(json || "{}") === undefined) this.#note.textContent = " (input incomplete)";
  }

  toJSON() {
    return { type: this.type, name: this.name, input: this.input, json: this.#pieces.join("") };
  }
}

/** Any other block: results of the API's own tools, and what is invented next year. */
class OtherBlock {
  element = make("details", "other");

  constructor(block) {
    this.block = readable(block);
    const { type, content } = this.block;
    const items = [content].flat().filter(isObject);
    const links = items.filter(({ url, source }) => asText(url) || asText(source));
    const code = asText(items.find((item) => item.error_code)?.error_code);
    const results = `${links.length} result${links.length === 1 ? "" : "s"}`;
    const tool = asText(type).replace(/_tool_result$/, "").replaceAll("_", " ");
    const headline = code ? `${tool} failed: ${code}` : links.length ? `${tool}: ${results}` : asText(type);
    this.element.append(make("summary", "", headline), links.length ? this.#list(links) : make("pre", "", this.#text(items)));
  }

  take() {}
  stop() {}
  toJSON() {
    return this.block;
  }

  #list(links) {
    const list = make("ul", "sources");
    for (const { title, content, url, source, page_age: age } of links.slice(0, MAX_RESULTS)) {
      const address = asText(url) || asText(source);
      list.append(sourceItem(asText(title) || asText(content?.title) || address, address, asText(age)));
    }
    return list;
  }

  /** The output of code, or the text of a result, if it is nothing else; else all of it. */
  #text(items) {
    const texts = items.map(({ stdout, stderr, text }) => (stdout || stderr ? [stdout, stderr].filter(Boolean).join("\n") : text));
    const isText = texts.length > 0 && texts.every((text) => typeof text === "string");
    return isText ? texts.join("\n") : JSON.stringify(this.block, null, 2);
  }
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

export function makeBlock(data, surroundings) {
  return new (BLOCKS[data.type] ?? OtherBlock)(data, surroundings);
}

/** All text blocks among these. */
export const textsOf = (blocks) => blocks.filter((block) => block instanceof TextBlock);
