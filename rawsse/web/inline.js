/**
 * A paragraph's Markdown (CommonMark 0.31, chapter 6) as nodes: emphasis, code, links, hard breaks, and GitHub's bare links
 * and ~~strikethrough~~. HTML stays text, but for `<br>`, which models write in tables.
 *
 *     element.append(inline("**Hello**, `world`"));
 */

import { make } from "./dom.js";

/** Elements within each other. Thousands would overflow a browser's stack when it lays them out. */
const MAX_DEPTH = 16;

const SPECIAL = /[\\`*_~[\]!<&\n\uFDD0]|\bhttps?:\/\//g;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ENTITY = /&(?:#[xX]([\da-fA-F]{1,6})|#(\d{1,7})|(amp|lt|gt|quot|apos|nbsp|copy|hellip|ndash|mdash));/y;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", hellip: "…", ndash: "–", mdash: "—" };
const AUTOLINK = /<([a-z][a-z\d+.-]{1,31}:[^\s<>]*|[\w.!#$%&'*+/=?^`{|}~-]+@[\w.-]+)>/iy;
const BARE_LINK = /https?:\/\/[^\s<[\]`\uFDD0]+/y;
const nested = (inner) => String.raw`(?:[^\0-\x20()\\]|\\[^\n]|\(${inner}\))*`;
const TITLE = String.raw`"((?:[^"\\]|\\[^])*)"|'((?:[^'\\]|\\[^])*)'|\(((?:[^()\\]|\\[^])*)\)`;
const LINK_TAIL = new RegExp(
  String.raw`\([ \t\n]*(?:<((?:[^<>\n\\]|\\.)*)>|((?!<)${nested(nested(nested("")))}))(?:[ \t\n]+(?:${TITLE}))?[ \t\n]*\)`,
  "y",
);
const BREAK = /<br ?\/?>/iy;
const CITATION = /\uFDD0(\d+)\uFDD1/y;

/** Marks a place for a citation in the source. These characters stand in no text: see `cleaned`. */
export const citationMark = (number) => `\uFDD0${number}\uFDD1`;

/** A text without the characters that mark citations, and without those that no text has. */
export const cleaned = (text) => text.replace(/[\0\uFDD0\uFDD1]/g, "\uFFFD");

/** A link, if it leads where links may: to http, https or mailto. Else null. */
export function link(url, text = url) {
  if (!/^(https?:\/\/|mailto:)/i.test(url) || !URL.canParse(url)) return null;
  const element = make("a", "", text);
  Object.assign(element, { href: url, rel: "noopener noreferrer", target: "_blank", title: url });
  return element;
}

const match = (pattern, text, at) => {
  pattern.lastIndex = at;
  return pattern.exec(text);
};

