/**
 * Raw frames: the parts of one for colouring, its oddities in words, the text that each made, and all of them as a recording.
 * Pure.
 */

import { EventStreamParser } from "./rawsse.js";
import { parsed } from "./words.js";

/** Longer lines are not coloured: a page of them would have a hundred thousand elements. */
const MAX_COLOURED = 20_000;

const JSON_TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|true|false|null/g;

/** A frame's event and data; "" and null where it has none. */
const read = (raw) => new EventStreamParser().feed(new TextEncoder().encode(`${raw}\n\n`))[0] ?? { event: "", data: null };

/** How many blanks stand before the last bracket. */
function padOf(data) {
  const whole = data.trimEnd();
  return /[}\]]$/.test(whole) ? whole.length - 1 - whole.slice(0, -1).trimEnd().length : 0;
}

const valueOf = (raw) => Object(parsed(read(raw).data));

/** For the timeline: "piece" of content, "ping", or "frame". */
export function kindOf(raw) {
  const { event, data } = read(raw.slice(0, 200));
  return event === "content_block_delta" || (event === "message" && data.startsWith('{"text"')) ? "piece" : event === "ping" ? "ping" : "frame";
}

/** The frame in parts [kind, text], which add up to it. `isIndented` is for the eye: then they add up to more. */
export function partsOf(raw, isIndented = false) {
  return raw.split(/(?<=\n)/).flatMap((line) => {
    const [, name, space, value] = /^(\w+:)( ?)(.*\n?)$/s.exec(line) ?? [];
    if (name === undefined) return [["comment", line]];
    const kind = name.slice(0, -1);
    return [["field", name + space], ...(kind === "data" ? json(value, isIndented) : [[kind, value]])];
  });
}

function json(text, isIndented) {
  const value = isIndented ? parsed(text) : undefined;
  if (value !== undefined) text = `${JSON.stringify(value, null, 2)}\n`;
  if (text.length > MAX_COLOURED) return [["", text]];
  const pad = padOf(text);
  const tail = text.trimEnd().length - 1;
  const parts = [];
  let end = 0;
  for (const { 0: all, 1: string, 2: colon, index } of text.slice(0, tail - pad).matchAll(JSON_TOKEN)) {
    parts.push(["", text.slice(end, index)], [colon ? "key" : string ? "string" : "word", all]);
    end = index + all.length;
  }
  parts.push(["", text.slice(end, tail - pad)], ["pad", text.slice(tail - pad, tail)], ["", text.slice(tail)]);
  return parts.filter(([, part]) => part);
}

/** An explanation for a reader who wonders about the frame; "" where nothing is odd. */
export function oddity(raw) {
  const { event, data } = read(raw);
  const pad = padOf(data ?? "");
  if (data === "[DONE]") return "The relay's end mark. The API's own last event is message_stop.";
  if (data === null && raw.startsWith(":")) return "A comment, and not an event: the relay sends it so that a quiet connection is not closed.";
  if (data === null) return raw.startsWith("retry") ? "The wait that the server asks for before the next connection, in ms." : "No data: no event.";
  if (event === "ping") return "The API is at work, and has nothing to say yet.";
  if (event === "error") return "The stream ends here. The status of the response was sent long before.";
  const blanks = pad === 1 ? "1 blank" : `${pad} blanks`;
  return pad ? `${blanks} before the last bracket: the API pads its data, so that their length does not tell what they are.` : "";
}

/** Of each content block the text, and which frame made which piece of it, as [number, from, to]. Frames are [ms, kind, raw]. */
export function linksOf(frames) {
  const blocks = new Map();
  frames.forEach(([, , raw], number) => {
    const { index = 0, delta, content_block: begun } = valueOf(raw);
    const { text, thinking, partial_json } = delta ?? begun ?? {};
    const piece = text ?? thinking ?? partial_json;
    if (!piece || typeof piece !== "string") return;
    const block = blocks.get(index) ?? blocks.set(index, { source: "", pieces: [] }).get(index);
    block.pieces.push([number, block.source.length, (block.source += piece).length]);
  });
  return blocks;
}

/**
 * An exchange as a recording, which `rawsse explain` and `rawsse replay` take; null if its frames are not the API's events, as
 * those of the text dialect.
 *
 * The relay's additions are left out: ids, comments, the end mark, and its words on how the API's stream ended. `frames` are
 * [ms since the request, kind, raw]; `ending` is "complete", "stopped" or "failed", or nothing yet; `ms` is the time of it.
 */
export function recordingOf({ frames, status = 200, ending, ms }) {
  const seconds = (time) => Math.round(time) / 1000;
  const kept = [];
  let end = ending === "complete" ? "clean" : ending === "failed" ? "cut" : "client_closed";
  for (const [time, , raw] of frames) {
    const { type, ending: seen, ...rest } = valueOf(raw);
    if (typeof type !== "string") continue;
    const isRelays = type === "error" && seen !== undefined && seen.kind !== "error";
    if (type === "error") end = seen?.kind === "cancelled" ? "client_closed" : isRelays ? "cut" : "clean";
    const data = status >= 400 ? JSON.stringify({ type, ...rest }) : raw.replace(/(^|\n)((id|retry):[^\n]*\n)+/g, "$1");
    if (!isRelays || status >= 400) kept.push({ t: seconds(time), data });
  }
  if (!kept.length) return null;
  const headers = { "content-type": status >= 400 ? "application/json" : "text/event-stream; charset=utf-8" };
  const lines = [{ rawsse: 1, request: null, status, headers }, ...kept, { end, t: Math.max(seconds(ms), kept.at(-1).t) }];
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}
