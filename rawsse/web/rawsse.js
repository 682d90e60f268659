/**
 * A run of the relay, read in a browser: server-sent events over `fetch`, resumed where they broke off.
 *
 * This file knows the event stream format (WHATWG HTML, section 9.2) and how a run is started, resumed and stopped over
 * HTTP. It refuses to know the page: it touches no element and prints nothing. It has no dependency and needs no build
 * step, so it can be copied into any project; it also runs in Node 20.3 and later.
 *
 *     import { streamRun, stopRun } from "./rawsse.js";
 *
 *     const messages = [{ role: "user", content: "Hello" }];
 *     for await (const event of streamRun("/api/chat", { messages }, { signal, onRun: (run) => (current = run) })) {
 *       if (event.delta?.type === "text_delta") output.append(event.delta.text);
 *     }
 *     await stopRun(current.url);               // ends the run on the server; `signal` alone only closes the connection
 *
 * Why not `EventSource`: it can only GET, sends no headers of yours, and reconnects for ever after a normal end.
 * Why the prompt is sent once: a second POST would be a second answer, at a second price, beside the first. What was
 * lost is fetched again by GET, from the run that the one POST began. The run's id is drawn here and sent along, so that
 * a run can be found again, and stopped, even before the first byte of an answer.
 */

/** The largest event that a parser gathers, in UTF-16 units. The longest line seen in a real stream has 181 kB. */
export const MAX_EVENT_CHARS = 16 * 1024 * 1024;

/** The waits before the tries to resume, in ms. Together 7.75 s: within the 10 s that the relay keeps a deserted run. */
export const RESUME_WAITS_MS = [250, 500, 1000, 2000, 4000];

/** The longest wait that the stream's own `retry` field may ask for: a person is waiting. */
export const MAX_RETRY_MS = 30_000;

/** A connection without a single byte for so long is dead: three of the relay's heartbeats, 15 s each, are missing. */
export const SILENCE_MS = 45_000;

// --- The event stream ----------------------------------------------------------------------------------------------

/**
 * Turns the bytes of an event stream into events, in three steps: bytes -> text -> lines -> events.
 *
 *     const parser = new EventStreamParser();
 *     for (const chunk of chunks) {                   // Uint8Arrays, cut anywhere
 *       for (const { event, data, id } of parser.feed(chunk)) console.log(event, data, id);
 *     }
 *
 * `lastEventId` and `retry` (ms, or null) are the stream's state beside the events; both also move without an event.
 * `onFrame(raw)` gets each block of lines, comments too, as it stood in the stream, at the blank line that ends it.
 */
export class EventStreamParser {
  retry = null;
  // "Streams must be decoded using the UTF-8 decode algorithm": it drops one byte order mark and replaces what is
  // ill-formed, also where either is cut over chunks.
  #decoder = new TextDecoder();
  #onFrame;
  #maxEventChars;
  #afterCR = false;
  #raw = "";
  #line = "";
  #event = "";
  #data = [];
  #id;

  constructor({ lastEventId = "", onFrame = () => {}, maxEventChars = MAX_EVENT_CHARS } = {}) {
    this.lastEventId = this.#id = lastEventId;
    this.#onFrame = onFrame;
    this.#maxEventChars = maxEventChars;
  }

  /** Take the next bytes; return the events that they complete, each at the very byte at which the standard allows it. */
  feed(bytes) {
    const events = [];
    for (const line of this.#lines(this.#decoder.decode(bytes, { stream: true }))) {
      if (line !== "") this.#field(line);
      else this.#dispatch(events);
    }
    return events;
  }

