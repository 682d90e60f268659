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

import { streamChat } from "./rawsse.js";

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
export class Chat {
  /** @type {ChatOptions | string} */
  options;
  /** @type {ChatState} */
  #state;
  /** @type {ChatStream | null} */
  #stream = null;
  /** @type {Turn[]} */
  #asked;
  /** @type {Set<() => void>} */
  #listeners = new Set();

  /** @param {ChatOptions | string} [options]  a string is the URL */
  constructor(options = {}) {
    this.options = options;
    this.#asked = (typeof options === "string" ? null : options.messages) ?? [];
    this.#state = { output: "", messages: this.#asked, isStreaming: false, error: null, usage: null };
  }

  /** @param {() => void} listener */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  };

  getState = () => this.#state;

  /**
   * Ask. An answer that is still running is stopped; a question that got no answer is replaced. Resolves at the end of the
   * answer, and never rejects: the state has the error.
   * @param {any} content  a text, or content blocks of the Messages API
   */
  send = async (content) => {
    const options = typeof this.options === "string" ? { url: this.options } : this.options;
    const { url = "/api/chat/stream", body = (messages) => ({ messages, usage: true }), ...rest } = options;
    void this.stop();
    const answered = this.#messages();
    const asked = answered.slice(0, answered.at(-1)?.role === "user" ? -1 : undefined);
    this.#asked = [...asked, { role: "user", content }];
    /** @param {string} text @param {string} whole */
    const onText = (text, whole) => {
      if (stream === this.#stream) this.#show(stream.ending === null);
      rest.onText?.(text, whole);
    };
    // It starts in a microtask: of two calls in one go, as those of effects in React's StrictMode are, one is sent.
    const stream = streamChat(url, body(this.#asked), { ...rest, smooth: true, onText });
    this.#stream = stream;
    this.#show(true);
    const error = await stream.done.then(() => null, (reason) => reason);
    if (stream === this.#stream) this.#show(false, stream.ending === "stopped" ? null : error);
  };

  /** Stop the running answer, here and on the server; what came of it stays. See `ChatStream.stop`. */
  stop = async () => {
    const stopped = this.#stream?.stop();
    if (this.#state.isStreaming) this.#show(false);
    return (await stopped) ?? true;
  };

  #messages() {
    const text = this.#stream?.text ?? "";
    return text.trim() ? [...this.#asked, { role: "assistant", content: text }] : this.#asked;
  }

  /** @param {boolean} isStreaming @param {ChatState["error"]} [error] */
  #show(isStreaming, error = null) {
    const { text: output = "", usage = null } = this.#stream ?? {};
    this.#state = { output, messages: this.#messages(), isStreaming, error, usage };
    for (const listener of this.#listeners) listener();
  }
}

/**
 * The hook `useStreamingChat`, made of the React that the page has: `streamingChatHook(React)`. See `react.js`.
 * @param {{ useState: <T>(make: () => T) => [T, unknown],
 *   useInsertionEffect: (effect: () => void | (() => void), needs?: unknown[]) => void,
 *   useSyncExternalStore: <T>(subscribe: (told: () => void) => () => void, get: () => T, atServer: () => T) => T }} React
 */
export function streamingChatHook({ useState, useInsertionEffect, useSyncExternalStore }) {
  /** @param {ChatOptions | string | Chat} [options] */
  return function useStreamingChat(options = {}) {
    const given = options instanceof Chat ? options : null;
    const [own] = useState(() => new Chat(given ? {} : /** @type {ChatOptions | string} */ (options)));
    const chat = given ?? own;
    // Insertion effects, not the others: they run before any effect that may send, and end only with the component, while
    // StrictMode and a hidden <Activity> end the others of components that come back. They may not update any state.
    useInsertionEffect(() => {
      if (!(options instanceof Chat)) own.options = options;
    });
    useInsertionEffect(() => () => queueMicrotask(own.stop), [own]);
    const state = useSyncExternalStore(chat.subscribe, chat.getState, chat.getState);
    return { ...state, send: chat.send, stop: chat.stop };
  };
}
