// Runs the parts of the page's JavaScript that need no page, for the tests: one JSON task per line on stdin, one JSON result
// per line on stdout. Its argument is the folder of the modules. It judges nothing: Python does.
import { getEventListeners } from "node:events";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

import { results } from "./conformance.mjs";

const folder = pathToFileURL(`${process.argv[2]}/`);
const { ChatStream, EventStreamParser, LIMITS, smooth, streamChat, textOf } = await import(new URL("rawsse.js", folder));
const { Chat } = await import(new URL("chat.js", folder));
const { TAB_LIMITS } = await import(new URL("tabs.js", folder));
const modules = {};
for (const name of ["answer", "wire"]) Object.assign(modules, await import(new URL(`${name}.js`, folder)));

// Errors that nothing handled, as a browser's console would show them.
let unhandled = [];
process.on("unhandledRejection", (error) => unhandled.push(String(error)));

function parse(chunks, options) {
  const frames = [];
  const parser = new EventStreamParser({ ...options, onFrame: (raw) => frames.push(raw) });
  const events = chunks.flatMap((chunk) => parser.feed(chunk));
  return { events, frames, retry: parser.retry, lastEventId: parser.lastEventId };
}

/** After how many bytes, fed singly, each event came out. With `near`, bytes are fed singly around these places alone, and
 * others in pieces. */
function dispatchedAt({ input, near = null }) {
  const parser = new EventStreamParser();
  const bytes = Buffer.from(input, "base64");
  const isSingle = new Uint8Array(bytes.length).fill(near ? 0 : 1);
  for (const at of near ?? []) isSingle.fill(1, Math.max(at - 9, 0), at + 9);
  const ends = [];
  for (let at = 0; at < bytes.length; ) {
    let end = at + 1;
    while (end < bytes.length && end < at + 1000 && !isSingle[end - 1] && !isSingle[end]) end++;
    for (const _ of parser.feed(bytes.subarray(at, end))) ends.push(end);
    at = end;
  }
  return ends;
}

/** An answer that does not come. */
const never = (signal) => new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));

const FORGOTTEN = { type: "error", error: { type: "not_found_error", message: "there is no such run" } };

/** A `fetch` that plays responses: { status, headers, chunks, end }, or null for a server that cannot be reached. A relay that
 * has no response left knows no run; it takes every DELETE, unless `deletes` says with which statuses. */
function player(responses, deletes, requests) {
  return async (url, { method, headers = [], body, signal, keepalive }) => {
    signal?.throwIfAborted();
    const sent = { method, url: String(url), headers: Object.fromEntries(headers), body: body ? JSON.parse(body) : null };
    requests.push(method === "DELETE" ? { ...sent, keepalive } : sent);
    if (method === "DELETE") {
      const status = deletes.length ? deletes.shift() : 204;
      if (status === null) throw new TypeError("Failed to fetch");
      return status === "never" ? never(signal) : new Response(null, { status });
    }
    const missing = { status: 404, chunks: [JSON.stringify(FORGOTTEN)], headers: {} };
    const response = responses.length ? responses.shift() : missing;
    if (!response) throw new TypeError("Failed to fetch");
    const { status = 200, chunks = [], end = "close" } = response;
    if (end === "never") return never(signal);
    const type = status === 200 ? "text/event-stream" : "application/json";
    const defaults = { "content-type": type, ...(method === "POST" && { "x-run-id": "r/1" }) };
    const stream = new ReadableStream({
      start(controller) {
        signal?.addEventListener("abort", () => controller.error(signal.reason));
        for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
        if (end === "close") controller.close();
      },
      pull(controller) {
        if (end === "error") controller.error(new TypeError("network error"));
      },
    });
    return new Response(status === 204 ? null : stream, { status, headers: response.headers ?? defaults });
  };
}

const FACTS = ["name", "message", "type", "headline", "advice", "detail", "text", "status", "retryAfter", "field", "requestId", "ending"];

/** An error as JSON; its cause is left out. */
const plain = (error) => Object.fromEntries(FACTS.map((name) => [name, error[name]]));

/** Call something while the clock goes so many times as fast. */
async function hastened(speed, call) {
  const { setTimeout } = globalThis;
  globalThis.setTimeout = (then, ms, ...rest) => setTimeout(then, ms / speed, ...rest);
  return call().finally(() => (globalThis.setTimeout = setTimeout));
}

