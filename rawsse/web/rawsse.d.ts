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
export declare const LIMITS: Readonly<{
    /** The waits before a connection is tried again; the last one repeats. Each varies by a quarter, so that the clients of a
     * server that was restarted do not come back all at once. */
    waits: number[];
    /** The longest wait that the server may ask for, by `retry:` or `Retry-After`: a person is waiting. */
    maxWaitMs: 30000;
    /** A relay that sends no byte for so long is not there: three heartbeats, 15 s each, are missing. */
    silenceMs: 45000;
    /** When a tab wakes up, a connection that was silent for longer than a heartbeat is not waited for. */
    staleMs: 20000;
    /** The longest wait for the head of an answer. Servers other than the relay send it with the first word. */
    headMs: 120000;
    /** The longest wait for the head where a run is resumed or stopped. A relay sends it at once, and ends a run that was without
     * a reader for 10 s (`--resume-grace`). */
    resumeMs: 5000;
    /** The longest wait for a frame to paint in. */
    paintMs: 100;
    /** The largest event that is gathered, in UTF-16 units. The longest line seen in a real stream has 181 kB. */
    maxEventChars: number;
}>;
export type Json = Record<string, any>;
export type ServerSentEvent = {
    event: string;
    data: string;
    id: string;
};
export type Result = {
    text: string;
    usage: Json | null;
    stopReason: string | null;
    ending: "complete" | "stopped" | "failed";
};
export type ErrorFacts = {
    status?: number | null;
    text?: string;
    retryAfter?: number | null;
    field?: string | null;
    requestId?: string | null;
    ending?: string | null;
    cause?: unknown;
};
export type Options = Callbacks & Partial<typeof LIMITS>;
export type Callbacks = {
    /**
     * a piece of the answer, and the answer so far
     */
    onText?: (text: string, whole: string) => void;
    /**
     * each event: `{ text }`, or an event of the Messages API
     */
    onEvent?: (event: Json) => void;
    /**
     * the answer is complete, or was stopped
     */
    onDone?: (result: Result) => void;
    onError?: (error: ChatError) => void;
    /**
     * the next try comes in `wait` ms
     */
    onLost?: (lost: {
        tries: number;
        wait: number;
    }) => void;
    /**
     * a response's head came
     */
    onOpen?: (opened: {
        method: string;
        url: URL;
        status: number;
    }) => void;
    /**
     * each block of the stream as it was sent, comments too
     */
    onFrame?: (raw: string) => void;
    /**
     * call `onText` at most once per frame
     */
    smooth?: boolean;
    /**
     * aborting stops the run, and throws the signal's reason
     */
    signal?: AbortSignal;
    /**
     * sent as `Authorization: Bearer …`
     */
    token?: string | (() => string | Promise<string>);
    /**
     * sent with each request, but for `x-run-id`: `id` names the run
     */
    headers?: Record<string, string>;
    /**
     * false: for a server of another origin that does not allow the header `x-run-id`
     */
    resume?: boolean;
    /**
     * the run's id, 16 to 64 of A-Z a-z 0-9 _ -. With the body `null`, that run is read from its start
     */
    id?: string;
    /**
     * where a run is found; by default `/runs/{id}` of the same relay
     */
    runUrl?: (id: string) => string | URL;
    fetch?: typeof globalThis.fetch;
};
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
export declare class EventStreamParser {
    #private;
    lastEventId: string;
    /** @type {number | null} */
    retry: number | null;
    /** @param {{ lastEventId?: string, onFrame?: (raw: string) => void, maxEventChars?: number }} [options] */
    constructor({ lastEventId, onFrame, maxEventChars }?: {
        lastEventId?: string;
        onFrame?: (raw: string) => void;
        maxEventChars?: number;
    });
    /**
     * Take the next bytes; return the events that they complete, each at the very byte at which the standard allows it.
     * @param {Uint8Array} bytes
     */
    feed(bytes: Uint8Array): ServerSentEvent[];
}
/**
 * The text that an event adds to the answer, in either dialect; "" for all other events.
 * @param {Json} event
 * @returns {string}
 */
export declare function textOf(event: Json): string;
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
export declare class ChatError extends Error {
    type: string;
    headline: string;
    advice: string;
    detail: string | null;
    text: string;
    status: number | null;
    retryAfter: number | null;
    field: string | null;
    requestId: string | null;
    ending: string | null;
    name: string;
    /** @param {string} type @param {string | null} [detail] @param {ErrorFacts} [facts] */
    constructor(type: string, detail?: string | null, facts?: ErrorFacts);
}
/**
 * Gather pieces of text, and hand them on at most once per frame; `flush` hands on what waits, at once.
 *
 * A hidden tab has no frames, and a frame that was asked for may never come: a timer runs beside it.
 * @param {(text: string) => void} paint @param {number} [paintMs]
 */
export declare function smooth(paint: (text: string) => void, paintMs?: number): {
    push: (text: string) => void;
    flush: () => void;
};
/**
 * POST `body` to `url` and read the answer to its end. Lost connections are resumed.
 *
 * With a callback among the options the answer is read at once; else it is read as far as the caller iterates, or awaits
 * `done`. Leaving the loop early stops the run.
 * @param {string | URL} url
 * @param {unknown} body  what is sent as JSON; null to read the run that `options.id` names
 * @param {Options} [options]
 */
export declare function streamChat(url: string | URL, body: unknown, options?: Options): ChatStream;
/** One answer: `text`, `usage` and `stopReason` so far, `id` of its run, `done`, `stop()`; async iterable. */
export declare class ChatStream {
    #private;
    id: string;
    text: string;
    /** @type {Json | null} */
    usage: Json | null;
    /** @type {string | null} */
    stopReason: string | null;
    /** @type {"complete" | "stopped" | "failed" | null} */
    ending: "complete" | "stopped" | "failed" | null;
    /** @param {string | URL} url @param {unknown} body @param {Options} options */
    constructor(url: string | URL, body: unknown, options: Options);
    /** The whole answer, when it has ended. Rejects with a `ChatError`, or with the reason of the aborted signal. */
    get done(): Promise<Result>;
    [Symbol.asyncIterator](): AsyncGenerator<Json, void, void>;
    /**
     * Stop the answer: here at once, and on the server, which then generates nothing more. Does nothing after the end.
     * Resolves, and never rejects: false if the server could not be reached. A relay ends a run without readers by itself.
     * @returns {Promise<boolean>}
     */
    stop(): Promise<boolean>;
}
