/**
 * Many tabs, one connection. Over HTTP/1.1 a browser opens six connections to a host, for all its tabs together: the seventh
 * answer would wait until another one ends.
 *
 *     import { sharedFetch } from "./tabs.js";
 *
 *     streamChat("/api/chat/stream", { message: "Hello" }, { fetch: sharedFetch });
 *
 * The prompt is sent with `Prefer: respond-async`, so that its connection is free at once. One tab, the leader, reads the runs
 * of all tabs (`GET /runs?id=…&id=…`) and passes their frames on by a BroadcastChannel. A Web Lock decides which tab leads: the
 * browser gives it to the next one when that tab closes, or has read its answer. Each tab keeps its place in its run and tells
 * it to each new leader, so that no frame is lost or comes twice. A reader holds a lock as well: by it the leader sees that a
 * reader has gone, even if its tab has crashed.
 *
 * To `streamChat`, a leader that is lost is a connection that is lost: it resumes. A tab has its own connection where the
 * browser has no locks (plain HTTP, but for localhost), or no leader takes the run.
 */

import { EventStreamParser } from "./rawsse.js";

export const TAB_LIMITS = Object.freeze({
  /** The longest wait for a leader, in ms. It leaves the tab time for another connection: see `resumeMs`. */
  openMs: 2000,
  /** The runs that the relay sends over one connection. */
  maxRuns: 32,
  /** The bytes that wait in a tab that does not read them. With more of them, the connection counts as lost. */
  maxUnreadBytes: 16 * 1024 * 1024,
});

const nothing = () => {};

/**
 * A `fetch` for `streamChat`: a run of the relay is read over one connection with those of the other tabs.
 * @param {RequestInfo | URL} url @param {RequestInit} [init] @returns {Promise<Response>}
 */
export async function sharedFetch(url, init = {}) {
  const { navigator, BroadcastChannel } = globalThis;
  if (!navigator?.locks || !BroadcastChannel) return fetch(url, init);
  const headers = new Headers(init.headers);
  if (init.method === "POST" && headers.has("x-run-id")) headers.set("prefer", "respond-async");
  const [, base, run] = /^(.*\/runs)\/([\w-]{16,64})$/.exec(String(url)) ?? [];
  if (init.method !== "GET" || !run) return fetch(url, { ...init, headers });
  const after = headers.get("last-event-id") ?? "";
  headers.delete("last-event-id");
  const wanted = { run, after, base, headers: Object.fromEntries(headers) };
  // Another user's tabs are in another room. The browser's tools show its name, which therefore holds no token.
  const whole = new TextEncoder().encode(JSON.stringify([base, wanted.headers]));
  const room = `rawsse ${new Uint8Array(await crypto.subtle.digest("SHA-256", whole)).join("")}`;
  return (await new Reader(room, wanted, init.signal).response) ?? fetch(url, init);
}

/** Reads one run through the leader. `response` is null if no leader takes it. */
class Reader {
  #wanted;
  #name;
  #channel;
  #leader = ""; // whose frames are taken: those of one leader follow each other
  #over = new AbortController();
  #body = null; // the controller of its stream
  #encoder = new TextEncoder();
  #resolve;
  #reject;

