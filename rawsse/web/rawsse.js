/**
 * Claude's answers in a browser: server-sent events over `fetch`, resumed where the connection broke off.
 *
 *     import { streamChat, textOf } from "./rawsse.js";
 *
 *     const chat = streamChat("/api/chat/stream", { message: "Hello" }, { onText: (text) => output.append(text) });
 *     stopButton.onclick = () => chat.stop();                     // ends the generation on the server too
 *     const { text, usage } = await chat.done;
 *
 *     for await (const event of streamChat("/api/chat", { message: "Hello" })) output.append(textOf(event));
 *
 * The server may be rawsse's relay or any other that streams `data: {"text": …}` or the Messages API's events; resuming
 * and stopping on the server need the relay. No dependency, no build step; it also runs in Node 20 and later.
 *
 * Why not `EventSource`: it can only GET, sends no headers of yours, and reconnects for ever after a normal end.
 * Why the prompt is sent once: a second POST would be a second answer, at a second price. The run's id is drawn here and
 * sent along, so the run can be found and stopped even before its first byte. Lost events are fetched by GET. The POST is
 * sent again, with the same id, only if the relay says that it does not know the run.
 */

/** Bounds, each of which is also an option. Times are in ms. */
export const LIMITS = Object.freeze({
  /** The waits before a connection is tried again; the last one repeats. Each varies by a quarter, so that the clients of a
   * server that was restarted do not come back all at once. */
  waits: [250, 500, 1000, 2000, 4000, 8000],
  /** The longest wait that the server may ask for, by `retry:` or `Retry-After`: a person is waiting. */
  maxWaitMs: 30_000,
  /** A relay that sends no byte for so long is not there: three heartbeats, 15 s each, are missing. */
  silenceMs: 45_000,
  /** When a tab wakes up, a connection that was silent for longer than a heartbeat is not waited for. */
  staleMs: 20_000,
  /** The longest wait for the head of an answer. Servers other than the relay send it with the first word. */
  headMs: 120_000,
  /** The longest wait for the head where a run is resumed or stopped. A relay sends it at once, and ends a run that was without
   * a reader for 10 s (`--resume-grace`). */
  resumeMs: 5_000,
  /** The longest wait for a frame to paint in. */
  paintMs: 100,
  /** The largest event that is gathered, in UTF-16 units. The longest line seen in a real stream has 181 kB. */
  maxEventChars: 16 * 1024 * 1024,
});

/**
 * @typedef {Record<string, any>} Json
 * @typedef {{ event: string, data: string, id: string }} ServerSentEvent
 * @typedef {{ text: string, usage: Json | null, stopReason: string | null, ending: "complete" | "stopped" | "failed" }} Result
 *   The text dialect has usage and stop reason only where the body asks for them, with `usage: true`.
 * @typedef {{ status?: number | null, text?: string, retryAfter?: number | null, field?: string | null,
 *   requestId?: string | null, ending?: string | null, cause?: unknown }} ErrorFacts
 *
 * @typedef {Callbacks & Partial<typeof LIMITS>} Options
 *
 * @typedef {object} Callbacks  and what else may be given
 * @property {(text: string, whole: string) => void} [onText]  a piece of the answer, and the answer so far
 * @property {(event: Json) => void} [onEvent]  each event: `{ text }`, or an event of the Messages API
 * @property {(result: Result) => void} [onDone]  the answer is complete, or was stopped
 * @property {(error: ChatError) => void} [onError]
 * @property {(lost: { tries: number, wait: number }) => void} [onLost]  the next try comes in `wait` ms
 * @property {(opened: { method: string, url: URL, status: number }) => void} [onOpen]  a response's head came
 * @property {(raw: string) => void} [onFrame]  each block of the stream as it was sent, comments too
 * @property {boolean} [smooth]  call `onText` at most once per frame
 * @property {AbortSignal} [signal]  aborting stops the run, and throws the signal's reason
 * @property {string | (() => string | Promise<string>)} [token]  sent as `Authorization: Bearer …`
 * @property {Record<string, string>} [headers]  sent with each request, but for `x-run-id`: `id` names the run
 * @property {boolean} [resume]  false: for a server of another origin that does not allow the header `x-run-id`
 * @property {string} [id]  the run's id, 16 to 64 of A-Z a-z 0-9 _ -. With the body `null`, that run is read from its start
 * @property {(id: string) => string | URL} [runUrl]  where a run is found; by default `/runs/{id}` of the same relay
 * @property {typeof globalThis.fetch} [fetch]
 */

