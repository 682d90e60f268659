// Highlights an event everywhere on the page: its row, its mark in the picture, and its text in the message.
"use strict";
const message = document.querySelector(".message");
let lit = null;
function light(number) {
  if (number === lit) return;
  document.querySelectorAll(".lit").forEach((element) => element.classList.remove("lit"));
  lit = number;
  if (number === null) return;
  document.querySelectorAll(`[data-e="${CSS.escape(number)}"]`).forEach((element) => element.classList.add("lit"));
}
function show(number) {
  const piece = document.getElementById(`m${number}`);
  if (!piece || message.scrollHeight <= message.clientHeight) return;
  const [inner, outer] = [piece.getBoundingClientRect(), message.getBoundingClientRect()];
  if (inner.top < outer.top || inner.bottom > outer.bottom)
    message.scrollTop += inner.top - outer.top - outer.height / 3;
}
function follow(event) {
  const found = event.target.closest("[data-e]");
  light(found ? found.dataset.e : null);
  if (found && !message.contains(found)) show(found.dataset.e);
}
document.addEventListener("pointerover", follow);
document.addEventListener("focusin", follow);
