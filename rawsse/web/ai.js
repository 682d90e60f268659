/**
 * The AI SDK's `useChat` over the relay: an answer goes on where its connection was cut, or its page was loaded again.
 *
 *     import { resumingFetch } from "./ai.js";
 *
 *     const transport = new DefaultChatTransport({ api: "/api/chat", fetch: resumingFetch() });
 *     const chat = useChat({ id: "a-chat", messages, transport, resume: true });
 *
 * The AI SDK itself reconnects only when a hidden page is shown again. Here it reads one stream, which `streamChat` continues
 * after each cut. Its `stop` stops the model, too.
 */

import { ChatError, streamChat } from "./rawsse.js";

/**
 * @typedef {object} More
 * @property {Pick<Storage, "getItem" | "setItem" | "removeItem">} [storage]  has the id of each chat's run until its end was
 *   read; by default `sessionStorage`. Without it, a reload finds only runs that have not ended
 *
 * @typedef {More & Omit<import("./rawsse.js").Options, "id" | "signal" | "resume" | "runUrl" | "smooth">} FetchOptions
 */

/** @param {unknown} chunk */
const encode = (chunk) => new TextEncoder().encode(`data: ${JSON.stringify(chunk)}\n\n`);

/**
 * A `fetch` for `DefaultChatTransport`, and for any number of chats. `options` are those of `streamChat`, such as `onLost`, and
 * `storage`.
 * @param {FetchOptions} [options]
 * @returns {typeof globalThis.fetch}
 */
export function resumingFetch({ storage = globalThis.sessionStorage, fetch = globalThis.fetch, ...options } = {}) {
  /** @type {Map<string, unknown>} by the run's id: the stream that reads it, the last one if there are two */
  const readers = new Map();

  return async (input, init = {}) => {
    const body = init.method === "POST" ? JSON.parse(String(init.body)) : null;
    // The AI SDK posts to `api`, and resumes by GET at `${api}/${chat}/stream`.
    const [, api = "", chat = ""] = /^(.*)\/([^/]*)\/stream$/.exec(String(input)) ?? [];
    const key = `rawsse.run.${body ? body.id : decodeURIComponent(chat)}`;
    let id = body ? null : (storage?.getItem(key) ?? null);
    if (!body && !id) {
      const response = await fetch(input, init); // another tab may have begun it
      id = response.headers.get("x-run-id");
      if (response.status !== 200 || !id || !api) return response;
      void response.body?.cancel();
    }

    const isLast = () => readers.get(stream.id) === stream;
    const forget = () => {
      if (!isLast()) return;
      readers.delete(stream.id);
      storage?.removeItem(key);
    };
    let refusal = "";
    /** @type {typeof globalThis.fetch} */
    const send = async (to, more = {}) => {
      if (more.method === "DELETE") {
        // In React's StrictMode the AI SDK aborts a stream that it goes on with: another one then reads the run in a moment.
        await new Promise((resolve) => setTimeout(resolve));
        if (!isLast()) return new Response();
        forget();
      }
      const response = await fetch(to, { ...more, credentials: init.credentials });
      if (response.headers.get("content-type")?.startsWith("text/plain")) refusal = await response.clone().text();
      return response;
    };
    const headers = { ...options.headers, ...Object.fromEntries(new Headers(init.headers)) };
    const more = { id: id ?? undefined, signal: init.signal ?? undefined, headers, fetch: send };
    const stream = streamChat(body ? String(input) : api, body, { ...options, ...more });
    readers.set(stream.id, stream);
    try {
      storage?.setItem(key, stream.id);
    } catch {} // the browser has no room for it

    let failed = /** @type {ChatError | null} */ (null);
    const chunks = (async function* () {
      try {
        yield* stream;
      } catch (error) {
        if (!(error instanceof ChatError)) throw error;
        failed = error;
      }
      forget();
      if (failed) yield { type: "error", errorText: failed.detail ?? (refusal || failed.message) };
    })();
    const first = await chunks.next();
    // For the AI SDK, 204 means that there is nothing to resume.
    if (first.done || (!body && failed?.type === "forgotten")) return new Response(null, { status: 204 });
    const source = {
      /** @param {ReadableStreamDefaultController<Uint8Array>} controller */
      start: (controller) => controller.enqueue(encode(first.value)),
      /** @param {ReadableStreamDefaultController<Uint8Array>} controller */
      async pull(controller) {
        const { done, value } = await chunks.next();
        done ? controller.close() : controller.enqueue(encode(value));
      },
      cancel: () => void stream.stop(),
    };
    return new Response(new ReadableStream(source), { headers: { "content-type": "text/event-stream" } });
  };
}