// --- The event stream ----------------------------------------------------------------------------------------------

/**
 * Turns the bytes of an event stream into events (WHATWG HTML, 9.2): bytes -> text -> lines -> events.
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
  /** @type {number | null} */
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
  /** @type {string[]} */
  #data = [];
  #id;

  /** @param {{ lastEventId?: string, onFrame?: (raw: string) => void, maxEventChars?: number }} [options] */
  constructor({ lastEventId = "", onFrame = () => {}, maxEventChars = LIMITS.maxEventChars } = {}) {
    this.lastEventId = this.#id = lastEventId;
    this.#onFrame = onFrame;
    this.#maxEventChars = maxEventChars;
  }

  /**
   * Take the next bytes; return the events that they complete, each at the very byte at which the standard allows it.
   * @param {Uint8Array} bytes
   */
  feed(bytes) {
    /** @type {ServerSentEvent[]} */
    const events = [];
    for (const line of this.#lines(this.#decoder.decode(bytes, { stream: true }))) {
      if (line) this.#field(line);
      else this.#dispatch(events);
    }
    return events;
  }

  /** @param {string} text */
  *#lines(text) {
    if (text === "") return;
    // "a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair" is one line end, also over two chunks: a CR ends
    // its line at once, and an LF that follows is skipped when it comes.
    const skip = this.#afterCR && text[0] === "\n" ? 1 : 0;
    this.#raw += text.slice(0, skip);
    this.#afterCR = text.endsWith("\r");
    // Line, end, line, end, …, and what has no end yet. Nothing else ends a line: U+2028 and its like are content.
    const pieces = text.slice(skip).split(/(\r\n|\r|\n)/);
    const rest = pieces.pop() ?? "";
    for (let i = 0; i < pieces.length; i += 2) {
      const line = this.#line + pieces[i];
      this.#raw += pieces[i] + pieces[i + 1];
      this.#line = "";
      yield line;
    }
    this.#line += rest;
    this.#raw += rest;
    if (this.#raw.length > this.#maxEventChars) {
      throw new ChatError("malformed", `an event is larger than maxEventChars (${this.#maxEventChars})`);
    }
  }

  /** @param {string} line */
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

  /** @param {ServerSentEvent[]} events */
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

/**
 * The text that an event adds to the answer, in either dialect; "" for all other events.
 * @param {Json} event
 * @returns {string}
 */
export function textOf(event) {
  const { type, delta, content_block: block } = event;
  const holder = type === undefined ? event : delta?.type === "text_delta" ? delta : block?.type === "text" ? block : {};
  return typeof holder.text === "string" ? holder.text : "";
}

// --- Errors --------------------------------------------------------------------------------------------------------

const AGAIN = "Try again.";
const LATER = "Wait a moment, then try again.";

/** @type {[type: string, headline: string, advice: string, status?: number][]}  a status means its type if none is named */
const KINDS = [
  // The Messages API's:
  ["invalid_request_error", "The request was not accepted.", "Change the question, or begin a new conversation.", 400],
  ["authentication_error", "A valid login, key or token is needed.", "Log in, or check the token.", 401],
  ["billing_error", "The account cannot pay for this request.", "Check its billing.", 402],
  ["permission_error", "This is not allowed.", "", 403],
  ["not_found_error", "There is no such model or address.", "Check its name.", 404],
  ["conflict_error", "Another request has the same id.", AGAIN, 409],
  ["request_too_large", "The conversation is too long.", "Shorten it, or begin a new one.", 413],
  ["rate_limit_error", "A limit was reached.", LATER, 429],
  ["timeout_error", "The API took too long.", AGAIN, 504],
  ["overloaded_error", "The API is overloaded.", LATER, 529],
  ["api_error", "The API or the server failed.", AGAIN],
  // The relay's:
  ["cancelled", "The answer was stopped on the server.", AGAIN],
  ["shutdown", "The server is being restarted.", LATER],
  // This file's:
  ["unreachable", "The server could not be reached.", "Check the connection, then try again."],
  ["truncated", "The connection was lost before the answer was complete.", AGAIN],
  ["forgotten", "The server no longer has this answer: it was restarted, or waited too long.", AGAIN],
  ["malformed", "The server sent something that is not an answer.", "Check the address."],
];

