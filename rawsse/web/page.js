/**
 * The chat page: the prompt, the conversation, one answer at a time, and Stop.
 *
 * This file knows the page's elements and when what happens. It refuses to know how an answer travels (`rawsse.js`), how
 * it looks (`answer.js`) and what things are called (`words.js`).
 *
 * A relay that wants a token gets it from the page's own address: `http://host/#token=…`. What stands after the # is never
 * sent with the page's request, so that it is in no server's log.
 */

import { Answer } from "./answer.js";
import { FollowingBox, make } from "./dom.js";
import { streamChat } from "./rawsse.js";
import { sharedFetch } from "./tabs.js";
import { Wire } from "./wire.js";
import { describeError } from "./words.js";

const byId = (id) => document.getElementById(id);
const [conversation, welcome, form, prompt] = ["conversation", "welcome", "form", "prompt"].map(byId);
const [stopButton, sendButton, status] = ["stop", "send", "status"].map(byId);

const box = new FollowingBox(conversation);
const wire = new Wire(byId("frames"), { conversation });
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";

let messages = []; // what the API is sent: [{ role, content }]
let current = null; // the answer that runs, as { chat }

// --- Asking ----------------------------------------------------------------------------------------------------------

function ask(text) {
  const question = make("article", "question");
  question.append(make("h2", "", "You"), make("div", "text", text));
  for (const button of conversation.querySelectorAll(".again")) button.remove();
  welcome.hidden = true;
  conversation.append(question);
  messages.push({ role: "user", content: text });
  reply(messages);
}

/** Have the conversation so far answered. */
async function reply(turns) {
  const answer = new Answer(box);
  const run = { chat: null };
  conversation.append(answer.element);
  box.toEnd();
  showRunning(run);
  const ending = await read(run, turns, answer);
  wire.end(ending.kind);
  const hasText = answer.text.trim() !== ""; // the API refuses a message without any
  if (hasText) turns.push({ role: "assistant", content: answer.text });
  // A question that got nothing but an error is taken back: what was refused once would be refused with each one after it.
  const refused = ending.kind === "failed" && !answer.hasContent ? turns.pop() : null;
  // To be mended there, unless the next one is being written. Before `finish`, which scrolls to what a grown prompt hides.
  if (refused && current === run) prompt.value ||= refused.content;
  answer.finish(ending, () => {
    if (current) return;
    if (hasText) turns.pop();
    if (refused) turns.push(refused);
    if (prompt.value === refused?.content) prompt.value = "";
    answer.element.remove();
    prompt.focus();
    reply(turns);
  });
  if (current === run) showIdle(wordsFor(ending, answer));
}

/** Read a run to its end; return what end that is. */
async function read(run, turns, answer) {
  let isFlowing = false;
  const options = {
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
    run.chat = streamChat("api/chat", { messages: turns }, options);
    for await (const event of run.chat) {
      answer.take(event);
      if (isFlowing || event.type !== "content_block_delta") continue;
      isFlowing = true; // said once, not for every token
      say("Claude is answering…");
    }
  } catch (error) {
    return { kind: "failed", error };
  }
  return { kind: run.chat.ending };
}

// --- Stopping --------------------------------------------------------------------------------------------------------

/** Stop the running answer, in any phase: here at once, and on the server, so that nothing more is generated. */
async function halt() {
  if (!current || current.chat.ending) return;
  wire.note(`DELETE run ${current.chat.id}`);
  if (await current.chat.stop()) return;
  say("Stopped here, but the server could not be told. It gives up by itself in a few seconds.");
}

// --- What is said and shown ------------------------------------------------------------------------------------------

/** Say something in the status line, which screen readers read out: few and whole sentences, never tokens. */
function say(sentence) {
  status.textContent = sentence;
}

function wordsFor(ending, answer) {
  if (ending.kind === "stopped") return "Stopped.";
  if (ending.kind === "failed") return describeError(ending.error).headline;
  return answer.summary;
}

function showRunning(run) {
  current = run;
  say("Waiting for the answer…");
  stopButton.hidden = false;
  sendButton.hidden = true;
}

function showIdle(sentence) {
  current = null;
  say(sentence);
  if (document.activeElement === stopButton) prompt.focus(); // a button that vanishes would take the focus with it
  stopButton.hidden = true;
  sendButton.hidden = false;
}

function startAfresh() {
  halt();
  messages = [];
  conversation.replaceChildren(welcome);
  welcome.hidden = false;
  showIdle("");
  prompt.focus();
}

function toggleWire(event) {
  const pane = byId("wire");
  pane.hidden = !pane.hidden;
  event.currentTarget.setAttribute("aria-expanded", String(!pane.hidden));
  wire.toEnd();
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
  if (event.key === "Escape" && !event.isComposing) halt();
});

// Who leaves the page cannot come back to its answer: it is stopped, rather than paid for to the end.
addEventListener("pagehide", halt);

stopButton.addEventListener("click", halt);
byId("fresh").addEventListener("click", startAfresh);
byId("toggle").addEventListener("click", toggleWire);