  *#lines(text) {
    if (text === "") return;
    // "a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair" is one line end, also over two chunks: a CR ends
    // its line at once, and an LF that follows is skipped when it comes.
    const skip = this.#afterCR && text[0] === "\n" ? 1 : 0;
    this.#raw += text.slice(0, skip);
    this.#afterCR = text.endsWith("\r");
    // Line, end, line, end, …, and what has no end yet. Nothing else ends a line: U+2028 and its like are content.
    const pieces = text.slice(skip).split(/(\r\n|\r|\n)/);
    for (let i = 0; i + 1 < pieces.length; i += 2) {
      const line = this.#line + pieces[i];
      this.#raw += pieces[i] + pieces[i + 1];
      this.#line = "";
      yield line;
    }
    this.#line += pieces.at(-1);
    this.#raw += pieces.at(-1);
    if (this.#raw.length > this.#maxEventChars) {
      throw new RunError("malformed", `an event is larger than maxEventChars (${this.#maxEventChars})`);
    }
  }

  #field(line) {
    // "Collect the characters on the line before the first U+003A COLON character (:), and let field be that string.
    // Collect the characters on the line after [it], and let value be that string. If value starts with a U+0020 SPACE
    // character, remove it from value." A comment has the empty name.
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    // "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value."
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    // "If the field value consists of only ASCII digits": \d is just those in JavaScript.
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }

  #dispatch(events) {
    // "Set the last event ID string of the event source to the value of the last event ID buffer." Also without data.
    this.lastEventId = this.#id;
    this.#onFrame(this.#raw);
    // "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string and
    // return." One empty data line makes the buffer a single LF, so that it is not empty: `#data` has an item.
    if (this.#data.length) events.push({ event: this.#event || "message", data: this.#data.join("\n"), id: this.#id });
    this.#raw = this.#event = "";
    this.#data = [];
  }
}

// --- What can go wrong ---------------------------------------------------------------------------------------------

/**
 * A run that did not come to its end. `message` says how; `reason` is one of
 *   "refused"      the server answered with an HTTP status other than 200: `status`, and what the body says (below)
 *   "failed"       an `error` event came
 *   "unreachable"  no answer came at all. The prompt may have arrived; it is not sent again by itself
 *   "truncated"    the connection was lost, and the rest could not be fetched
 *   "malformed"    the answer is no event stream of the Messages API
 * From the error's body: `type` is the API's error type (`overloaded_error` …), `field` what was refused, `requestId`, and
 * `ending` the kind of ending that the relay saw (`truncated`, `timeout` …). `retryAfter` is in seconds.
 * An aborted run throws its signal's reason instead (an `AbortError`).
 */
export class RunError extends Error {
  name = "RunError";

  constructor(reason, message, details = {}) {
    super(message, { cause: details.cause });
    const { status = null, type = null, field = null, requestId = null, ending = null, retryAfter = null } = details;
    Object.assign(this, { reason, status, type, field, requestId, ending, retryAfter });
  }
}

