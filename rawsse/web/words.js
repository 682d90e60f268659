/**
 * What the page says in words: endings, errors, stop reasons, numbers. Pure: its functions take values and return strings.
 */

/** Stop reasons that a reader must be told of: the stream is complete, and yet the answer is not what was asked for. */
const STOP_REASONS = {
  __proto__: null, // the names come from outside: "constructor" is to be found in none of these tables
  max_tokens: "Cut off: the limit of output tokens was reached.",
  model_context_window_exceeded: "Cut off: the model's context window is full.",
  tool_use: "The model waits for the result of a tool, and this page runs none.",
  pause_turn: "The API paused a long turn. Ask it to go on.",
  refusal: "The model declined to answer.",
};

/** What the relay saw of the API's stream. It says more than an error type where the API itself said nothing. */
const ENDINGS = {
  __proto__: null,
  truncated: "The API's answer broke off before it was complete.",
  timeout: "The API fell silent before the answer was complete.",
  limit: "The answer was larger than the server allows.",
};

// Values of another type than they should have are as good as missing.
export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
export const fields = (value) => (isObject(value) ? value : {});
export const asText = (value) => (typeof value === "string" ? value : "");

/** The value of a JSON text; undefined if it is none. */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** An error as { headline, detail }: what happened, and what the other side said about it. */
export function describeError(error) {
  // The page has a button for another try.
  const advice = error.advice === "Try again." ? "" : error.advice;
  const headline = ENDINGS[error.ending] ?? ([error.headline, advice].filter(Boolean).join(" ") || "The page itself failed.");
  const facts = [error.status && `status ${error.status}`, error.type, error.field && `field ${error.field}`];
  if (error.retryAfter) facts.push(`retry after ${error.retryAfter} s`);
  if (error.requestId) facts.push(`request ${error.requestId}`);
  const given = facts.filter(Boolean).join(", ");
  const said = error.headline ? (error.detail ?? "") : error.message;
  return { headline, detail: given ? `${said} (${given})`.trim() : said };
}

/** What a stop reason means for the reader; null where nothing is amiss, or where it is not known yet. */
export const describeStopReason = (reason) => STOP_REASONS[reason] ?? null;

/** Milliseconds as seconds, with as many digits as a reader can use. */
export const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s`;

/** A count with thin spaces between the thousands. */
export const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** Tokens per second over a time in ms; null where the time is too short to divide by. */
export function tokensPerSecond(tokens, ms) {
  // Within 50 ms the answer came in one or two packets: the quotient would measure the network's buffers.
  return ms < 50 ? null : (tokens / ms) * 1000;
}
