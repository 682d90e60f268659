/**
 * A conversation with Claude, for any framework: what was said, and what is being said.
 *
 *     import { Chat } from "./chat.js";
 *
 *     const chat = new Chat({ url: "/api/chat/stream", storage: sessionStorage });
 *     chat.subscribe(() => show(chat.getState()));                // { messages, isStreaming, error, … }
 *     chat.resume();                                              // after a reload: goes on from `storage`
 *     await chat.send("Hello");
 *
 * `react.js` makes a hook of it.
 */
export type Options = import("./rawsse.js").Options;
export type ChatError = import("./rawsse.js").ChatError;
export type ChatStream = import("./rawsse.js").ChatStream;
export type Json = import("./rawsse.js").Json;
export type Turn = {
    role: string;
    /**
     * of an answer its text; "" if it ended without a word. Then it is not sent, and the other fields say why
     */
    content: any;
    /**
     * of an answer, if its events have any: those of `/api/chat`, not those of `/api/chat/stream`
     */
    thinking?: string;
    /**
     * of an answer, as in `ChatState`
     */
    stopReason?: string | null;
    /**
     * of an answer, as in `ChatState`
     */
    ending?: ChatStream["ending"];
    /**
     * of an answer, its tokens: final where `ending` is "complete"
     */
    usage?: Json | null;
    /**
     * of an answer that failed
     */
    error?: TurnError | null;
};
export type TurnError = {
    /**
     * says also that the answer was cut, if some of it came
     */
    headline: string;
    advice: string;
    detail: string | null;
    /**
     * null for a fault of the page, such as an exception of a callback
     */
    type: string | null;
    /**
     * how the relay saw the API's stream end
     */
    ending: string | null;
    /**
     * when to try again, if the server said so: ms since 1970, as of `Date.now()`
     */
    retryAt: number | null;
};
export type ChatState = {
    /**
     * the last answer so far. `messages` has it too: to show both would show it twice
     */
    output: string;
    /**
     * the conversation, with the last answer so far
     */
    messages: Turn[];
    isStreaming: boolean;
    /**
     * the connection was lost, and is tried again
     */
    isReconnecting: boolean;
    /**
     * the run of the answer that is streaming: `resume` goes on with it
     */
    id: string | null;
    /**
     * why the model ended the last answer: "end_turn", or why it is not whole: "max_tokens",
     * "refusal" …; null while it is streaming, and where `body` does not ask for it with `usage: true`
     */
    stopReason: string | null;
    /**
     * how the last answer ended: "complete" may still be cut, see `stopReason`
     */
    ending: ChatStream["ending"];
    error: (Error & Partial<ChatError>) | null;
    /**
     * of the last answer
     */
    usage: Json | null;
};
export type More = {
    /**
     * by default `/api/chat/stream`
     */
    url?: string | URL;
    /**
     * what is sent for these messages; those without
     * a word are not among them
     */
    body?: (messages: Pick<Turn, "role" | "content">[]) => unknown;
    /**
     * to begin with
     */
    messages?: Turn[];
    /**
     * such as `sessionStorage`: keeps the messages (without
     * their thinking, if there is no room for it) and the id of a running answer over a reload, see `resume`. Of two tabs with one
     * `localStorage` the last one to write would win
     */
    storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
    /**
     * of the conversation in `storage`
     */
    key?: string;
};
export type ChatOptions = More & Omit<Options, "id" | "smooth">;
/**
 * @typedef {import("./rawsse.js").Options} Options
 * @typedef {import("./rawsse.js").ChatError} ChatError
 * @typedef {import("./rawsse.js").ChatStream} ChatStream
 * @typedef {import("./rawsse.js").Json} Json
 *
 * @typedef {object} Turn  a question or an answer. Only `role` and `content` are sent
 * @property {string} role
 * @property {any} content  of an answer its text; "" if it ended without a word. Then it is not sent, and the other fields say why
 * @property {string} [thinking]  of an answer, if its events have any: those of `/api/chat`, not those of `/api/chat/stream`
 * @property {string | null} [stopReason]  of an answer, as in `ChatState`
 * @property {ChatStream["ending"]} [ending]  of an answer, as in `ChatState`
 * @property {Json | null} [usage]  of an answer, its tokens: final where `ending` is "complete"
 * @property {TurnError | null} [error]  of an answer that failed
 *
 * @typedef {object} TurnError  a `ChatError` in words that stay right when they are read later
 * @property {string} headline  says also that the answer was cut, if some of it came
 * @property {string} advice
 * @property {string | null} detail
 * @property {string | null} type  null for a fault of the page, such as an exception of a callback
 * @property {string | null} ending  how the relay saw the API's stream end
 * @property {number | null} retryAt  when to try again, if the server said so: ms since 1970, as of `Date.now()`
 *
 * @typedef {object} ChatState
 * @property {string} output  the last answer so far. `messages` has it too: to show both would show it twice
 * @property {Turn[]} messages  the conversation, with the last answer so far
 * @property {boolean} isStreaming
 * @property {boolean} isReconnecting  the connection was lost, and is tried again
 * @property {string | null} id  the run of the answer that is streaming: `resume` goes on with it
 * @property {string | null} stopReason  why the model ended the last answer: "end_turn", or why it is not whole: "max_tokens",
 *   "refusal" …; null while it is streaming, and where `body` does not ask for it with `usage: true`
 * @property {ChatStream["ending"]} ending  how the last answer ended: "complete" may still be cut, see `stopReason`
 * @property {(Error & Partial<ChatError>) | null} error
 * @property {Json | null} usage  of the last answer
 *
 * @typedef {object} More  options of a conversation
 * @property {string | URL} [url]  by default `/api/chat/stream`
 * @property {(messages: Pick<Turn, "role" | "content">[]) => unknown} [body]  what is sent for these messages; those without
 *   a word are not among them
 * @property {Turn[]} [messages]  to begin with
 * @property {Pick<Storage, "getItem" | "setItem" | "removeItem">} [storage]  such as `sessionStorage`: keeps the messages (without
 *   their thinking, if there is no room for it) and the id of a running answer over a reload, see `resume`. Of two tabs with one
 *   `localStorage` the last one to write would win
 * @property {string} [key]  of the conversation in `storage`
 *
 * @typedef {More & Omit<Options, "id" | "smooth">} ChatOptions
 */
