// Runs the parts of the page's JavaScript that need no page, for test_rawsse_js.py: one JSON task per line on stdin,
// one JSON result per line on stdout. Its argument is the folder of the modules. It judges nothing: Python does.
import { getEventListeners } from "node:events";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const folder = pathToFileURL(`${process.argv[2]}/`);
const { EventStreamParser, streamRun, stopRun } = await import(new URL("rawsse.js", folder));
const words = await import(new URL("words.js", folder));

function parse(chunks, options) {
  const frames = [];
  const parser = new EventStreamParser({ ...options, onFrame: (raw) => frames.push(raw) });
  const events = chunks.flatMap((chunk) => parser.feed(chunk));
  return { events, frames, retry: parser.retry, lastEventId: parser.lastEventId };
}

function cut(bytes, size) {
  const starts = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => i * size);
  return starts.map((start) => bytes.subarray(start, start + size));
}

/** The ways to cut one input: whole, small pieces, and, for what is short, every cut into two. */
function* everyCut(bytes, isLarge) {
  const sizes = isLarge ? [65536, 4096, 1000, 1] : [1, 2, 3, 5, 7, 13];
  yield [bytes];
  for (const size of sizes) yield cut(bytes, size);
  if (bytes.length > 200) return;
  for (let at = 1; at < bytes.length; at++) yield [bytes.subarray(0, at), new Uint8Array(), bytes.subarray(at)];
}

/** What a parser makes of a stream, in the form of the conformance cases; each distinct result once. */
function results({ input, isLarge }) {
  const bytes = Buffer.from(input, "base64");
  const seen = new Set();
  for (const chunks of everyCut(bytes, isLarge)) {
    const { events, retry, lastEventId } = parse(chunks, {});
    const named = events.map(({ event, data, id }) => ({ event, data, last_event_id: id }));
    seen.add(JSON.stringify({ events: named, retry_ms: retry, final_last_event_id: lastEventId }));
  }
  return [...seen].map((text) => JSON.parse(text));
}

/** After how many bytes, fed singly, each event came out. */
function dispatchedAt({ input }) {
  const parser = new EventStreamParser();
  return [...Buffer.from(input, "base64")].flatMap((byte, i) => parser.feed(Uint8Array.of(byte)).map(() => i + 1));
}

/** A `fetch` that plays responses: { status, headers, chunks, end }, or null for a server that cannot be reached. */
function player(responses, requests) {
  return async (url, { method, headers = {}, body, signal }) => {
    requests.push({ method, url: String(url), headers, body: body ? JSON.parse(body) : null });
    const response = responses.shift();
    if (!response) throw new TypeError("Failed to fetch");
    const { status = 200, chunks = [], end = "close" } = response;
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

/** Read a run over played responses; tell everything that came out of it. */
async function run({ responses, abortAt = null, abortOnLost = false, abortInLost = false, ...limits }) {
  const told = { events: [], requests: [], frames: [], lost: [], opened: [], runs: [], error: null };
  const abort = new AbortController();
  const options = {
    waits: [1, 2, 3],
    ...limits,
    signal: abort.signal,
    fetch: player(responses, told.requests),
    onFrame: (raw) => told.frames.push(raw),
    onLost: (lost) => {
      told.lost.push(lost);
      if (abortOnLost) setTimeout(() => abort.abort());
      if (abortInLost) abort.abort();
    },
    onOpen: ({ method, status }) => told.opened.push(`${method} ${status}`),
    onRun: ({ id, url }) => told.runs.push({ id, url: String(url) }),
  };
  try {
    for await (const event of streamRun("http://relay.test/api/chat", { messages: [] }, options)) {
      told.events.push(event);
      if (told.events.length === abortAt) abort.abort();
    }
  } catch (error) {
    told.error = { ...error, name: error.name, message: error.message };
    delete told.error.cause;
  }
  told.listeners = getEventListeners(abort.signal, "abort").length;
  return told;
}

async function stop({ responses }) {
  const requests = [];
  try {
    const headers = { authorization: "Bearer t" };
    await stopRun("http://relay.test/runs/r1", { fetch: player(responses, requests), headers });
    return { requests, error: null };
  } catch (error) {
    return { requests, error: error.message };
  }
}

const tasks = {
  parse({ chunks, ...options }) {
    try {
      return parse(chunks.map((chunk) => Buffer.from(chunk, "base64")), options);
    } catch (error) {
      return { error: error.message };
    }
  },
  results,
  dispatchedAt,
  run,
  stop,
  words: ({ name, args }) => words[name](...args),
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