/**
 * An answer that did not come to its end. `type` is an error type of the Messages API (`overloaded_error` …), one of the
 * relay's (`cancelled`, `shutdown`), or
 *   "unreachable"  no answer came at all
 *   "truncated"    the connection was lost, and the server keeps no runs to resume
 *   "forgotten"    the connection was lost, and the relay no longer has the run
 *   "malformed"    what came is not an event stream of a known dialect
 * `headline` says in words what happened, `advice` what to do (or ""), `detail` what the server said; `message` has the first
 * and the last. `text` is the answer so far. `status` is the HTTP status, `retryAfter` is in seconds, `field` names what was
 * refused, `ending` is how the relay saw the API's stream end; these and `detail` may be null.
 */
export class ChatError extends Error {
  name = "ChatError";

  /** @param {string} type @param {string | null} [detail] @param {ErrorFacts} [facts] */
  constructor(type, detail = null, facts = {}) {
    const [, headline, advice] = KINDS.find(([name]) => name === type) ?? ["", "The answer failed.", AGAIN];
    const more = detail ? ` The server said: ${detail}` : facts.status ? ` (status ${facts.status})` : "";
    super(headline + more, { cause: facts.cause });
    this.type = type;
    this.headline = headline;
    const wait = facts.retryAfter ?? 0;
    const [unit, size] = wait < 100 ? ["seconds", 1] : wait < 6000 ? ["minutes", 60] : ["hours", 3600];
    this.advice = wait > 1 ? `Try again in ${Math.ceil(wait / size)} ${unit}.` : advice;
    this.detail = detail;
    this.text = facts.text ?? "";
    this.status = facts.status ?? null;
    this.retryAfter = facts.retryAfter ?? null;
    this.field = facts.field ?? null;
    this.requestId = facts.requestId ?? null;
    this.ending = facts.ending ?? null;
  }
}

/** A connection that was lost, or never made: it is tried again. `error` is what to throw when no try is left. */
class Lost {
  /** @param {unknown} cause @param {ChatError | null} [error] */
  constructor(cause, error = null) {
    this.cause = cause;
    this.error = error;
  }
}

/** @type {(cause: unknown) => never} */
const lose = (cause) => {
  throw new Lost(cause);
};

/** The object or list that is in a JSON text; null if there is none. @param {string} text */
function parseJSON(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null; // null is one, too
  } catch {
    return null;
  }
}

/**
 * The error of a body {"type": "error", "error": {"type", "message"}} or {"error": "…"}; or of a status alone. The AI SDK's
 * stream has {"type": "error", "errorText": "…"}.
 * @param {Json | null} body @param {ErrorFacts} facts
 */
function errorFrom(body, facts) {
  const error = typeof body?.error === "string" ? { ...body, message: body.error } : (body?.error ?? { message: body?.errorText });
  const status = facts.status ?? 500;
  const [type] = KINDS.find((kind) => kind[3] === status) ?? [status < 500 ? "invalid_request_error" : "api_error"];
  const { kind, phase } = body?.ending ?? {};
  // Before its head came, there was no stream that could end.
  const ending = /connect|send|head/.test(phase) ? null : kind;
  return new ChatError(error.type ?? type, error.message, { field: error.field, requestId: body?.request_id, ending, ...facts });
}

/** @param {Response} response */
function isEventStream(response) {
  return /^text\/event-stream\s*(;|$)/i.test(response.headers.get("content-type") ?? "");
}

// --- Painting ------------------------------------------------------------------------------------------------------

/**
 * Gather pieces of text, and hand them on at most once per frame; `flush` hands on what waits, at once.
 *
 * A hidden tab has no frames, and a frame that was asked for may never come: a timer runs beside it.
 * @param {(text: string) => void} paint @param {number} [paintMs]
 */