function parseJSON(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The RunError that an error body {"type": "error", "error": {"type", "message"}} stands for. */
function errorFrom(body, reason, details) {
  const { type, message, field } = body?.error ?? {};
  const said = message || (details.status ? `the server answered ${details.status}` : "the server gave no reason");
  const { request_id: requestId, ending } = body ?? {};
  return new RunError(reason, said, { type, field, requestId, ending: ending?.kind, ...details });
}

/** The RunError for an answer that is no success. Its body is JSON, or an event stream with an `error` event. */
async function refusal(response, onFrame) {
  // A body that breaks off is no reason to forget the status.
  const bytes = new Uint8Array(await response.arrayBuffer().catch(() => []));
  let text = new TextDecoder().decode(bytes);
  if (isEventStream(response)) {
    text = new EventStreamParser({ onFrame }).feed(bytes).find(({ event }) => event === "error")?.data;
  } else if (text) {
    onFrame(text);
  }
  const retryAfter = parseInt(response.headers.get("retry-after"), 10) || null;
  return errorFrom(parseJSON(text), "refused", { status: response.status, retryAfter });
}

function isEventStream(response) {
  return /^text\/event-stream\s*(;|$)/i.test(response.headers.get("content-type") ?? "");
}

// --- One connection ------------------------------------------------------------------------------------------------

/** Aborts `signal` with a TimeoutError when `rest` follows no `start` within `ms`. */
class SilenceClock {
  #controller = new AbortController();
  #timer;

  constructor(ms) {
    this.ms = ms;
    this.signal = this.#controller.signal;
  }

  start() {
    const silent = () => this.#controller.abort(new DOMException(`no byte for ${this.ms} ms`, "TimeoutError"));
    this.#timer = setTimeout(silent, this.ms);
  }

  rest() {
    clearTimeout(this.#timer);
  }
}

async function* readChunks(response, clock) {
  const reader = response.body.getReader();
  try {
    for (;;) {
      clock.start();
      const { done, value } = await reader.read();
      clock.rest();
      if (done) return;
      yield value;
    }
  } finally {
    clock.rest();
    reader.cancel().catch(() => {}); // frees the connection when the caller leaves early; of no effect after the end
  }
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted(); // of an abort before now no event tells
    const abort = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", abort), resolve()), ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}

// --- A run ---------------------------------------------------------------------------------------------------------

/**
 * POST `body` to `url` and yield the Messages API's events, parsed, to the end of the run. Lost connections are resumed.
 *
 * Returns when `[DONE]` has come, or when the server says that nothing is left; whether the answer is whole, its
 * `message_stop` says. Everything else throws: a `RunError`, or the signal's reason. Options, all of them optional:
 *   signal             aborts the connection; the server keeps the run for its grace time (`stopRun` ends it)
 *   headers            sent with each request
 *   onRun({id, url})   the run has this name; `url` is what `stopRun` wants. Before the request, and again if the
 *                      server gave it another name
 *   onOpen({method, url, status})  a response head came
 *   onFrame(raw)       each block of the stream as it stood there, comments too
 *   onLost({tries, wait})          the connection is gone; it is tried again in `wait` ms
 *   runUrl(id)         where a run is found; by default `../runs/{id}` beside `url`
 *   waits, silenceMs, maxRetryMs, maxEventChars, fetch    instead of the limits above, and of the global `fetch`
 */
export async function* streamRun(url, body, options = {}) {
  const run = new Run(url, body, options);
  while (!run.isDone) {
    const clock = new SilenceClock(run.silenceMs);
    let cause = null;
    try {
      yield* run.read(clock);
    } catch (error) {
      run.signal?.throwIfAborted();
      if (error instanceof RunError) throw error;
      cause = error; // the network's, whose words differ from browser to browser
    } finally {
      clock.rest();
    }
    if (run.error) throw run.error;
    if (!run.isDone) await run.waitToResume(cause);
  }
}

/** Stop a run on the server: it cancels its call to the API, so that nothing more is generated or paid for. */
export async function stopRun(url, { headers = {}, fetch = globalThis.fetch } = {}) {
  // `keepalive`: the request outlives the page, if the page is being left.
  const response = await fetch(url, { method: "DELETE", headers, keepalive: true });
  // 404: it is over already, which is what was wanted.
  if (!response.ok && response.status !== 404) throw await refusal(response, () => {});
}

/** What survives a connection: where the run is, how far it was read, how often it was tried in vain. */
class Run {
  isDone = false;
  error = null;
  #id = null;
  #url = null;
  #isPosted = false;
  #isOpened = false;
  #lastEventId = "";
  #retry = 0;
  #tries = 0;

  constructor(url, body, options) {
    this.postUrl = new URL(url, globalThis.location?.href);
    this.body = JSON.stringify(body);
    const nothing = () => {};
    const callbacks = { onRun: nothing, onOpen: nothing, onFrame: nothing, onLost: nothing };
    const runUrl = (id) => new URL(`../runs/${encodeURIComponent(id)}`, this.postUrl);
    const limits = { waits: RESUME_WAITS_MS, silenceMs: SILENCE_MS, maxRetryMs: MAX_RETRY_MS };
    Object.assign(this, { headers: {}, runUrl }, callbacks, limits, options);
    // Called as a method of `this`, the browser's own `fetch` would refuse to work.
    this.fetch = (...args) => (options.fetch ?? globalThis.fetch)(...args);
    this.#name(drawId());
  }

  #name(id) {
    if (id === this.#id) return;
    this.#id = id;
    this.#url = id && this.runUrl(id);
    if (id) this.onRun({ id, url: this.#url });
  }

  /** Yield what one connection brings. Leaves `isDone` or `error` set, or neither if the connection just ended. */
  async *read(clock) {
    const response = await this.#open(clock);
    if (this.isDone) return;
    const parser = new EventStreamParser({ onFrame: this.onFrame, maxEventChars: this.maxEventChars });
    const resumedAt = this.#lastEventId;
    for await (const chunk of readChunks(response, clock)) {
      for (const event of parser.feed(chunk)) {
        if (isOld(event.id, resumedAt)) continue;
        this.#lastEventId = event.id || this.#lastEventId;
        this.#tries = 0;
        if (event.data === "[DONE]") this.isDone = true;
        else if (event.event === "error") this.error = errorFrom(parseJSON(event.data), "failed");
        else yield readData(event);
      }
      this.#retry = parser.retry ?? this.#retry;
      if (this.isDone) return;
    }
  }

  /** The pause before the next GET. Throws where there is nothing to come back to, or no hope left. */
  async waitToResume(cause) {
    const step = this.waits[this.#tries++];
    if (!this.#url) throw this.#lost("the stream ended early, and it has no run id to resume by", cause);
    if (step === undefined) throw this.#lost(`${this.waits.length} tries to resume failed`, cause);
    const wait = Math.max(step, Math.min(this.#retry, this.maxRetryMs));
    this.onLost({ tries: this.#tries, wait });
    await sleep(wait, this.signal);
  }

  #lost(message, cause = null) {
    return new RunError(this.#isOpened ? "truncated" : "unreachable", message, { cause });
  }

  /** POST the prompt, once; from then on GET what is left. */
  async #open(clock) {
    const method = this.#isPosted ? "GET" : "POST";
    const url = this.#isPosted ? this.#url : this.postUrl;
    const signal = this.signal ? AbortSignal.any([this.signal, clock.signal]) : clock.signal;
    const init = { method, headers: this.#headers(), signal, cache: "no-store" };
    if (!this.#isPosted) init.body = this.body;
    this.#isPosted = true;
    clock.start();
    const response = await this.fetch(url, init);
    this.onOpen({ method, url, status: response.status });
    await (method === "GET" ? this.#checkResumed(response) : this.#checkBegun(response));
    this.#isOpened = true;
    clock.rest();
    return response;
  }

  #headers() {
    const headers = { ...this.headers, accept: "text/event-stream" };
    if (!this.#isPosted) return { ...headers, "content-type": "application/json", "x-run-id": this.#id };
    // Browsers send the id as UTF-8 bytes, and `fetch` takes one character for each byte.
    const id = String.fromCharCode(...new TextEncoder().encode(this.#lastEventId));
    return id ? { ...headers, "last-event-id": id } : headers;
  }

  async #checkBegun(response) {
    if (response.status !== 200) throw await refusal(response, this.onFrame);
    checkType(response);
    this.#name(response.headers.get("x-run-id")); // none: a server whose runs cannot be resumed
  }

  async #checkResumed(response) {
    const { status } = response;
    if (status === 200) checkType(response);
    else if (status === 204) this.isDone = true; // nothing is left
    else if (isEventStream(response)) throw await refusal(response, this.onFrame); // it is the run that has failed
    // These may heal, so they count as one more lost connection. The rest is final.
    else if (status === 429 || status >= 500) throw new Error(`the server answered ${status}`);
    else throw this.#lost(`the run cannot be fetched: the server answered ${status}`);
  }
}

/** 128 random bits in hexadecimal: who cannot guess an id cannot read, or stop, another's run. */
function drawId() {
  // Not crypto.randomUUID: over plain HTTP, browsers have it for localhost only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function checkType(response) {
  if (isEventStream(response)) return;
  const type = response.headers.get("content-type") ?? "no content type";
  throw new RunError("malformed", `the server answered with ${type}, not text/event-stream`);
}

/**
 * Whether a frame was read before the connection was resumed. Ids are `<epoch>-<seq>`. The server sends what comes after
 * Last-Event-ID; but where a proxy drops that header it sends everything, and no text may be shown twice.
 */
function isOld(id, resumedAt) {
  const [epoch, seq] = splitId(id);
  const [lastEpoch, lastSeq] = splitId(resumedAt);
  return epoch === lastEpoch && seq <= lastSeq;
}

function splitId(id) {
  const dash = id.lastIndexOf("-");
  return [id.slice(0, dash), dash < 0 ? NaN : Number(id.slice(dash + 1))]; // NaN is never <=, so an unknown form is new
}

function readData({ event, data }) {
  const value = parseJSON(data);
  if (value !== null && typeof value === "object") return value;
  throw new RunError("malformed", `the data of "${event}" is no JSON object`);
}
