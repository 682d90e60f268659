/**
 * The chat page: the prompt, the conversation, one answer at a time, and Stop.
 *
 * The conversation is kept in the tab: it survives a reload, and a running answer is resumed by its id. When a page is closed
 * for good, the relay has no reader for its run, and stops it after the grace period.
 */

import { Answer, count, describeError, FollowingBox, turn } from "./answer.js";
import { button, make } from "./markdown.js";
import { streamChat } from "./rawsse.js";
import { sharedFetch } from "./tabs.js";
import { Wire } from "./wire.js";

/** Characters of the conversation that are kept over a reload: its newest part. Browsers allow about 5 million. */
const MAX_KEPT_CHARS = 2_000_000;

const KEY = "rawsse.conversation";
const TOKEN_KEY = "rawsse.token";
const COPIED_MS = 2000;

/** How long events are processed, in ms, before yielding to the browser. */
const TURN_MS = 8;

const elements = [...document.querySelectorAll("[id]")].map((element) => [element.id, element]);
const { conversation, welcome, form, prompt, stop, send, status, fresh, toggle, frames, ...others } = Object.fromEntries(elements);
const { model, quota, access, token: field, wire: pane } = others;

const box = new FollowingBox(conversation);
const wire = new Wire(frames, { conversation });

let exchanges = []; // { question, element, answer, isRefused }, the oldest first
let current = null; // the running answer, as { chat, exchange }
let edited = null; // the exchange whose question is being changed

// From the page's own address, `http://host/#token=…`, or from a field; it is kept for the tab. Browsers never send the part after
// the #, so that the token is in no server's log.
let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? sessionStorage.getItem(TOKEN_KEY) ?? "";

// --- Asking ----------------------------------------------------------------------------------------------------------

function ask(text) {
  if (edited) leaveOut(exchanges.indexOf(edited));
  stopEditing();
  reply(show(text));
}

/** Show a question; return its exchange. */
function show(question) {
  const text = Object.assign(make("div", "text", question), { dir: "auto" });
  const edit = button("edit", "Edit", { ariaLabel: "Edit this message", onclick: () => startEditing(exchange) });
  const element = make("article", "question", make("h2", "unseen", "You"), text, edit);
  const exchange = { question, element, answer: null, isRefused: false };
  exchanges.push(exchange);
  welcome.hidden = true;
  conversation.append(element);
  return exchange;
}

/** Answer a question, or resume the answer with this run id. */
async function reply(exchange, id) {
  for (const old of conversation.querySelectorAll(".again")) old.remove();
  exchange.isRefused = false;
  exchange.answer = new Answer(box, !id);
  conversation.append(exchange.answer.element);
  box.toEnd();
  const run = (current = { chat: null, exchange });
  say("Waiting for the answer…");
  [stop.hidden, send.hidden] = [false, true];
  const ending = await read(run, id);
  wire.end(ending.kind);
  const { answer, question } = exchange;
  // A question that got only an error is taken back: it would be rejected again with each later one.
  exchange.isRefused = ending.kind === "failed" && !answer.hasContent;
  // To be mended there, unless the next one is being written. Before `finish`, which scrolls to what a grown prompt hides.
  if (exchange.isRefused && current === run) prompt.value ||= question;
  await answer.finish(ending, () => retry(exchange));
  if (current !== run) return;
  showIdle(ending.headline ?? (ending.kind === "stopped" ? "Stopped." : answer.summary));
  keep();
  if (ending.status === 401) wantToken();
  else showQuota();
}

function retry(exchange) {
  if (current) return;
  if (exchange.isRefused && prompt.value === exchange.question) prompt.value = "";
  exchange.answer.element.remove();
  prompt.focus();
  reply(exchange);
}

/** The messages for the API: all up to the last question. */
function messages() {
  return exchanges
    .filter(({ isRefused }) => !isRefused)
    .flatMap(({ question, answer }) => [
      { role: "user", content: question },
      { role: "assistant", content: answer.text },
    ])
    .filter(({ content }) => content.trim() !== ""); // the API rejects a message without text
}

