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

import { smooth, streamChat } from "./rawsse.js";

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
export class Chat {
  /** @type {ChatOptions | string} */
  options;
  /** @type {ChatState} */
  #state;
  /** @type {ChatStream | null} */
  #stream = null;
  #thinking = "";
  #isLost = false;
  /** @type {Turn[]} */
  #asked;
  /** @type {ChatOptions["storage"]} */
  #storage;
  /** @type {string} */
  #key;
  /** @type {Set<() => void>} */
  #listeners = new Set();

  /** @param {ChatOptions | string} [options]  a string is the URL */
  constructor(options = {}) {
    this.options = options;
    const { messages = [], storage, key = "rawsse.chat" } = typeof options === "string" ? {} : options;
    [this.#asked, this.#storage, this.#key] = [messages, storage, key];
    const idle = { isStreaming: false, isReconnecting: false, id: null, stopReason: null, ending: null };
    this.#state = { output: "", messages, ...idle, error: null, usage: null };
  }

  /** @param {() => void} listener */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  };

  getState = () => this.#state;

  /**
   * Ask. An answer that is still running is stopped; a question that got no answer, or that the model refused, is removed
   * with its answer: the API would refuse all that follows it. Resolves at the end of the answer, and never rejects: the state
   * has the error.
   * @param {any} content  a text, or content blocks of the Messages API
   */
  send = async (content) => {
    void this.stop();
    const { messages } = this.#state;
    const last = messages.at(-1);
    const isAnswered = last?.role !== "user" && last?.content !== "" && last?.stopReason !== "refusal";
    this.#asked = [...(isAnswered ? messages : this.#toQuestion().slice(0, -1)), { role: "user", content }];
    await this.#read();
  };

  /** Ask the last question once more; what came of its answer is replaced. Resolves as `send` does. */
  retry = async () => {
    void this.stop();
    const asked = this.#toQuestion();
    if (!asked.length) return;
    this.#asked = asked;
    await this.#read();
  };

