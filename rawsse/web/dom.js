/**
 * What the parts of the page share: elements, text that grows, a scrolling box that follows its end, and values in words.
 *
 *     const box = new FollowingBox(scroller);
 *     const text = new GrowingText(box, element);
 *     text.append("Hel");                           // both are written in the next frame, as one text node
 *     text.append("lo");
 *
 * Why frames: an answer brings up to hundreds of events a second, a screen shows 60 pictures. One change of the page per
 * event would lay the page out several times per picture.
 *
 * Text enters the page as text nodes only (Markdown too: see `markdown.js`). There is no place here, or elsewhere in the page, that parses markup.
 */

/** How long changes may take in one frame, in ms; what is left is made in the next ones. */
const BUDGET_MS = 8;

/** A hidden tab has no frames: there, changes are made after this time, in ms. */
const HIDDEN_MS = 200;

/** So near to its end a box counts as being there: half a line, and the fractions of a pixel that zooming makes. */
const END_PX = 12;

/** An element with texts and nodes in it; those that are "", null or false are left out. */
export function make(tag, className = "", ...parts) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...parts.filter(Boolean));
  return element;
}

export const button = (className, text, more) => Object.assign(make("button", className, text), { type: "button", ...more });

/** Let the browser paint and take input, then go on. A message, since timers of hidden tabs fire once a second. */
export function turn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), resolve());
    port2.postMessage(null);
  });
}

export class FollowingBox {
  #box;
  #changes = [];
  #waiting = []; // for all changes to be made
  #top = 0;
  #frame = 0;
  #timer = 0;
  #isAtEnd = true; // until the reader scrolls up: then the box stays where it is, until he comes back to the end

  constructor(box) {
    this.#box = box;
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // A box that shrinks (the wire opens, a telephone shows its keyboard) hides its end, and no scrolling is reported.
    new ResizeObserver(() => this.#isAtEnd && this.toEnd()).observe(box);
  }

  /** Make a change in the next animation frame, in the order of the calls. `change(until)` may return false at that time, a
   * `performance.now()`, to go on in the frame after it. */
  later(change) {
    this.#changes.push(change);
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => this.#make(performance.now() + BUDGET_MS));
    this.#timer = setTimeout(() => this.flush(), HIDDEN_MS);
  }

  /** Make all changes now. */
  flush() {
    this.#make(Infinity);
  }

  /** Resolves when all changes are made. */
  settled() {
    if (document.hidden) this.flush();
    return this.#changes.length ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve();
  }

  #make(until) {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = 0;
    for (const change of this.#changes.splice(0)) if (change(until) === false) this.later(change);
    if (this.#isAtEnd) this.toEnd();
    if (this.#changes.length === 0) for (const resolve of this.#waiting.splice(0)) resolve();
  }

  toEnd() {
    this.#isAtEnd = true;
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#top = this.#box.scrollTop; // the reader may scroll up before this is reported
  }

  /** Something opened or closed below `head` at the reader's wish: show what came, but never at the cost of its head. */
  grown(head) {
    if (!this.#isAtEnd) return;
    this.toEnd();
    head.scrollIntoView({ block: "nearest" });
  }

  /** A reader scrolls up. That the end went away meanwhile, since the text grew or the box shrank, does not count. */
  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    if (scrollHeight - scrollTop - clientHeight <= END_PX) this.#isAtEnd = true;
    else if (scrollTop < this.#top) this.#isAtEnd = false;
    this.#top = scrollTop;
  }
}

/** Growing text is laid out in pieces of about this length, each of them once. A line longer than four of them is broken. */
const PIECE = 4096;

export class GrowingText {
  #box;
  #element;
  #piece = null;
  #length = 0;
  #pieces = [];

  constructor(box, element) {
    [this.#box, this.#element] = [box, element];
  }

  append(text) {
    if (!text) return;
    if (this.#pieces.length === 0) this.#box.later(() => this.#write(this.#pieces.splice(0).join("")));
    this.#pieces.push(text);
  }

  #write(text) {
    while (text) {
      if (!this.#piece) this.#element.append((this.#piece = make("span", "piece")));
      const room = Math.max(0, PIECE - this.#length);
      const line = text.indexOf("\n", room);
      let end = line < 0 ? text.length : line + 1;
      if (this.#length + end > 4 * PIECE) end = Math.max(1, 4 * PIECE - this.#length);
      if (/[\uDC00-\uDFFF]/.test(text[end])) end += 1;
      this.#piece.append(text.slice(0, end));
      this.#length += end;
      const isFull = this.#length >= 4 * PIECE || (this.#length > PIECE && line >= 0);
      if (isFull) [this.#piece, this.#length] = [null, 0];
      text = text.slice(end);
    }
  }
}

// --- Values ------------------------------------------------------------------------------------------------------------

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

/** Milliseconds as seconds, with as many digits as a reader can use. */
export const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s`;

/** A count with thin spaces between the thousands. */
export const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
