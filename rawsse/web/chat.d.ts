/**
 * A conversation with Claude, for any framework: what was said, and what is being said.
 *
 *     import { Chat } from "./chat.js";
 *
 *     const chat = new Chat("/api/chat/stream");
 *     chat.subscribe(() => show(chat.getState()));                // { messages, output, isStreaming, error, usage }
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
    content: any;
};
export type ChatState = {
    output: string;
    messages: Turn[];
    isStreaming: boolean;
    error: (Error & Partial<ChatError>) | null;
    usage: Json | null;
};
export type ChatOptions = {
    url?: string | URL;
    body?: (messages: Turn[]) => unknown;
    messages?: Turn[];
} & Omit<Options, "id">;
/**
 * @typedef {import("./rawsse.js").Options} Options
 * @typedef {import("./rawsse.js").ChatError} ChatError
 * @typedef {import("./rawsse.js").ChatStream} ChatStream
 * @typedef {import("./rawsse.js").Json} Json
 * @typedef {{ role: string, content: any }} Turn
 * @typedef {{ output: string, messages: Turn[], isStreaming: boolean, error: (Error & Partial<ChatError>) | null,
 *   usage: Json | null }} ChatState
 * @typedef {{ url?: string | URL, body?: (messages: Turn[]) => unknown, messages?: Turn[] } & Omit<Options, "id">} ChatOptions
 */
/**
 * A conversation, for any framework: `subscribe` tells of each change of `getState()`, at most once per frame.
 *
 * `options` are those of `streamChat`, and `url`, `body` (what is sent for these messages) and `messages` (to begin with).
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
     * Ask. An answer that is still running is stopped; a question that got no answer is replaced. Resolves at the end of the
     * answer, and never rejects: the state has the error.
     * @param {any} content  a text, or content blocks of the Messages API
     */
    send: (content: any) => Promise<void>;
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
    error: (Error & Partial<ChatError>) | null;
    usage: Json | null;
    send: (content: any) => Promise<void>;
    stop: () => Promise<boolean>;
};