export function smooth(paint, paintMs = LIMITS.paintMs) {
  let [waiting, frame] = ["", 0];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  function flush() {
    clearTimeout(timer);
    globalThis.cancelAnimationFrame?.(frame);
    timer = undefined;
    const text = waiting;
    waiting = "";
    if (text) paint(text);
  }
  /** @param {string} text */
  function push(text) {
    waiting += text;
    if (timer !== undefined) return;
    timer = setTimeout(flush, paintMs);
    frame = globalThis.requestAnimationFrame?.(flush) ?? 0;
  }
  return { push, flush };
}

// --- An answer -----------------------------------------------------------------------------------------------------

/**
 * POST `body` to `url` and read the answer to its end. Lost connections are resumed.
 *
 * With a callback among the options the answer is read at once; else it is read as far as the caller iterates, or awaits
 * `done`. Leaving the loop early stops the run.
 * @param {string | URL} url
 * @param {unknown} body  what is sent as JSON; null to read the run that `options.id` names
 * @param {Options} [options]
 */
export function streamChat(url, body, options = {}) {
  return new ChatStream(url, body, options);
}

const nothing = () => {};

/** One answer: `text`, `usage` and `stopReason` so far, `id` of its run, `done`, `stop()`; async iterable. */
export class ChatStream {
  text = "";
  /** @type {Json | null} */
  usage = null;
  /** @type {string | null} */
  stopReason = null;
  /** @type {"complete" | "stopped" | "failed" | null} */
  ending = null;
  #options;
  #url;
  #body;
  #paint;
  #done;
  /** Of the run: "new", nothing was sent; "sent", a prompt that may have arrived; "begun", it is there. */
  #phase = "new";
  /** The server keeps the run, so that it can be resumed and stopped. */
  #isKept;
  #isMessage = false; // `message_start` came: the dialect marks the end of a message, too
  #isWhole = false; // the end of the message came
  #isClaimed = false; // the answer is being read
  #isWatched = false; // `done` was asked for
  #isReading = false;
  #isNudged = false;
  #lastEventId = "";
  #retry = 0;
  #tries = 0;
  #heardAt = 0;
  #link = new AbortController();
  #wake = nothing;
  /** @type {Promise<boolean> | null} */
  #stopping = null;
  /** @type {(error: unknown) => void} */
  #settle = nothing;