/** The model that was chosen, as a part of a request's body; nothing where there is no choice. */
const choice = () => (model.hidden ? {} : { model: model.value });

/** Read a run to its end; return what end that is. */
async function read(run, id) {
  const { answer } = run.exchange;
  let isFlowing = false;
  let due = 0;
  const options = {
    id,
    token,
    fetch: sharedFetch,
    onOpen: (opened) => wire.opened(opened),
    onFrame: (raw) => wire.frame(raw),
    onLost: (lost) => {
      isFlowing = false;
      wire.lost(lost);
      say("Connection lost. Reconnecting…");
    },
  };
  wire.begin((index) => answer.blockElement(index));
  try {
    run.chat = streamChat("api/chat", id ? null : { messages: messages(), ...choice() }, options);
    keep();
    for await (const event of run.chat) {
      answer.take(event);
      // Available events arrive without a pause between them.
      if (performance.now() > due) due = (await turn(), performance.now() + TURN_MS);
      if (event.type === "message_start") keep(); // the server has now assigned the run's id
      if (isFlowing || event.type !== "content_block_delta") continue;
      isFlowing = true; // announced once, not for every token
      say("Claude is answering…");
    }
  } catch (error) {
    return { kind: "failed", status: error.status, ...describeError(error) };
  }
  return { kind: run.chat.ending };
}

/** Stop the running answer, in any phase: here at once, and on the server, so that nothing more is generated. */
async function halt() {
  if (!current || current.chat.ending) return;
  wire.note(`DELETE run ${current.chat.id}`);
  if (await current.chat.stop()) return;
  say("Stopped here, but the server could not be reached. It stops in a few seconds.");
}

// --- Keeping -----------------------------------------------------------------------------------------------------------

function keep() {
  const kept = [];
  let room = MAX_KEPT_CHARS;
  for (const exchange of exchanges.toReversed()) {
    const { question, answer, isRefused } = exchange;
    const text = JSON.stringify(exchange === current?.exchange ? { question, id: current.chat.id } : { question, answer, isRefused });
    room -= text.length;
    if (room < 0) break;
    kept.unshift(text);
  }
  try {
    sessionStorage.setItem(KEY, `{"model":${JSON.stringify(choice().model ?? null)},"exchanges":[${kept.join(",")}]}`);
  } catch {
    sessionStorage.removeItem(KEY); // the browser has less room: a reload begins a new conversation
  }
}

function restore() {
  try {
    const { model: chosen, exchanges: kept = [] } = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
    load(chosen);
    showKept(kept);
  } catch {
    sessionStorage.removeItem(KEY); // another program wrote it, or another version of this one
    startAfresh();
  }
}

function showKept(kept) {
  for (const { question, answer, isRefused, id } of kept) {
    const exchange = Object.assign(show(question), { isRefused });
    if (id) return void reply(exchange, id);
    const isLast = exchanges.length === kept.length;
    exchange.answer = Answer.from(box, answer, () => retry(exchange), isLast);
    conversation.append(exchange.answer.element);
  }
  box.toEnd();
}

/** Leave out the exchanges from this one on. */
function leaveOut(from) {
  for (const { element, answer } of exchanges.splice(from)) {
    element.remove();
    answer?.element.remove();
  }
}

// --- Models, quota, token ------------------------------------------------------------------------------------------------

/** Ask for a token: it is missing, or was refused. */
function wantToken() {
  access.hidden = false;
  field.focus();
  if (token) say("Invalid token.");
}

/** The models to choose from, and what is left of a quota. */
async function load(chosen) {
  const { data = [] } = (await get("v1/models")) ?? {};
  model.replaceChildren(...data.map(({ id, display_name: name }) => new Option(name || id, id, false, id === chosen)));
  model.hidden = data.length < 2;
  await showQuota();
}

