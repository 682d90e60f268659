/**
 * The chat page: the prompt, the conversation, one answer at a time, and Stop.
 *
 * The conversation is kept in the tab: after a reload it is there again, and an answer that was running goes on by its id. Of
 * a page that was left for good, the relay hears nothing more, and stops the run after its grace time.
 */

import { Account } from "./account.js";
import { Answer } from "./answer.js";
import { button, FollowingBox, make, turn } from "./dom.js";
import { streamChat } from "./rawsse.js";
import { sharedFetch } from "./tabs.js";
import { describeError } from "./words.js";

/** Characters of the conversation that are kept over a reload: its newest part. Browsers allow about 5 million. */
const MAX_KEPT_CHARS = 2_000_000;

const KEY = "rawsse.conversation";
const COPIED_MS = 2000;

/** So long events are taken in, in ms, before the browser has its turn. */
const TURN_MS = 8;

/** So many calls wait for the wire pane to be opened; of more, the newest. */
const MAX_CALLS = 20_000;

const byId = (id) => document.getElementById(id);
const [conversation, welcome, form, prompt] = ["conversation", "welcome", "form", "prompt"].map(byId);
const [stopButton, sendButton, status] = ["stop", "send", "status"].map(byId);

const box = new FollowingBox(conversation);
const account = new Account({ select: byId("model"), quota: byId("quota"), form: byId("access") }, askAgain);

let wire = null; // loaded when its pane is first opened; until then its calls wait
let calls = []; // [name, arguments, time]
let exchanges = []; // { question, element, answer, isRefused }, the oldest first
let current = null; // the answer that runs, as { chat, exchange }
let edited = null; // the exchange whose question is being changed

// --- Asking ----------------------------------------------------------------------------------------------------------

function ask(text) {
  if (edited) leaveOut(exchanges.indexOf(edited));
  stopEditing();
  reply(show(text));
}

/** Show a question; return its exchange. */
function show(question) {
  const text = make("div", "text", question);
  text.dir = "auto";
  const element = make("article", "question", make("h2", "unseen", "You"), text, button("edit", "Edit", "Edit this message"));
  const exchange = { question, element, answer: null, isRefused: false };
  exchanges.push(exchange);
  welcome.hidden = true;
  conversation.append(element);
  return exchange;
}

/** Have a question answered; or read the answer that has this run's id. */
async function reply(exchange, id) {
  for (const old of conversation.querySelectorAll(".again")) old.remove();
  exchange.isRefused = false;
  exchange.answer = new Answer(box);
  conversation.append(exchange.answer.element);
  box.toEnd();
  const run = { chat: null, exchange };
  showRunning(run);
  const ending = await read(run, id);
  tell("end", ending.kind);
  const { answer, question } = exchange;
  // A question that got nothing but an error is taken back: what was refused once would be refused with each one after it.
  exchange.isRefused = ending.kind === "failed" && !answer.hasContent;
  // To be mended there, unless the next one is being written. Before `finish`, which scrolls to what a grown prompt hides.
  if (exchange.isRefused && current === run) prompt.value ||= question;
  await answer.finish(ending, () => retry(exchange));
  if (current !== run) return;
  showIdle(ending.headline ?? (ending.kind === "stopped" ? "Stopped." : answer.summary));
  keep();
  if (ending.status === 401) account.wantToken();
  else account.showQuota();
}

function retry(exchange) {
  if (current) return;
  if (exchange.isRefused && prompt.value === exchange.question) prompt.value = "";
  exchange.answer.element.remove();
  prompt.focus();
  reply(exchange);
}

/** A token was given: ask what was refused without it. */
function askAgain() {
  prompt.focus();
  if (exchanges.at(-1)?.isRefused) retry(exchanges.at(-1));
}

/** What the API is sent: all up to the last question. */
function messages() {
  return exchanges
    .filter(({ isRefused }) => !isRefused)
    .flatMap(({ question, answer }) => [
      { role: "user", content: question },
      { role: "assistant", content: answer.text },
    ])
    .filter(({ content }) => content.trim() !== ""); // the API refuses a message without any text
}