  constructor(room, wanted, signal) {
    this.#wanted = wanted;
    this.#name = `${room} ${crypto.randomUUID()}`;
    this.#channel = new BroadcastChannel(room);
    this.#channel.onmessage = ({ data }) => this.#take(data);
    this.response = new Promise((resolve, reject) => ([this.#resolve, this.#reject] = [resolve, reject]));
    const over = { signal: this.#over.signal };
    const late = setTimeout(() => this.#body || this.#end(), TAB_LIMITS.openMs);
    over.signal.addEventListener("abort", () => (clearTimeout(late), this.#channel.close()));
    signal?.addEventListener("abort", () => this.#end(signal.reason), over);
    const held = () => (this.#join(), new Promise((resolve) => over.signal.addEventListener("abort", resolve)));
    navigator.locks.request(this.#name, over, held).catch(nothing);
    navigator.locks.request(room, over, () => new Leader(room, wanted, over.signal).lead()).catch(nothing);
  }

  #join() {
    const { run, after } = this.#wanted;
    this.#leader = "";
    this.#channel.postMessage({ join: this.#name, run, after });
  }

  /** Take a message of a leader. */
  #take({ leader, leads, opened, runs, lost, refused, frames }) {
    if (leads) this.#join();
    else if (opened?.includes(this.#name)) this.#open(leader, runs.includes(this.#wanted.run));
    else if (lost?.includes(this.#name)) this.#end(refused || this.#body ? null : new TypeError("the connection was lost"));
    else if (frames && leader === this.#leader) this.#pass(frames);
  }

  #open(leader, isThere) {
    this.#leader = leader;
    if (!isThere) return this.#end(); // the relay itself says why
    if (this.#body) return;
    const bound = new ByteLengthQueuingStrategy({ highWaterMark: TAB_LIMITS.maxUnreadBytes });
    const body = new ReadableStream({ start: (body) => void (this.#body = body), cancel: () => this.#over.abort() }, bound);
    this.#resolve(new Response(body, { headers: { "content-type": "text/event-stream", "x-run-id": this.#wanted.run } }));
  }

  /** Frames of all runs, as [run, id, raw]; a comment is for each. */
  #pass(frames) {
    for (const [run, id, raw] of frames) {
      if (run && run !== this.#wanted.run) continue;
      this.#wanted.after = id || this.#wanted.after;
      this.#body.enqueue(this.#encoder.encode(raw));
    }
    if (this.#body.desiredSize <= 0) this.#end(new TypeError("what came was not read"));
  }

  /** With an error, what has come and was not read yet is dropped. */
  #end(error = null) {
    if (this.#over.signal.aborted) return;
    this.#over.abort();
    if (error) this.#body?.error(error);
    else this.#body?.close();
    if (error) this.#reject(error);
    else this.#resolve(null);
  }
}

/** Reads the runs of all readers over one connection, for as long as the reader beside it lives. */
class Leader {
  #wanted;
  #over;
  #channel;
  #id = crypto.randomUUID();
  #readers = new Map(); // the run of each
  #places = new Map(); // of each run, the id of the last frame that was passed on
  #link = new AbortController();
  #isOpen = false;
  #isStale = false; // other runs are wanted than the connection brings
  #wake = nothing;

  constructor(room, wanted, over) {
    [this.#wanted, this.#over] = [wanted, over];
    this.#channel = new BroadcastChannel(room);
    this.#channel.onmessage = ({ data }) => data.join && this.#join(data);
  }

  async lead() {
    this.#over.addEventListener("abort", () => this.#change());
    this.#say({ leads: true });
    while (!this.#over.aborted) {
      if (!this.#isStale) await new Promise((resolve) => (this.#wake = resolve));
      this.#isStale = false;
      if (this.#places.size && !this.#over.aborted) await this.#connect();
    }
    this.#channel.close();
  }

  #say(message) {
    this.#channel.postMessage({ leader: this.#id, ...message });
  }

  #join({ join: name, run, after }) {
    if (this.#readers.has(name)) return;
    // Readers of one run are at one place, or they could not read the same frames.
    const canTake = this.#places.has(run) ? this.#places.get(run) === after : this.#places.size < TAB_LIMITS.maxRuns;
    if (!canTake) return this.#say({ lost: [name], refused: true });
    this.#readers.set(name, run);
    this.#places.set(run, after);
    navigator.locks.request(name, { signal: this.#over }, () => this.#leave([name]) && this.#change()).catch(nothing);
    this.#change();
  }

  /** True: a run has no reader any more. */
  #leave(names) {
    for (const name of names) this.#readers.delete(name);
    const read = [...this.#readers.values()];
    const left = [...this.#places.keys()].filter((run) => !read.includes(run));
    for (const run of left) this.#places.delete(run);
    return left.length > 0;
  }

  #change() {
    this.#isStale = true;
    // A connection that is being made comes first: then ten tabs that join are one change, or two.
    if (this.#isOpen || this.#over.aborted) this.#link.abort();
    this.#wake();
  }

  async #connect() {
    const names = [...this.#readers.keys()];
    const query = [...this.#places].map(([id, after]) => new URLSearchParams(after ? { id, after } : { id }));
    let refused = false;
    this.#link = new AbortController();
    try {
      const { base, headers } = this.#wanted;
      const response = await fetch(`${base}?${query.join("&")}`, { headers, cache: "no-store", signal: this.#link.signal });
      refused = response.status !== 200; // its readers ask for themselves, and are told why
      this.#isOpen = !this.#isStale && !refused;
      if (this.#isOpen) await this.#read(response.body.getReader(), names);
    } catch {
      // It was lost, or given up for another one.
    }
    this.#isOpen = false;
    this.#link.abort();
    if (this.#isStale && !refused) return;
    this.#leave(names);
    this.#say({ lost: names, refused });
  }

  async #read(reader, opened) {
    let [tags, frames] = [{}, []]; // the run of each tag; [run, id, raw]
    const onFrame = (raw) => {
      const [, told] = /^event: runs\ndata: (.*)/.exec(raw) ?? [];
      if (told) return this.#say({ opened, runs: Object.values((tags = JSON.parse(told).runs)) });
      const [, id = "", tag] = /^id: ((.*)-\d+)\n/.exec(raw) ?? [];
      const run = tags[tag] ?? "";
      frames.push([run, id, raw]);
      if (this.#places.has(run)) this.#places.set(run, id);
      if (raw.endsWith("data: [DONE]\n\n")) this.#places.delete(run); // it is whole: no other connection is made without it
    };
    const parser = new EventStreamParser({ onFrame });
    for (; ; frames = []) {
      const { done, value } = await reader.read();
      if (done || this.#isStale) return;
      parser.feed(value);
      this.#say({ frames });
    }
  }
}