/** Renew what is left. A relay without limits is asked once. */
async function showQuota() {
  if (quota.hidden && quota.dataset.known) return;
  const me = await get("me");
  if (!me) return;
  const { left = {}, limits = {} } = me;
  const told = (n, limit, words) => n !== undefined && limit && `${count(n)} of ${count(limit)} ${words}`;
  const known = [
    told(left.requests_per_minute, limits.requests_per_minute, "requests left this minute"),
    told(left.tokens_per_day, limits.tokens_per_day, "tokens left today"),
  ].filter(Boolean);
  quota.textContent = known.join(" · ");
  quota.hidden = known.length === 0;
  quota.dataset.known = "yes";
}

async function get(path) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers }).catch(() => null);
  if (response?.status === 401) wantToken();
  return response?.ok ? response.json().catch(() => null) : null;
}

// --- The status line, and states of the page -----------------------------------------------------------------------------

/**
 * Say something in the status line, which screen readers read out: few and whole sentences, never tokens. The conversation is
 * a silent log.
 */
function say(sentence, isSeen = true) {
  status.textContent = sentence;
  status.classList.toggle("unseen", !isSeen);
}

/** The sentence is for those who do not see the page: the answer itself shows how it ended. */
function showIdle(sentence) {
  current = null;
  say(sentence, false);
  if (document.activeElement === stop) prompt.focus(); // the focus would be lost with the button
  [stop.hidden, send.hidden] = [true, false];
}

function startAfresh() {
  halt();
  stopEditing();
  leaveOut(0);
  welcome.hidden = false;
  showIdle("");
  keep();
  prompt.focus();
}

const isBusy = () => current && (say("An answer is still running. Escape stops it."), true);

function startEditing(exchange) {
  if (isBusy()) return;
  edited = exchange;
  form.classList.add("editing");
  prompt.value = exchange.question;
  prompt.focus();
  say("Sending this again removes everything after it. Escape cancels.");
}

function stopEditing() {
  edited = null;
  form.classList.remove("editing");
}

async function copy(source, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return say("The browser does not allow this page to copy."); // over plain HTTP, for one
  }
  say("Copied.", false);
  source.textContent = "Copied";
  setTimeout(() => (source.textContent = "Copy"), COPIED_MS);
}

// --- Keys and buttons ------------------------------------------------------------------------------------------------

form.onsubmit = (event) => {
  event.preventDefault();
  const text = prompt.value;
  if (text.trim() === "" || isBusy()) return;
  prompt.value = "";
  prompt.focus();
  ask(text);
};

/** A token was given: ask what was refused without it. */
access.onsubmit = (event) => {
  event.preventDefault();
  token = field.value.trim();
  sessionStorage.setItem(TOKEN_KEY, token);
  access.reset();
  access.hidden = true;
  load(choice().model);
  prompt.focus();
  if (exchanges.at(-1)?.isRefused) retry(exchanges.at(-1));
};

prompt.onkeydown = (event) => {
  // An Enter that ends the input of a Japanese or Chinese word does not send; in Safari its key code is 229.
  const isComposing = event.isComposing || event.keyCode === 229;
  if (event.key !== "Enter" || event.shiftKey || isComposing) return;
  event.preventDefault();
  form.requestSubmit();
};

document.onkeydown = (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (!edited) return void halt();
  stopEditing();
  prompt.value = "";
  say("");
};

conversation.addEventListener("click", ({ target }) => {
  if (target.matches(".example")) return ask(target.textContent);
  if (!target.matches(".copy")) return;
  const code = target.closest(".code")?.querySelector("code");
  copy(target, code?.textContent ?? exchanges.find(({ answer }) => answer?.element.contains(target)).answer.text);
});

toggle.onclick = () => {
  pane.hidden = !pane.hidden;
  toggle.ariaExpanded = !pane.hidden;
  wire.redraw();
};

stop.onclick = halt;
fresh.onclick = startAfresh;
model.onchange = keep;
restore();
