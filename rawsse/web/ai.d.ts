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
export type More = {
    /**
     * has the id of each chat's run until its end was
     * read; by default `sessionStorage`. Without it, a reload finds only runs that have not ended
     */
    storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
};
export type FetchOptions = More & Omit<import("./rawsse.js").Options, "id" | "signal" | "resume" | "runUrl" | "smooth">;
/**
 * A `fetch` for `DefaultChatTransport`, and for any number of chats. `options` are those of `streamChat`, such as `onLost`, and
 * `storage`.
 * @param {FetchOptions} [options]
 * @returns {typeof globalThis.fetch}
 */
export declare function resumingFetch({ storage, fetch, ...options }?: FetchOptions): typeof globalThis.fetch;