/** Read a run to its end; return what end that is. */
async function read(run, id) {
  let isFlowing = false;
  let due = 0;
  const options = {
    id,
    token: account.token,
    fetch: sharedFetch,
    onOpen: (opened) => tell("opened", opened),
    onFrame: (raw) => tell("frame", raw),
    onLost: (lost) => {
      isFlowing = false;
      tell("lost", lost);
      say("Connection lost. Reconnecting…");
    },
  };
  tell("begin", (index) => run.exchange.answer.blockElement(index));
  try {
    run.chat = streamChat("api/chat", id ? null : { messages: messages(), ...account.choice }, options);
    keep();
    for await (const event of run.chat) {
      run.exchange.answer.take(event);
      // Events that are there already come without a pause between them.
      if (performance.now() > due) due = (await turn(), performance.now() + TURN_MS);
      if (event.type === "message_start") keep(); // the run has its id from the server now
      if (isFlowing || event.type !== "content_block_delta") continue;
      isFlowing = true; // said once, not for every token
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
  tell("note", `DELETE run ${current.chat.id}`);
  if (await current.chat.stop()) return;
  say("Stopped here, but the server could not be told. It gives up by itself in a few seconds.");
}

// --- Keeping -----------------------------------------------------------------------------------------------------------

function keep() {
  const kept = [];
  let room = MAX_KEPT_CHARS;
  for (const exchange of exchanges.toReversed()) {
    const { question, answer, isRefused } = exchange;
    const isRunning = exchange === current?.exchange;
    // What is finished is made into JSON once.
    if (!isRunning && exchange.json?.answer !== answer) exchange.json = { answer, text: JSON.stringify({ question, answer, isRefused }) };
    const text = isRunning ? JSON.stringify({ question, id: current.chat.id }) : exchange.json.text;
    room -= text.length;
    if (room < 0) break;
    kept.unshift(text);
  }
  try {
    sessionStorage.setItem(KEY, `{"model":${JSON.stringify(account.choice.model ?? null)},"exchanges":[${kept.join(",")}]}`);
  } catch {
    sessionStorage.removeItem(KEY); // the browser has less room: a reload begins a new conversation
  }
}

function restore() {
  try {
    const { model, exchanges: kept = [] } = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
    account.load(model);
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

// --- The wire pane -----------------------------------------------------------------------------------------------------

function tell(name, ...given) {
  if (wire) return wire[name](...given);
  calls.push([name, given, performance.now()]);
  if (calls.length > MAX_CALLS) calls = calls.slice(MAX_CALLS / 2);
}

async function loadWire() {
  const style = Object.assign(make("link"), { rel: "stylesheet", href: "wire.css" });
  const styled = new Promise((resolve) => (style.onload = style.onerror = resolve));
  document.head.append(style);
  const [{ Wire }] = await Promise.all([import("./wire.js"), styled]);
  if (wire) return; // loaded by another click meanwhile
  wire = new Wire(byId("frames"), { conversation });
  wire.repeat(calls);
  calls = [];
}

// --- What is said and shown ------------------------------------------------------------------------------------------

/** Say something in the status line, which screen readers read out: few and whole sentences, never tokens. */
function say(sentence, isSeen = true) {
  status.textContent = sentence;
  status.classList.toggle("unseen", !isSeen);
}

function showRunning(run) {
  current = run;
  say("Waiting for the answer…");
  stopButton.hidden = false;
  sendButton.hidden = true;
}

/** The sentence is for those who do not see the page: the answer itself shows how it ended. */
function showIdle(sentence) {
  current = null;
  say(sentence, false);
  if (document.activeElement === stopButton) prompt.focus(); // a button that vanishes would take the focus with it
  stopButton.hidden = true;
  sendButton.hidden = false;
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

function startEditing(exchange) {
  if (current) return say("An answer is still running. Escape stops it.");
  edited = exchange;
  form.classList.add("editing");
  prompt.value = exchange.question;
  prompt.focus();
  say("To send this message again leaves out what came after it. Escape cancels.");
}

function stopEditing() {
  edited = null;
  form.classList.remove("editing");
}

async function toggleWire() {
  const [pane, toggle] = ["wire", "toggle"].map(byId);
  if (!wire) await loadWire();
  pane.hidden = !pane.hidden;
  toggle.ariaExpanded = String(!pane.hidden);
  wire.toEnd();
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

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value;
  if (text.trim() === "") return;
  if (current) return say("An answer is still running. Escape stops it.");
  prompt.value = "";
  prompt.focus();
  ask(text);
});

prompt.addEventListener("keydown", (event) => {
  // An Enter that ends the input of a Japanese or Chinese word is no Enter; 229 is how Safari says so.
  const isComposing = event.isComposing || event.keyCode === 229;
  if (event.key !== "Enter" || event.shiftKey || isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (!edited) return void halt();
  stopEditing();
  prompt.value = "";
  say("");
});

conversation.addEventListener("click", ({ target }) => {
  const article = target.closest("article");
  const exchange = exchanges.find(({ element, answer }) => article && (element === article || answer?.element === article));
  if (target.matches(".example")) ask(target.textContent);
  else if (target.matches(".edit")) startEditing(exchange);
  else if (target.matches(".copy")) copy(target, target.closest(".code")?.querySelector("code").textContent ?? exchange.answer.text);
});

stopButton.addEventListener("click", halt);
byId("fresh").addEventListener("click", startAfresh);
byId("toggle").addEventListener("click", toggleWire);
byId("model").addEventListener("change", keep);
restore();