/** Read an answer over played responses; tell everything that came out of it. `at` is what to do, and when. */
async function run({ responses, deletes = [], url = "http://relay.test/api/chat", at = {}, callbacks = false, without = [], ...options }) {
  const told = { events: [], requests: [], frames: [], lost: [], opened: [], texts: [], done: [], errors: [], error: null };
  const abort = new AbortController();
  if (at.abort === "before") abort.abort();
  unhandled = [];
  const chat = streamChat(url, options.body === undefined ? { messages: [] } : options.body, {
    waits: [1, 2, 3],
    ...options,
    signal: abort.signal,
    fetch: player(responses, deletes, told.requests),
    onFrame: (raw) => told.frames.push(raw),
    onLost: (lost) => {
      told.lost.push(lost);
      if (at.abort === "in lost") abort.abort();
      if (at.stop === "lost") setTimeout(() => chat.stop());
      if (at.abort === "lost") setTimeout(() => abort.abort());
    },
    onOpen: ({ method, status }) => told.opened.push(`${method} ${status}`),
    onText: (text, whole) => {
      told.texts.push([text, whole]);
      if (at.throw) throw new RangeError("a fault of the caller");
    },
    onDone: (result) => told.done.push(result),
    ...(!at.silent && { onError: (error) => told.errors.push(plain(error)) }),
    ...Object.fromEntries(without.map((name) => [name, undefined])),
  });
  const id = chat.id;
  if (at.stop === "now") chat.stop();
  if (at.stop === "sent") setTimeout(() => chat.stop());
  try {
    if (callbacks) {
      await (at.silent ? new Promise((resolve) => setTimeout(resolve, 30)) : chat.done);
    } else {
      for await (const event of chat) {
        told.events.push(event);
        const { length } = told.events;
        if (length === at.abortAfter) abort.abort();
        if (length === at.stopAfter) chat.stop();
        if (length === at.breakAfter) break;
      }
    }
  } catch (error) {
    told.error = plain(error);
  }
  const stopped = chat.ending && (await chat.stop());
  await new Promise((resolve) => setTimeout(resolve));
  const { text, usage, stopReason, ending } = chat;
  const listeners = getEventListeners(abort.signal, "abort").length;
  return { ...told, drawn: id, id: chat.id, text, usage, stopReason, ending, stopped, listeners, unhandled };
}

/** Ask a conversation questions; `rounds` are lists of those that are sent in one go, or of other things to do; `resumes` of ids,
 * before them: null for what is in `kept`. `stop` after so many texts. */
async function converse({ responses, rounds = [], resumes = [], kept = {}, room = Infinity, stopAfter = null, by = "stop", ...options }) {
  const abort = new AbortController();
  const requests = [];
  const states = [];
  const storage = {
    getItem: (key) => kept[key] ?? null,
    setItem(key, text) {
      if (text.length > room) throw new DOMException("no room", "QuotaExceededError");
      kept[key] = text;
    },
    removeItem: (key) => delete kept[key],
  };
  const chat = new Chat({ url: "http://relay.test/api/chat/stream", waits: [1], fetch: player(responses, [], requests), signal: abort.signal, storage, ...options });
  chat.subscribe(() => {
    const { output, isStreaming, error } = chat.getState();
    states.push({ ...chat.getState(), error: error && plain(error), kept: { ...kept } });
    if (stopAfter !== null && output === stopAfter && isStreaming) by === "signal" ? abort.abort() : chat[by]();
  });
  await Promise.all(resumes.map((id) => chat.resume(id ?? undefined)));
  for (const questions of rounds) {
    await Promise.all(questions.map((question) => (question.do ? chat[question.do]() : chat.send(question))));
  }
  if (options.paintMs) await new Promise((resolve) => setTimeout(resolve, options.paintMs + 20)); // what comes late
  return { requests, states, ...states.at(-1) };
}

/** Pieces pushed in one go, and then one by one; what was painted. There are no frames here, as in a hidden tab. */
async function painted({ bursts }) {
  const paints = [];
  const { push, flush } = smooth((text) => paints.push(text));
  for (const burst of bursts) {
    for (const piece of burst) push(piece);
    await new Promise((resolve) => setTimeout(resolve, 130));
  }
  push("last");
  flush();
  flush();
  return paints;
}

const tasks = {
  parse({ chunks, ...options }) {
    try {
      return parse(chunks.map((chunk) => Buffer.from(chunk, "base64")), options);
    } catch (error) {
      return { error: error.message };
    }
  },
  results: ({ input, isSample }) => results(EventStreamParser, Buffer.from(input, "base64"), isSample),
  dispatchedAt,
  run: ({ speed = 1, ...options }) => hastened(speed, () => run(options)),
  converse,
  painted,
  textOf: ({ event }) => textOf(event),
  limits: () => ({ ...LIMITS, ...TAB_LIMITS }),
  twice() {
    const chat = new ChatStream("http://relay.test/", {}, { fetch: player([], [], []) });
    chat[Symbol.asyncIterator]();
    try {
      chat[Symbol.asyncIterator]();
    } catch (error) {
      return error.message;
    }
  },
  call: ({ name, args }) => modules[name](...args),
  links({ frames }) {
    const numbered = ([frame, from, to]) => [frames.indexOf(frame), from, to];
    const links = [...modules.linksOf(frames)];
    return links.map(([index, { source, pieces }]) => [index, { source, pieces: pieces.map(numbered) }]);
  },
  timeline({ frames, end }) {
    const times = modules.timesOf(frames, end);
    return { ...times, words: modules.inWords(times) };
  },
};

/** Fails what hangs, so that a test that would wait for ever says so. */
async function inTime(work) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, 10_000, { late: "the task took more than 10 s" });
  });
  const result = await Promise.race([work, late]);
  clearTimeout(timer);
  return result;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { task, ...rest } = JSON.parse(line);
  console.log(JSON.stringify(await inTime(tasks[task](rest))));
}
