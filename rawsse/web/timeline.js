/**
 * When the frames of an answer came: a model that does not grow with the answer, and a picture of it.
 *
 *     const timeline = new Timeline();
 *     timeline.add("piece", 80);                     // ms since the request; also "ping", "frame", "lost", "end"
 *     figure.replaceChildren(picture(timeline), words(timeline));
 */

import { seconds } from "./words.js";

/** Columns of the picture. When they are full, each two become one. */
const COLUMNS = 120;

/** Marks of one kind that are kept, and the silences that are shown: the longest ones. */
const [MARKS, SILENCES] = [60, 3];

/** Silences that are shorter than this are not told. */
const SILENCE_MS = 400;

export class Timeline {
  first = null; // the time of the first piece of content
  last = 0;
  end = null;
  frames = 0;
  counts = { ping: 0, lost: 0 };
  marks = []; // [kind, ms]
  silences = []; // [from, to], the longest first
  width = 50; // ms of a column
  columns = Array(COLUMNS).fill(0); // pieces

  add(kind, ms) {
    if (ms - this.last >= SILENCE_MS) this.#silence(this.last, ms);
    this.last = Math.max(this.last, ms);
    if (kind in this.counts && (this.counts[kind] += 1) <= MARKS) this.marks.push([kind, ms]);
    if (kind === "end") this.end = ms;
    else if (kind !== "lost") this.frames += 1;
    while (ms >= this.width * COLUMNS) this.#widen();
    if (kind !== "piece") return;
    this.first ??= ms;
    this.columns[Math.floor(ms / this.width)] += 1;
  }

  #silence(from, to) {
    this.silences = [...this.silences, [from, to]].sort(([a, b], [c, d]) => d - c - (b - a)).slice(0, SILENCES);
  }

  #widen() {
    this.width *= 2;
    this.columns = this.columns.map((_, i) => (this.columns[2 * i] ?? 0) + (this.columns[2 * i + 1] ?? 0));
  }
}

/** The picture in words, for those who do not see it, and with the numbers for those who do. */
export function words({ first, last, end, frames, counts, silences }) {
  const many = (n, one) => n > 0 && `${n} ${one}${n === 1 ? "" : "s"}`;
  const [longest] = silences.filter(([from]) => from > (first ?? Infinity)).map(([from, to]) => to - from);
  return [
    first === null ? "no content yet" : `first token ${seconds(first)}`,
    many(frames, "frame"),
    many(counts.ping, "ping"),
    longest && `longest gap ${seconds(longest)}`,
    many(counts.lost, "reconnect"),
    end === null ? `at ${seconds(last)}` : `end ${seconds(end)}`,
  ].filter(Boolean).join(" · ");
}

const [WIDTH, HEIGHT, BASE] = [600, 48, 40];

/** An SVG of one answer: bars are pieces of content, boxes are silences, ticks below are pings, lines are the rest. */
export function picture(timeline) {
  const { first, last, end, marks, silences, width, columns } = timeline;
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  svg.setAttribute("aria-label", words(timeline));
  const scale = WIDTH / Math.max(1, last);
  const box = (kind, x, y, w, h) => svg.append(shape("rect", { class: kind, x, y, width: w, height: h }));
  for (const [from, to] of silences) box("silence", from * scale, 0, (to - from) * scale, BASE);
  const most = Math.log1p(Math.max(...columns));
  columns.forEach((pieces, i) => {
    const height = (BASE * 0.9 * Math.log1p(pieces)) / most;
    if (pieces) box("piece", i * width * scale, BASE - height, Math.max(1, width * scale - 0.5), height);
  });
  box("base", 0, BASE, WIDTH, 0.5);
  for (const [kind, ms] of marks) box(kind, Math.min(ms * scale, WIDTH - 2), kind === "ping" ? BASE + 2 : 0, 2, kind === "ping" ? 6 : BASE);
  if (first !== null) box("first", first * scale, 0, 2, BASE);
  if (end !== null) box("end", WIDTH - 3, 0, 3, HEIGHT);
  return svg;
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