/**
 * A conversation, for any framework: `subscribe` tells of each change of `getState()`, of new text at most once per frame.
 *
 * `options` are those of `streamChat`, and those of `More`. `storage` and `key` are read once, the others for each answer.
 */
export declare class Chat {
    #private;
    /** @type {ChatOptions | string} */
    options: ChatOptions | string;
    /** @param {ChatOptions | string} [options]  a string is the URL */
    constructor(options?: ChatOptions | string);
    /** @param {() => void} listener */
    subscribe: (listener: () => void) => () => undefined;
    getState: () => ChatState;
    /**
     * Ask. An answer that is still running is stopped; a question that got no answer, or that the model refused, is removed
     * with its answer: the API would refuse all that follows it. Resolves at the end of the answer, and never rejects: the state
     * has the error.
     * @param {any} content  a text, or content blocks of the Messages API
     */
    send: (content: any) => Promise<void>;
    /** Ask the last question once more; what came of its answer is replaced. Resolves as `send` does. */
    retry: () => Promise<void>;
    /** Begin a new conversation, in `storage` too. An answer that is still running is stopped. Resolves as `stop` does. */
    clear: () => Promise<boolean>;
    /**
     * Go on after a reload: with the conversation in `storage`, unless one was begun here; or with the answer to the last
     * question whose run has this id. The run is read from its start, and nothing is sent. Resolves as `send` does.
     * @param {string | null} [id]
     */
    resume: (id?: string | null) => Promise<void>;
    /** Stop the running answer, here and on the server; what came of it stays. See `ChatStream.stop`. */
    stop: () => Promise<boolean>;
}
/**
 * The hook `useStreamingChat`, made of the React that the page has: `streamingChatHook(React)`. See `react.js`.
 * @param {{ useState: <T>(make: () => T) => [T, unknown],
 *   useInsertionEffect: (effect: () => void | (() => void), needs?: unknown[]) => void,
 *   useSyncExternalStore: <T>(subscribe: (told: () => void) => () => void, get: () => T, atServer: () => T) => T }} React
 */
export declare function streamingChatHook({ useState, useInsertionEffect, useSyncExternalStore }: {
    useState: <T>(make: () => T) => [T, unknown];
    useInsertionEffect: (effect: () => void | (() => void), needs?: unknown[]) => void;
    useSyncExternalStore: <T>(subscribe: (told: () => void) => () => void, get: () => T, atServer: () => T) => T;
}): (options?: ChatOptions | string | Chat) => {
    output: string;
    messages: Turn[];
    isStreaming: boolean;
    isReconnecting: boolean;
    id: string | null;
    stopReason: string | null;
    ending: ChatStream["ending"];
    error: (Error & Partial<ChatError>) | null;
    usage: Json | null;
    send: (content: any) => Promise<void>;
    retry: () => Promise<void>;
    stop: () => Promise<boolean>;
    clear: () => Promise<boolean>;
    resume: (id?: string | null) => Promise<void>;
};