const unescape = (text) =>
  text.replace(/\\([!-/:-@[-`{-~])|&[#\w]+;/g, (whole, escaped) => escaped ?? decode(match(ENTITY, whole, 0)) ?? whole);

function decode(found) {
  if (!found) return null;
  const [, hex, decimal, name] = found;
  const code = hex ? parseInt(hex, 16) : Number(decimal);
  return name ? ENTITIES[name] : code > 0 && code <= 0x10ffff ? cleaned(String.fromCodePoint(code)) : "\uFFFD";
}

/**
 * What is still being written, so that it does not jump when the rest comes: half a link shows its text, and delimiters at
 * the very end wait for what they delimit.
 */
const tidied = (text) => trimmed(text.replace(/\[([^[\]]*)\]\([^()\s]*$/, "$1"), "*_~`[");

/** A text without what it ends in of some characters. A pattern would look at each run of them from each of its places. */
export function trimmed(text, characters = " \t\n") {
  let end = text.length;
  while (end > 0 && characters.includes(text[end - 1])) end -= 1;
  return text.slice(0, end);
}

/** The nodes of a text; `isOpen` if more of it may come. `cite(number)` makes the node of a citation. */
export function inline(text, { isOpen = false, cite = () => "" } = {}) {
  return new Inline(isOpen ? tidied(text) : text, isOpen, cite).parse();
}

class Inline {
  #text;
  #at = 0;
  #isOpen;
  #cite;
  #out = document.createDocumentFragment();
  #depths = new Map();
  #last = null; // of the delimiters, which are linked in both directions
  #gathered = "";
  #order = 0;
  #brackets = [];
  #unclosed = new Set(); // lengths of backtick runs that no other closes

  constructor(text, isOpen, cite) {
    [this.#text, this.#isOpen, this.#cite] = [text, isOpen, cite];
  }

  parse() {
    const text = this.#text;
    while (this.#at < text.length) {
      const found = match(SPECIAL, text, this.#at);
      this.#add(text.slice(this.#at, found?.index));
      if (!found) break;
      this.#at = found.index;
      this.#special(found[0]);
    }
    if (this.#gathered) this.#out.append(this.#gathered);
    this.#emphasize(0);
    return this.#out;
  }

  /** Text gathers until a node comes: few long text nodes are faster than many. */
  #add(node) {
    if (typeof node === "string") {
      this.#gathered += node;
      return null;
    }
    if (this.#gathered) this.#out.append(this.#gathered);
    this.#gathered = "";
    this.#out.append(node);
    return node;
  }

  #special(character) {
    if (character === "\\") this.#backslash();
    else if (character === "`") this.#code();
    else if ("*_~".includes(character)) this.#delimiter(character);
    else if (character === "[") this.#bracket("[");
    else if (character === "]") this.#closeBracket();
    else if (character === "\n") this.#newline();
    else if (character === "!" && this.#text[this.#at + 1] === "[") this.#bracket("![");
    else if (!this.#take(character)) this.#plain(character[0]);
  }

  #plain(characters) {
    this.#at += characters.length;
    this.#add(characters);
  }

  /** Characters that may turn out to delimit something. */
  #mark(characters) {
    this.#at += characters.length;
    return this.#add(document.createTextNode(characters));
  }

  /** What one pattern recognizes: character references, links between angle brackets and bare ones, `<br>`, citations. */
  #take(character) {
    const [text, at] = [this.#text, this.#at];
    const patterns = { "&": [ENTITY], "<": [AUTOLINK, BREAK], "\uFDD0": [CITATION] }[character] ?? [BARE_LINK];
    const pattern = character === "!" ? null : patterns.find((each) => match(each, text, at));
    const found = pattern && match(pattern, text, at);
    if (!found) return false;
    let [whole, inner] = found;
    if (pattern === BARE_LINK) whole = inner = trimmedLink(whole);
    const url = pattern === AUTOLINK && !inner.includes(":") ? `mailto:${inner}` : inner;
    if (pattern === ENTITY) this.#add(decode(found));
    else if (pattern === BREAK) this.#add(make("br"));
    else if (pattern === CITATION) this.#add(this.#cite(Number(inner)));
    else this.#add(link(url, inner) ?? whole);
    this.#at += whole.length;
    return true;
  }

  #backslash() {
    const next = this.#text[this.#at + 1] ?? "";
    if (next === "\n") this.#hardBreak(2);
    else if (ESCAPABLE.test(next)) this.#plain(this.#text.slice(++this.#at, this.#at + 1));
    else this.#plain("\\");
  }

  #newline() {
    const before = this.#gathered;
    this.#gathered = trimmed(before, " ");
    if (before.length - this.#gathered.length > 1) this.#hardBreak(1);
    else this.#plain("\n");
    this.#skipSpaces();
  }

  #hardBreak(length) {
    this.#at += length;
    this.#add(make("br"));
    this.#skipSpaces();
  }

  #skipSpaces() {
    while (this.#text[this.#at] === " " || this.#text[this.#at] === "\t") this.#at += 1;
  }

  #code() {
    const text = this.#text;
    const run = match(/`+/y, text, this.#at)[0];
    const from = this.#at + run.length;
    let end = this.#unclosed.has(run.length) ? -1 : text.indexOf(run, from);
    while (end >= 0) {
      const length = match(/`+/y, text, end)[0].length;
      if (length === run.length) break;
      end = text.indexOf(run, end + length);
    }
    if (end < 0) this.#unclosed.add(run.length);
    if (end < 0 && !this.#isOpen) return this.#plain(run);
    const code = text.slice(from, end < 0 ? undefined : end).replaceAll("\n", " ");
    const isPadded = code.startsWith(" ") && code.endsWith(" ") && code.trim() !== "";
    this.#add(make("code", "", (isPadded ? code.slice(1, -1) : code).replace(/\uFDD0\d+\uFDD1/g, "")));
    this.#at = end < 0 ? text.length : end + run.length;
  }

  // Emphasis: chapter 6.2, and the procedure of the specification's appendix -----------------------------------------------

  #delimiter(character) {
    const [text, at] = [this.#text, this.#at];
    let end = at;
    while (text[end] === character) end += 1;
    const before = at === 0 ? "\n" : String.fromCodePoint(text.codePointAt(at - (/[\uDC00-\uDFFF]/.test(text[at - 1]) ? 2 : 1)));
    const after = end === text.length ? "\n" : String.fromCodePoint(text.codePointAt(end));
    const [spaceBefore, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
    const [markBefore, markAfter] = [PUNCTUATION.test(before), PUNCTUATION.test(after)];
    const isLeft = !spaceAfter && (!markAfter || spaceBefore || markBefore);
    const isRight = !spaceBefore && (!markBefore || spaceAfter || markAfter);
    const isWord = character === "_"; // within a word, it is a part of a name
    if (character === "~" && end - at !== 2) return this.#plain(text.slice(at, end));
    const node = this.#mark(text.slice(at, end));
    this.#push({
      node,
      character,
      count: end - at,
      length: end - at,
      canOpen: isLeft && (!isWord || !isRight || markBefore),
      canClose: isRight && (!isWord || !isLeft || markAfter),
    });
  }

  #push(delimiter) {
    delimiter.order = this.#order++;
    delimiter.before = this.#last;
    delimiter.after = null;
    if (this.#last) this.#last.after = delimiter;
    this.#last = delimiter;
  }

  #remove({ before, after }) {
    if (before) before.after = after;
    if (after) after.before = before;
    else this.#last = before;
  }

  /** Pair the delimiters from number `bottom` on, and forget them. */
  #emphasize(bottom) {
    const floors = new Map(); // for each kind of closer: below this number there is no opener for it
    let closer = this.#last;
    while (closer?.before && closer.before.order >= bottom) closer = closer.before;
    while (closer && closer.order >= bottom) {
      const kind = `${closer.character}${closer.canOpen}${closer.length % 3}`;
      const opener = closer.canClose ? this.#openerOf(closer, floors.get(kind) ?? bottom) : null;
      if (opener && this.#wrap(opener, closer)) {
        if (closer.count > 0) continue;
        this.#remove(closer);
      } else if (closer.canClose) {
        floors.set(kind, closer.order);
        if (!closer.canOpen) this.#remove(closer);
      }
      closer = closer.after;
    }
    if (this.#isOpen && bottom === 0) this.#closeOpen();
    while (this.#last && this.#last.order >= bottom) this.#remove(this.#last);
  }

  #openerOf(closer, floor) {
    for (let opener = closer.before; opener && opener.order >= floor; opener = opener.before) {
      if (opener.character !== closer.character || !opener.canOpen) continue;
      // "If one of the delimiters can both open and close emphasis, then the sum of the lengths … must not be a multiple of 3
      // unless both lengths are multiples of 3."
      const isOdd = (opener.canClose || closer.canOpen) && closer.length % 3 !== 0 && (opener.length + closer.length) % 3 === 0;
      if (!isOdd) return opener;
    }
    return null;
  }

  /** Put what stands between two delimiters, or after the first, into an element. False: that would be too deep. */
  #wrap(opener, closer) {
    const size = Math.min(2, opener.count, closer?.count ?? 2);
    const element = make(opener.character === "~" ? "del" : size === 2 ? "strong" : "em");
    if (!this.#enclose(element, opener.node, closer?.node)) return false;
    for (const side of closer ? [opener, closer] : [opener]) {
      side.count -= size;
      side.node.data = side.node.data.slice(size);
      if (side.count === 0) side.node.remove();
    }
    while (closer && closer.before !== opener) this.#remove(closer.before);
    if (opener.count === 0) this.#remove(opener);
    return true;
  }

  /** Move the nodes after `first` and before `end` into an element, which takes their place. */
  #enclose(element, first, end = null) {
    const nodes = [];
    for (let node = first.nextSibling; node !== end; node = node.nextSibling) nodes.push(node);
    const depth = 1 + nodes.reduce((most, node) => Math.max(most, this.#depths.get(node) ?? 0), 0);
    if (depth > MAX_DEPTH) return false;
    this.#depths.set(element, depth);
    element.append(...nodes);
    first.after(element);
    return true;
  }

  /** What was opened and may still be closed is shown as if it were. */
  #closeOpen() {
    for (let opener = this.#last; opener; opener = opener.before) {
      while (opener.canOpen && opener.count && opener.node.nextSibling) if (!this.#wrap(opener, null)) return;
    }
  }

  // Links -----------------------------------------------------------------------------------------------------------------

  #bracket(mark) {
    this.#brackets.push({ node: this.#mark(mark), isImage: mark !== "[", isActive: true, bottom: this.#order });
  }

  #closeBracket() {
    const bracket = this.#brackets.pop();
    const tail = bracket?.isActive ? match(LINK_TAIL, this.#text, this.#at + 1) : null;
    if (!tail) return this.#plain("]");
    this.#add(document.createTextNode("")); // what was gathered belongs to the link
    this.#emphasize(bracket.bottom);
    // An image is loaded from nowhere: the page's policy forbids it, and its address would tell that it was seen.
    const element = link(unescape(tail[1] ?? tail[2] ?? ""), "") ?? make("span");
    if (!this.#enclose(element, bracket.node)) return this.#plain("]");
    const title = tail[3] ?? tail[4] ?? tail[5];
    if (title && element.href) element.title = `${unescape(title)} (${element.title})`;
    for (const inner of element.querySelectorAll("a")) inner.replaceWith(...inner.childNodes); // no link within a link
    bracket.node.remove();
    this.#at += 1 + tail[0].length;
    if (!bracket.isImage) for (const other of this.#brackets) other.isActive &&= other.isImage;
  }
}

/** A bare link without the punctuation of the sentence that it stands in (GitHub Flavored Markdown, 6.9). */
function trimmedLink(url) {
  let surplus = url.split(")").length - url.split("(").length;
  let end = url.length;
  for (; end > 0; end -= 1) {
    const last = url[end - 1];
    if (last === ")" && surplus > 0) surplus -= 1;
    else if (!"?!.,:;*_~'\"".includes(last)) break;
  }
  return url.slice(0, end);
}
