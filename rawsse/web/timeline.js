/**
 * When the frames of an answer came, in words and as a picture.
 *
 *     const times = timesOf([[80, "piece"], [90, "ping"], [95, "frame"], [120, "lost"], [300, "end"]]);  // [ms, kind]
 *     figure.replaceChildren(picture(times), words(times));
 */

import { seconds } from "./words.js";

/** Marks of one kind in the picture, the silences in it (the longest ones), and its columns. */
const [MARKS, SILENCES, COLUMNS] = [60, 3, 120];

/** Silences that are shorter than this are not told. */
const SILENCE_MS = 400;

/** The figures of an answer so far. Times are in ms since the request, and in order. */
export function timesOf(frames) {
  const times = { first: null, last: frames.at(-1)?.[0] ?? 0, end: null, count: 0, pings: [], losses: [], silences: [] };
  times.columns = Array(COLUMNS).fill(0);
  let before = 0;
  for (const [ms, kind] of frames) {
    if (ms - before >= SILENCE_MS) times.silences.push([before, ms]);
    before = ms;
    if (kind === "end") times.end = ms;
    else if (kind === "lost") times.losses.push(ms);
    else times.count += 1;
    if (kind === "ping") times.pings.push(ms);
    if (kind !== "piece") continue;
    times.first ??= ms;
    times.columns[Math.min(COLUMNS - 1, Math.floor((ms / (times.last || 1)) * COLUMNS))] += 1;
  }
  times.silences.sort(([a, b], [c, d]) => d - c - (b - a)).splice(SILENCES);
  return times;
}

/** The picture in words, for those who do not see it, and with the numbers for those who do. */
export function words({ first, last, end, count, pings, losses, silences }) {
  const many = (n, one) => n > 0 && `${n} ${one}${n === 1 ? "" : "s"}`;
  const gap = first !== null && silences.find(([from]) => from >= first);
  return [
    first === null ? "no content yet" : `first token ${seconds(first)}`,
    many(count, "frame"),
    many(pings.length, "ping"),
    gap && `longest gap ${seconds(gap[1] - gap[0])}`,
    many(losses.length, "reconnect"),
    end === null ? `at ${seconds(last)}` : `end ${seconds(end)}`,
  ].filter(Boolean).join(" · ");
}

const [WIDTH, HEIGHT, BASE] = [600, 48, 40];

/** An SVG: bars are pieces of content, boxes are silences, ticks below are pings, lines are the first token, losses, the end. */
export function picture(times) {
  const { first, last, end, pings, losses, silences, columns } = times;
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": words(times) });
  const box = (kind, x, y, width, height) => svg.append(shape("rect", { class: kind, x, y, width, height }));
  const at = (ms) => Math.min(WIDTH - 3, (ms / (last || 1)) * WIDTH);
  for (const [from, to] of silences) box("silence", at(from), 0, at(to) - at(from), BASE);
  const [step, most] = [WIDTH / COLUMNS, Math.log1p(Math.max(...columns))];
  columns.forEach((pieces, i) => {
    const height = (BASE * 0.9 * Math.log1p(pieces)) / most;
    if (pieces) box("piece", i * step, BASE - height, step - 0.5, height);
  });
  box("base", 0, BASE, WIDTH, 0.5);
  for (const ms of pings.slice(0, MARKS)) box("ping", at(ms), BASE + 2, 2, 6);
  for (const ms of losses.slice(0, MARKS)) box("lost", at(ms), 0, 2, BASE);
  if (first !== null) box("first", at(first), 0, 2, BASE);
  if (end !== null) box("end", at(end), 0, 3, HEIGHT);
  return svg;
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
