/**
 * What the relay says to this user beside answers: the models to choose from, what is left of a quota, and whether a token is
 * wanted. The token comes from the page's own address, `http://host/#token=…` (what stands after the # is never sent, so that
 * it is in no server's log), or from a field; it is kept for the tab.
 */

import { count } from "./words.js";

const KEY = "rawsse.token";

const QUOTAS = [
  ["requests", "requests_per_minute", "requests left this minute"],
  ["tokens", "tokens_per_day", "tokens left today"],
];

export class Account {
  token = new URLSearchParams(location.hash.slice(1)).get("token") ?? sessionStorage.getItem(KEY) ?? "";
  #select;
  #quota;
  #form;

  /** `onToken` is called when the user gave a token. */
  constructor({ select, quota, form }, onToken) {
    [this.#select, this.#quota, this.#form] = [select, quota, form];
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const field = form.querySelector("input");
      this.token = field.value.trim();
      sessionStorage.setItem(KEY, this.token);
      field.value = "";
      form.hidden = true;
      this.load(this.choice.model);
      onToken();
    });
  }

  /** The model that was chosen, as a part of a request's body; nothing where there is no choice. */
  get choice() {
    return this.#select.hidden ? {} : { model: this.#select.value };
  }

  /** Ask for a token: there was none, or it was refused. */
  wantToken() {
    this.#form.hidden = false;
    this.#form.querySelector("input").focus();
  }

  async load(model) {
    const { data = [] } = (await this.#get("v1/models")) ?? {};
    this.#select.replaceChildren();
    for (const { id, display_name: name } of data) {
      this.#select.append(new Option(name || id, id, false, id === model));
    }
    this.#select.hidden = data.length < 2;
    await this.showQuota();
  }

  /** Renew what is left. A relay without limits is asked once. */
  async showQuota() {
    if (this.#quota.hidden && this.#quota.dataset.known) return;
    const me = await this.#get("me");
    if (!me) return;
    const { left = {}, limits = {} } = me;
    const known = QUOTAS.filter(([name, limit]) => left[name] !== undefined && limits[limit]);
    this.#quota.textContent = known.map(([name, limit, words]) => `${count(left[name])} of ${count(limits[limit])} ${words}`).join(" · ");
    this.#quota.hidden = known.length === 0;
    this.#quota.dataset.known = "yes";
  }

  async #get(path) {
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    const response = await fetch(path, { headers }).catch(() => null);
    if (response?.status === 401) this.wantToken();
    return response?.ok ? response.json().catch(() => null) : null;
  }
}