  /** Begin a new conversation, in `storage` too. An answer that is still running is stopped. Resolves as `stop` does. */
  clear = () => {
    const stopped = this.stop();
    [this.#asked, this.#stream, this.#thinking] = [[], null, ""];
    this.#show(false);
    return stopped;
  };

  /**
   * Go on after a reload: with the conversation in `storage`, unless one was begun here; or with the answer to the last
   * question whose run has this id. The run is read from its start, and nothing is sent. Resolves as `send` does.
   * @param {string | null} [id]
   */
  resume = async (id = this.#restore()) => {
    if (!id || id === this.#state.id) return;
    void this.stop();
    this.#asked = this.#toQuestion(); // the answer comes again
    await this.#read(id);
  };

  /** Stop the running answer, here and on the server; what came of it stays. See `ChatStream.stop`. */
  stop = async () => {
    const stopped = this.#stream?.stop();
    if (this.#state.isStreaming) this.#show(false);
    return (await stopped) ?? true;
  };

  /** Read an answer to its end: to the messages, or that of the run `id`. @param {string} [id] */
  async #read(id) {
    const options = typeof this.options === "string" ? { url: this.options } : this.options;
    const { url = "/api/chat/stream", body = (messages) => ({ messages, usage: true }), ...rest } = options;
    const said = this.#asked.filter(({ role, content }) => role !== "assistant" || content !== "");
    const asked = said.map(({ role, content }) => ({ role, content }));
    const show = (isLost = this.#isLost) => {
      if (stream !== this.#stream) return;
      this.#isLost = isLost;
      this.#show(stream.ending === null);
    };
    const paint = smooth(() => show(), rest.paintMs);
    /** @type {Options} */
    const callbacks = {
      onEvent: (event) => {
        const { delta, content_block: block } = event;
        const begun = block?.type === "thinking" ? (this.#thinking && "\n\n") + (block.thinking ?? "") : "";
        this.#thinking += delta?.thinking ?? begun;
        if (delta?.thinking) paint.push(delta.thinking);
        rest.onEvent?.(event);
      },
      onText: (text, whole) => (show(), rest.onText?.(text, whole)),
      onLost: (lost) => (show(true), rest.onLost?.(lost)),
      onOpen: (opened) => (opened.status < 300 && show(false), rest.onOpen?.(opened)),
    };
    // It starts in a microtask: of two calls in one go, as those of effects in React's StrictMode are, one is sent.
    const stream = streamChat(url, id ? null : body(asked), { ...rest, ...callbacks, id, smooth: true });
    [this.#stream, this.#thinking] = [stream, ""];
    show(false);
    const error = await stream.done.then(() => null, (reason) => reason);
    paint.flush();
    if (stream === this.#stream) this.#show(false, rest.signal?.aborted ? null : error);
  }

  /** The conversation without the answer to its last question. */
  #toQuestion() {
    const { messages } = this.#state;
    return messages.at(-1)?.role === "assistant" ? messages.slice(0, -1) : messages;
  }

  /** @param {boolean} isStreaming @param {ChatState["error"]} [error] */
  #show(isStreaming, error = null) {
    const { text: output = "", usage = null, stopReason = null, ending: end = null } = this.#stream ?? {};
    const ending = error ? "failed" : end; // `streamChat` says "stopped" where a function of the caller threw
    const isReconnecting = isStreaming && this.#isLost;
    const id = (isStreaming && this.#stream?.id) || null;
    const content = output.trim() ? output : "";
    const answer = { role: "assistant", content, stopReason, ending, usage, error: error && inWords(error, content) };
    const thinking = this.#thinking && { thinking: this.#thinking };
    const messages = content || thinking || ending ? [...this.#asked, { ...answer, ...thinking }] : this.#asked;
    const isKept = isStreaming && id === this.#state.id;
    this.#state = { output, messages, isStreaming, isReconnecting, id, stopReason, ending, error, usage };
    if (!isKept) this.#keep();
    for (const listener of this.#listeners) listener();
  }

  #keep() {
    const { messages, id } = this.#state;
    const bare = messages.map(({ thinking, ...turn }) => turn);
    for (const kept of [messages, bare]) {
      try {
        return this.#storage?.setItem(this.#key, JSON.stringify({ messages: kept, id }));
      } catch {} // the browser has less room
    }
    this.#storage?.removeItem(this.#key); // a reload begins a new conversation
  }

  /** Take the conversation from `storage`; return the id of the answer that was running. @returns {string | null} */
  #restore() {
    let kept = null;
    try {
      kept = JSON.parse(this.#storage?.getItem(this.#key) ?? "null");
    } catch {} // another program wrote it
    if (this.#stream || !Array.isArray(kept?.messages)) return null;
    this.#asked = kept.messages;
    this.#show(false);
    return kept.id;
  }
}

/** @param {NonNullable<ChatState["error"]>} error @param {string} text  of the answer so far @returns {TurnError} */
function inWords(error, text) {
  const { headline = error.message, detail = null, type = null, ending = null, retryAfter } = error;
  const cut = text && type !== "truncated" ? "The answer was cut off. " : "";
  const retryAt = retryAfter ? Date.now() + retryAfter * 1000 : null;
  // "Try again in 74 minutes" would be wrong after a reload an hour later.
  const advice = retryAt ? `Try again after ${new Date(retryAt).toLocaleString()}.` : (error.advice ?? "");
  return { headline: cut + headline, advice, detail, type, ending, retryAt };
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
    useInsertionEffect(() => {
      void own.resume(); // nothing has subscribed yet
      return () => queueMicrotask(own.stop);
    }, [own]);
    const state = useSyncExternalStore(chat.subscribe, chat.getState, chat.getState);
    const { send, retry, stop, clear, resume } = chat;
    return { ...state, send, retry, stop, clear, resume };
  };
}
