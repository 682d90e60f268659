/**
 * `useStreamingChat`: a conversation with Claude as a React hook (React 18 and later).
 *
 *     function Chat() {
 *       const { messages, isStreaming, send, retry, stop } = useStreamingChat("/api/chat/stream");
 *       …
 *     }
 *
 * Its argument is a URL, the options of `Chat` in `chat.js`, or a `Chat`, which then outlives the component; the hook does not
 * resume a `Chat` of the caller after a reload: call its `resume()` once. The result is
 * `ChatState` there, with `send(text)`, which stops an answer that is still running, `retry()`, `stop()`, `clear()` and
 * `resume(id)`. `messages` has the answer so far, as `output` does: show one of them. With `storage: sessionStorage` the
 * conversation outlives a reload, and an answer that was running goes on; where pages are rendered on a server,
 * `storage: globalThis.sessionStorage`. Without a `Chat` of the caller, the answer is stopped when the component is removed, on
 * the server too.
 *
 * Without a build step, an import map says where "react" is; or, for a React that is a global,
 * `import { streamingChatHook } from "./chat.js"` and `const useStreamingChat = streamingChatHook(React)`.
 */

import * as React from "react";
import { streamingChatHook } from "./chat.js";

export const useStreamingChat = streamingChatHook(React);