  /** @param {string | URL} url @param {unknown} body @param {Options} options */
  constructor(url, body, options) {
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = { ...LIMITS, .../** @type {Options} */ (Object.fromEntries(given)) };
    this.#url = new URL(url, globalThis.location?.href);
    this.#body = JSON.stringify(body);
    this.id = options.id ?? drawId();
    this.#isKept = options.resume !== false;
    if (body === null) this.#phase = "begun";
    const tell = (/** @type {string} */ text) => this.#options.onText?.(text, this.text);
    this.#paint = options.smooth ? smooth(tell, this.#options.paintMs) : { push: tell, flush: nothing };
    /** @type {Promise<Result>} */
    this.#done = new Promise((resolve, reject) => {
      this.#settle = (error) => (error ? reject(error) : resolve(this.#result));
    });
    this.#done.catch(nothing);
    const { onText, onEvent, onDone, onError } = options;
    if (onText || onEvent || onDone || onError) queueMicrotask(() => this.#drain());
  }

  /** The whole answer, when it has ended. Rejects with a `ChatError`, or with the reason of the aborted signal. */
  get done() {
    this.#isWatched = true;
    queueMicrotask(() => this.#drain());
    return this.#done;
  }

  [Symbol.asyncIterator]() {
    if (this.#isClaimed) throw new TypeError("the answer is being read already: iterate at once, and only once");
    this.#isClaimed = true;
    return this.#iterate();
  }

  /**
   * Stop the answer: here at once, and on the server, which then generates nothing more. Does nothing after the end.
   * Resolves, and never rejects: false if the server could not be reached. A relay ends a run without readers by itself.
   * @returns {Promise<boolean>}
   */
  stop() {
    return (this.#stopping ??= this.#stop());
  }

  /** @returns {Result} */
  get #result() {
    return { text: this.text, usage: this.usage, stopReason: this.stopReason, ending: this.ending ?? "stopped" };
  }

  async #drain() {
    if (this.#isClaimed) return;
    try {
      for await (const _ of this);
    } catch (error) {
      // Nothing is swallowed: what neither `onError` nor `done` tells becomes an unhandled rejection.
      const isTold = (error instanceof ChatError && this.#options.onError) || this.#options.signal?.aborted;
      if (!isTold && !this.#isWatched) throw error;
    }
  }

  /** @returns {AsyncGenerator<Json, void, void>} */
  async *#iterate() {
    const { signal, onDone, onError } = this.#options;
    const abort = () => void this.stop();
    const forget = this.#listen();
    let error = null;
    try {
      signal?.addEventListener("abort", abort);
      if (signal?.aborted) abort();
      while (!this.ending) yield* this.#connect();
      if (this.ending === "stopped") signal?.throwIfAborted();
    } catch (caught) {
      error = caught;
      if (error instanceof ChatError) this.ending = "failed";
      throw error;
    } finally {
      forget();
      signal?.removeEventListener("abort", abort);
      // The caller has left the loop, or a callback has failed: the answer is not wanted any more.
      if (!this.ending) abort();
      this.#link.abort();
      this.#paint.flush();
      this.#settle(error);
      if (error instanceof ChatError) onError?.(error);
      else if (!error || signal?.aborted) onDone?.(this.#result);
    }
  }

  /** One connection, and the wait after it, if it is lost. @returns {AsyncGenerator<Json, void, void>} */
  async *#connect() {
    try {
      const response = await (this.#phase === "new" ? this.#post() : this.#get());
      if (response?.body) yield* this.#read(response.body);
    } catch (lost) {
      if (this.ending && (lost instanceof Lost || lost instanceof ChatError)) return; // it was stopped meanwhile
      if (!(lost instanceof Lost)) throw lost;
      await this.#pause(lost);
    }
  }

  /** @param {ReadableStream<Uint8Array>} body @returns {AsyncGenerator<Json, void, void>} */
  async *#read(body) {
    const parser = new EventStreamParser(this.#options);
    const resumedAt = this.#lastEventId;
    for await (const chunk of this.#chunks(body)) {
      for (const event of parser.feed(chunk)) {
        if (this.ending) return;
        if (isOld(event.id, resumedAt)) continue;
        this.#lastEventId = event.id || this.#lastEventId;
        this.#tries = 0;
        const value = this.#take(event);
        if (value) yield value;
      }
      if (this.ending) return;
      this.#retry = parser.retry ?? this.#retry;
    }
    throw new Lost(null);
  }

  /** @param {ReadableStream<Uint8Array>} body */
  async *#chunks(body) {
    const reader = body.getReader();
    this.#isReading = true;
    try {
      for (;;) {
        const clock = this.#isKept ? this.#limit(this.#options.silenceMs) : undefined;
        const { done, value } = await reader.read().catch(lose).finally(() => clearTimeout(clock));
        if (done) return;
        this.#heardAt = Date.now();
        yield value;
      }
    } finally {
      this.#isReading = false;
      reader.cancel().catch(nothing); // frees the connection when the caller leaves early; of no effect after the end
    }
  }

  /** Take in an event; return its value, null for `[DONE]`. Throws the error that it tells of. @param {ServerSentEvent} event */
  #take({ event, data }) {
    const facts = { text: this.text };
    if (data === "[DONE]") {
      // Many servers say so after an answer, too, that broke off behind them.
      if (this.#isMessage && !this.#isWhole) throw new ChatError("truncated", null, facts);
      this.ending = "complete";
      return null;
    }
    const value = parseJSON(data);
    if (!value) throw new ChatError("malformed", `the data of "${event}" is not a JSON object`, facts);
    if (event === "error" || value.type === "error" || value.error) {
      const error = errorFrom(value, facts);
      if (error.detail !== "stopped") throw error; // the relay's word for a DELETE, such as another tab's
      this.ending = "stopped";
      return null;
    }
    // Counts are totals so far: they replace, and null says nothing.
    const counts = Object.entries(value.usage ?? value.message?.usage ?? {}).filter(([, count]) => count !== null);
    if (counts.length) this.usage = { ...this.usage, ...Object.fromEntries(counts) };
    this.stopReason = value.delta?.stop_reason ?? value.stop_reason ?? this.stopReason;
    this.#isMessage ||= value.type === "message_start";
    this.#isWhole ||= value.type === "message_stop" || this.stopReason !== null;
    const text = textOf(value);
    this.text += text;
    if (text) this.#paint.push(text);
    this.#options.onEvent?.(value);
    return value;
  }

  // Connections ---------------------------------------------------------------------------------------------------------

  get #runUrl() {
    if (this.#options.runUrl) return new URL(this.#options.runUrl(this.id), this.#url);
    // Beside the relay's own routes, wherever it is mounted.
    const base = this.#url.pathname.replace(/(\/api)?(\/chat)?(\/stream)?$/, "");
    return new URL(`${base}/runs/${encodeURIComponent(this.id)}`, this.#url);
  }

  /** Begin the run. */
  async #post() {
    const more = { "content-type": "application/json", ...(this.#isKept && { "x-run-id": this.id }) };
    const response = await this.#fetch("POST", this.#url, more, this.#body);
    // A gateway says so where the relay restarts, and the relay where it is full: it may be back in a moment.
    if ([502, 503, 504].includes(response.status) && !isEventStream(response)) throw new Lost(null, await this.#refusal(response));
    if (!response.ok) throw await this.#refusal(response);
    const id = response.headers.get("x-run-id");
    this.#isKept &&= id !== null;
    this.id = id ?? this.id;
    if (response.status !== 202 || !this.#isKept) return this.#checkType(response);
    this.#phase = "begun"; // it is read where it is kept: the request said `Prefer: respond-async`
    return null;
  }

  /** Go on with the run. Null: nothing is left of it, or it has not begun. */
  async #get() {
    // Browsers send the id as UTF-8 bytes, and `fetch` takes one character for each byte.
    const id = String.fromCharCode(...new TextEncoder().encode(this.#lastEventId));
    const response = await this.#fetch("GET", this.#runUrl, id ? { "last-event-id": id } : {});
    const { status } = response;
    if (status === 204) {
      this.ending = "complete";
      return null;
    }
    if (response.ok && isEventStream(response)) return this.#checkType(response);
    const error = await this.#refusal(response);
    if (isEventStream(response)) throw error; // the run itself has failed
    if (response.ok) throw new Lost(null); // the login page of a network, such as a hotel's
    if (status === 408 || status === 429 || status >= 500) throw new Lost(null, error);
    if (status === 401 || status === 403) throw error;
    if (this.#phase === "begun") throw new ChatError("forgotten", null, { status, text: this.text });
    // Another server has no runs, and may be at work for the prompt already.
    const said = /** @type {Json} */ (error.cause);
    if (status !== 404 || said?.error?.type !== "not_found_error") throw new ChatError("unreachable");
    this.#phase = "new"; // the relay has never seen the prompt
    return null;
  }

  /** @param {string} method @param {URL} url @param {Record<string, string>} more  header fields @param {string} [body] */
  async #fetch(method, url, more, body) {
    const { headers, token, onOpen, fetch = globalThis.fetch, headMs, resumeMs } = this.#options;
    const bearer = typeof token === "function" ? await token() : token;
    const { "x-run-id": _, ...mine } = Object.fromEntries(new Headers(headers)); // in lower case; `id` names the run
    const fields = new Headers({ ...mine, ...more, accept: "text/event-stream" });
    if (bearer) fields.set("authorization", `Bearer ${bearer}`);
    // `keepalive`: the page may be being left.
    if (method === "DELETE") return fetch(url, { method, headers: fields, keepalive: true, signal: AbortSignal.timeout(resumeMs) });
    if (this.ending) throw new Lost(null);
    if (method === "POST") this.#phase = "sent";
    this.#link = new AbortController();
    const clock = this.#limit(method === "POST" ? headMs : resumeMs);
    const sent = fetch(url, { method, headers: fields, body, cache: "no-store", signal: this.#link.signal });
    const response = await sent.catch(lose).finally(() => clearTimeout(clock));
    onOpen?.({ method, url, status: response.status });
    return response;
  }

  /** @param {number} ms */
  #limit(ms) {
    const link = this.#link;
    return setTimeout(() => link.abort(new DOMException(`no byte for ${ms} ms`, "TimeoutError")), ms);
  }

  /** @param {Response} response */
  #checkType(response) {
    this.#phase = "begun";
    if (isEventStream(response)) return response;
    const detail = `content type ${response.headers.get("content-type")}, not text/event-stream`;
    throw new ChatError("malformed", detail, { status: response.status, text: this.text });
  }

  /** The error of a response without success. Its body is JSON, or an event stream. @param {Response} response */
  async #refusal(response) {
    // The status says enough where the body breaks off.
    const bytes = new Uint8Array(await response.arrayBuffer().catch(() => []));
    let text = new TextDecoder().decode(bytes);
    if (isEventStream(response)) text = new EventStreamParser(this.#options).feed(bytes)[0]?.data ?? "";
    else if (text) this.#options.onFrame?.(text);
    const retryAfter = parseInt(response.headers.get("retry-after") ?? "", 10) || null;
    const cause = parseJSON(text);
    return errorFrom(cause, { status: response.status, retryAfter, text: this.text, cause });
  }

  /** The wait before the next try. Throws where there is nothing to come back to. @param {Lost} lost */
  async #pause({ cause, error }) {
    const { waits, maxWaitMs, onLost } = this.#options;
    const isBegun = this.#phase === "begun";
    if (this.#isWhole) {
      this.ending = "complete";
      return;
    }
    const asked = Math.max(this.#retry, (error?.retryAfter ?? 0) * 1000);
    if (!this.#isKept || (!isBegun && (this.#tries >= waits.length || asked > maxWaitMs))) {
      throw error ?? new ChatError(isBegun ? "truncated" : "unreachable", null, { text: this.text, cause });
    }
    const step = (waits[Math.min(this.#tries, waits.length - 1)] ?? 0) * (0.75 + Math.random() / 2);
    const wait = this.#isNudged ? 0 : Math.max(step, Math.min(asked, maxWaitMs));
    this.#isNudged = false;
    onLost?.({ tries: ++this.#tries, wait });
    if (!this.ending) await this.#sleep(wait);
  }

  /** @param {number} ms */
  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => (clearTimeout(timer), resolve(undefined));
    });
  }

  /** The browser is online again, or the tab is shown: a wait is over, and a connection that looks dead is made again. */
  #listen() {
    const { document } = globalThis;
    /** @param {boolean} isDead */
    const nudge = (isDead) => {
      this.#wake();
      this.#isNudged = isDead && this.#isReading && this.#isKept;
      if (this.#isNudged) this.#link.abort();
    };
    const shown = () => document.visibilityState === "visible" && nudge(Date.now() - this.#heardAt > this.#options.staleMs);
    const over = new AbortController();
    globalThis.addEventListener?.("online", () => nudge(true), over);
    document?.addEventListener("visibilitychange", shown, over);
    return () => over.abort();
  }

  async #stop() {
    const phase = this.#phase;
    if (this.ending) return true;
    this.ending = "stopped";
    this.#link.abort();
    this.#wake();
    if (phase === "new" || !this.#isKept) return true; // to close the connection is all that can be said
    let status = 500;
    // A DELETE may overtake its POST: before the first byte, the relay may not know the run yet.
    for (const wait of [0, 250, 1000]) {
      if (wait) await this.#sleep(wait);
      status = await this.#fetch("DELETE", this.#runUrl, {}).then((response) => response.status, () => 500);
      if (status < 300 || (status === 404 && phase === "begun")) break;
    }
    return status < 500;
  }
}

/** 128 random bits in hexadecimal: who cannot guess an id cannot read, or stop, another's run. */
function drawId() {
  // Not crypto.randomUUID: over plain HTTP, browsers have it for localhost only.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Whether a frame was read before the connection was resumed. Ids are `<epoch>-<seq>`. The server sends what comes after
 * Last-Event-ID; but where a proxy drops that header it sends everything, and no text may be shown twice.
 * @param {string} id @param {string} resumedAt
 */
function isOld(id, resumedAt) {
  const dash = id.lastIndexOf("-") + 1; // without one, it is of another form, and new
  const isSame = dash > 0 && id.slice(0, dash) === resumedAt.slice(0, dash);
  return isSame && Number(id.slice(dash)) <= Number(resumedAt.slice(dash));
}
