/**
 * The wire pane: the raw frames, exactly as they arrived, each with its time since the request.
 *
 * This file knows a list of frames and its bounds. It refuses to know what the frames mean.
 *
 *     const wire = new Wire(list);                   // an element that scrolls
 *     wire.begin();                                  // the clock starts
 *     wire.note("POST /api/chat: 200");
 *     wire.frame("event: ping\ndata: {}\n\n");
 */

import { FollowingBox, make } from "./dom.js";
import { seconds } from "./words.js";

/** Frames that the pane keeps: the last answers in full, not a whole day's. */
export const MAX_FRAMES = 400;

/** Characters that the pane keeps. A single tool result may have 181 kB. */
export const MAX_CHARS = 1_000_000;

export class Wire {
  #box;
  #list;
  #maxFrames;
  #maxChars;
  #begun = 0;
  #waiting = [];
  #chars = 0;

  constructor(list, { maxFrames = MAX_FRAMES, maxChars = MAX_CHARS } = {}) {
    this.#box = new FollowingBox(list);
    this.#list = list;
    this.#maxFrames = maxFrames;
    this.#maxChars = maxChars;
  }

  /** A request is being sent: times count from here. */
  begin() {
    this.#begun = performance.now();
  }

  /** A line of the page's own, between the frames. */
  note(text) {
    this.#add("note", text);
  }

  frame(raw) {
    this.#add("frame", raw);
  }

  /** Go to the end, and follow it from there: for when the pane is shown. */
  toEnd() {
    this.#box.flush();
    this.#box.toEnd();
  }

  #add(kind, text) {
    if (this.#waiting.length === 0) this.#box.later(() => this.#write());
    this.#waiting.push({ kind, text, at: performance.now() - this.#begun });
    if (this.#waiting.length > this.#maxFrames) this.#waiting.shift(); // a hidden tab writes nothing for a long time
  }

  #write() {
    for (const { kind, text, at } of this.#waiting.splice(0)) {
      const item = make("li", kind);
      item.append(make("span", "at", `+${seconds(at)}`), make("pre", "", text));
      this.#list.append(item);
      this.#chars += text.length;
    }
    while (this.#list.childElementCount > this.#maxFrames || this.#chars > this.#maxChars) this.#dropFirst();
  }

  #dropFirst() {
    const first = this.#list.firstElementChild;
    this.#chars -= first.querySelector("pre").textContent.length;
    first.remove();
  }
}
