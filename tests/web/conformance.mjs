// What a parser makes of an input, however it is cut. For Node (harness.mjs) and for Chromium alike; it judges nothing.

function cut(bytes, size) {
  const starts = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => i * size);
  return starts.map((start) => bytes.subarray(start, start + size));
}

/** Where to cut in two: everywhere; of what is large, near both ends and at some places between. A sample is a tenth of it. */
function places(length, isSample) {
  const range = (from, to, step = 1) => Array.from({ length: Math.max(Math.ceil((to - from) / step), 0) }, (_, i) => from + i * step);
  if (length <= (isSample ? 600 : 6000)) return range(1, length);
  const near = isSample && length > 6000 ? (length > 60_000 ? 2 : 4) : 20;
  const step = Math.ceil(length / near);
  return [...range(1, near), ...range(step, length, step), ...range(length - near + 1, length)];
}

function* everyCut(bytes, isSample) {
  const large = isSample && bytes.length > 30_000 ? [65536, 4096, 1000] : [65536, 4096, 1000, 1];
  yield [bytes];
  for (const size of bytes.length > 6000 ? large : [1, 2, 3, 5, 7, 13]) yield cut(bytes, size);
  for (const at of places(bytes.length, isSample)) yield [bytes.subarray(0, at), new Uint8Array(), bytes.subarray(at)];
}

/** Each distinct result, in the form of the conformance cases. */
export function results(EventStreamParser, bytes, isSample = false) {
  const seen = new Set();
  for (const chunks of everyCut(bytes, isSample)) {
    const parser = new EventStreamParser();
    const events = chunks.flatMap((chunk) => parser.feed(chunk));
    const named = events.map(({ event, data, id }) => ({ event, data, last_event_id: id }));
    seen.add(JSON.stringify({ events: named, retry_ms: parser.retry, final_last_event_id: parser.lastEventId }));
  }
  return [...seen].map((text) => JSON.parse(text));
}
