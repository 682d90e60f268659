/**
 * Markdown as it streams: blocks of CommonMark 0.31 and GitHub's tables, made by DOM calls only. No HTML is ever parsed.
 *
 *     const markdown = new Markdown(element);
 *     markdown.append("# Ti");
 *     markdown.draw();                              // false if the time that it was given ran out: draw again
 *     markdown.append("tle\n");
 *     markdown.end();                               // then draw once more
 *
 * Each whole line is taken in once, so that the work is linear, and what it finished is not touched again: its nodes keep
 * a reader's selection. Only the last line, while it is not whole, is drawn, taken back and drawn again.
 *
 * Left out: HTML (it stays text), link reference definitions, and the titles of links.
 */

/** An element with texts and nodes in it; those that are "", null or false are left out. */
export function make(tag, className = "", ...parts) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...parts.filter(Boolean));
  return element;
}

export const button = (className, text, more) => Object.assign(make("button", className, text), { type: "button", ...more });

/** Blocks within each other; deeper ones are text. */
const MAX_DEPTH = 24;

/** The kind of block that a line begins is decided by this many of its characters. */
const LONG_LINE = 4096;

/** A paragraph that is longer than two pieces of this length is drawn and laid out in pieces, each of them once. */
const PIECE = 2048;

/** Blocks of a long document that are laid out together: a browser looks at each child of what has grown. */
const GROUP = 64;

/** Lines of code that are laid out together. */
const CODE_LINES = 200;

const FENCE = /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})[ \t]*([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const SETEXT = /^ {0,3}(=+|-+)[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^ {0,3}([-+*]|(\d{1,9})([.)]))(?=[ \t]|$)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** The beginning of a line that may still become anything: it is shown with its next character. */
const UNDECIDED = /^[ \t]*(?:[-=_*+#>|:`~ \t]*|\d{1,9}[.)]?[ \t]*)$/;

const RTL = /^\P{L}*[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;

// Not `trim`, which takes more than Markdown calls white space.
const unindented = (line) => line.replace(/^[ \t]+/, "");

const isBlank = (line) => /^[ \t]*$/.test(line);

/** The white space that a line begins with, or its first columns: as [characters, columns]. */
function indentation(line, columns = Infinity) {
  let [at, column] = [0, 0];
  for (; column < columns && (line[at] === " " || line[at] === "\t"); at += 1) column += line[at] === " " ? 1 : 4 - (column % 4);
  return [at, column];
}

const indentOf = (line) => indentation(line)[1];

/** A line without its first columns, if they are white. */
function dedent(line, columns) {
  const [at, column] = indentation(line, columns);
  return " ".repeat(Math.max(0, column - columns)) + line.slice(at);
}

/** The cells of a table's row. */
function cellsOf(row) {
  const cells = row.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/);
  return cells.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function truncate(element, length) {
  for (let surplus = element.childNodes.length - length; surplus > 0; surplus -= 1) element.lastChild.remove();
}

/** Gives a list, a quote or a table the direction of its first letter. Not dir="auto": with each change of a long one, Chromium
 * would look for that letter again. Text within finds its own direction (`unicode-bidi: plaintext`). */
function directed(element, text) {
  element.dir = RTL.test(text) ? "rtl" : "ltr";
  return element;
}

/** A box that scrolls sideways, by keyboard too. */
function scroller(tag, className, label) {
  return Object.assign(make(tag, className), { tabIndex: 0, role: "group", ariaLabel: label });
}

// --- Blocks that take lines: `content` is the element that grows -------------------------------------------------------

/** A paragraph or heading. Pieces that are finished stay; `kept` counts their nodes, `text` is the rest. */
class Prose {
  kept = 0;
  drawn = ""; // "open", "whole"

  constructor(element, text, cite) {
    Object.assign(this, { element, content: element, text, cite });
  }

  add(text) {
    this.text += text;
    this.drawn = "";
  }

  draw(isOpen = false) {
    const wanted = isOpen ? "open" : "whole";
    if (this.drawn === wanted) return;
    this.drawn = wanted;
    truncate(this.content, this.kept);
    while (this.text.length > 2 * PIECE) this.#keep();
    // A line with bars may be the head of a table: the next line tells.
    const text = isOpen ? this.text.replace(/(^|\n)\|[^\n]*$/, "") : trimmed(this.text);
    this.content.append(inline(text, { isOpen, cite: this.cite }));
  }

  #keep() {
    const space = this.text.slice(PIECE, 2 * PIECE).search(/\s/);
    let end = PIECE + (space < 0 ? PIECE : space + 1);
    if (/[\uDC00-\uDFFF]/.test(this.text[end])) end -= 1;
    this.content.append(make("span", "piece", inline(this.text.slice(0, end), { cite: this.cite })));
    this.kept = this.content.childNodes.length;
    this.text = this.text.slice(end);
  }
}

class Code {
  lines = 0;
  blanks = ""; // of indented code, which does not end in blank lines

  constructor(language, fence = "", indent = 0) {
    Object.assign(this, { fence, indent });
    this.content = make("span");
    this.code = make("code", "", this.content);
    const pre = scroller("pre", "", language ? `Code, ${language}` : "Code");
    pre.dir = "ltr";
    pre.append(this.code);
    const bar = make("div", "bar", make("span", "language", language), button("copy", "Copy", { ariaLabel: "Copy the code" }));
    this.element = make("div", "code", bar, pre);
  }

  add(text) {
    const plain = text.replace(/\uFDD0\d+\uFDD1/g, "");
    if (plain) this.content.append(plain);
  }

  addLine(line) {
    const isNext = this.lines > 0 && this.lines % CODE_LINES === 0;
    if (isNext) this.add("\n");
    if (isNext) this.code.append((this.content = make("span")));
    this.add(this.lines > 0 && !isNext ? `\n${line}` : line);
    this.lines += 1;
  }
}

class Table {
  constructor(header, delimiters, cite) {
    this.cite = cite;
    const sides = { "::": "center", "-:": "right", ":-": "left" };
    this.aligns = cellsOf(delimiters).map((cell) => sides[cell[0] + cell.at(-1)] ?? "");
    this.content = make("tbody");
    const head = make("thead", "", this.#row("th", header));
    const table = directed(make("table", "", head, this.content), header);
    this.element = scroller("div", "table", "Table");
    this.element.append(table);
  }

  addLine(line) {
    this.content.append(this.#row("td", line));
  }

  /** The rest of a row that is as long as no row is. */
  add(text) {
    this.content.lastChild.lastChild.append(text);
  }

  #row(tag, line) {
    const [row, cells] = [make("tr"), cellsOf(line)];
    this.aligns.forEach((align, i) => {
      row.append(make(tag, align, inline(cells[i] ?? "", { cite: this.cite })));
    });
    return row;
  }
}

// --- The document ------------------------------------------------------------------------------------------------------

export class Markdown {
  #root;
  #cite;
  #tail = ""; // of the source: what is not taken in
  #isLong = false; // the tail goes on with a line whose beginning is taken in
  #isEnded = false;
  #open; // containers: { kind, element, … }, the outermost first
  #leaf = null; // the block that takes the text of the next line: a paragraph, code or a table
  #before = null; // how all was before the unfinished line

  /** `cite(number)` makes the node of a citation, marked in the source by `citationMark(number)`. */
  constructor(element, { cite } = {}) {
    this.#root = element;
    this.#open = [{ kind: "document", element }];
    this.#cite = cite;
  }

  append(text) {
    this.#tail += text;
  }

  end() {
    this.#isEnded = true;
  }

  /** Draw what was appended, or as much of it as there is time for until `performance.now()` is `until`. */
  draw(until = Infinity) {
    this.#takeBack();
    // A CR may be half of a CRLF.
    const text = this.#isEnded || !this.#tail.endsWith("\r") ? this.#tail : this.#tail.slice(0, -1);
    const end = /\r\n?|\n/g;
    let [start, isInTime] = [0, true];
    for (let found; isInTime && (found = end.exec(text)); isInTime = performance.now() < until) {
      this.#take(text.slice(start, found.index));
      this.#isLong = false;
      start = end.lastIndex;
    }
    this.#tail = this.#tail.slice(start);
    if (isInTime) this.#takeUnfinished(text.slice(start));
    if (isInTime && this.#isEnded) this.#close(1);
    this.#leaf?.draw?.(true);
    return isInTime;
  }

  /** Take in a line, or more of a long one. However a long line is cut, what it begins is decided by the same beginning. */
  #take(line) {
    if (this.#isLong) this.#leaf?.add(line);
    else this.#line(line.slice(0, LONG_LINE), line.slice(LONG_LINE), false);
  }

  #takeUnfinished(line) {
    if (this.#isEnded || this.#isLong || line.length > LONG_LINE) {
      if (line) this.#take(line);
      this.#isLong = true;
      this.#tail = this.#tail.slice(line.length);
    } else if (!(this.#leaf instanceof Code ? /^[ \t>]*[`~]*$/ : UNDECIDED).test(line)) {
      this.#remember();
      this.#line(line, "", true);
    }
  }

  // The unfinished line is taken back before the next drawing ---------------------------------------------------------------

  #remember() {
    const [leaf, open] = [this.#leaf, this.#open];
    this.#before = {
      open: open.map((container) => [container, { ...container }, container.element.childNodes.length]),
      groups: this.#root.childNodes.length,
      leaf: leaf && [leaf, { ...leaf }, leaf.kept ?? leaf.content.childNodes.length, leaf.code?.childNodes.length],
    };
  }

  #takeBack() {
    if (!this.#before) return;
    const { open, leaf, groups } = this.#before;
    this.#before = null;
    truncate(this.#root, groups);
    for (const [container, fields, count] of open) {
      Object.assign(container, fields);
      truncate(container.element, count);
      if (container.kind === "list") container.element.classList.toggle("loose", container.isLoose);
    }
    this.#open = open.map(([container]) => container);
    this.#leaf = leaf && Object.assign(leaf[0], leaf[1]);
    if (!leaf) return;
    truncate(this.#leaf.content, leaf[2]);
    if (leaf[3]) truncate(this.#leaf.code, leaf[3]);
    this.#leaf.drawn = "";
  }

  // Lines: the procedure of the specification's appendix --------------------------------------------------------------------

  /** Take in a line; `more` is what follows the beginning of a long one. */
  #line(line, more, isPartial) {
    let [depth, rest] = this.#continued(line);
    const isWithin = depth === this.#open.length;
    if (isWithin && this.#leaf instanceof Code && this.#codeLine(rest + more, isPartial)) return;
    if (isWithin && this.#leaf instanceof Prose && !isPartial && !more && this.#underline(rest)) return;
    const matched = depth;
    [depth, rest] = this.#containers(depth, rest);
    const isText = !isBlank(rest) && (more || !(HEADING.test(rest) || FENCE.test(rest) || RULE.test(rest)));
    // Also where the line lacks the markers of the containers that the paragraph stands in: "laziness".
    if (isText && this.#leaf instanceof Prose) this.#leaf.add(`\n${unindented(rest)}${more}`);
    else if (isText && this.#leaf instanceof Table && isWithin) this.#leaf.addLine(rest + more);
    else if (!isBlank(rest)) this.#begin(depth, rest, more, isPartial);
    else this.#close(depth, depth === matched);
  }

  /** How many of the open containers the line goes on with, and the line without their markers. */
  #continued(line) {
    let [depth, rest] = [1, line];
    for (; depth < this.#open.length; depth += 1) {
      const { kind, width, element } = this.#open[depth];
      if (kind === "quote") {
        if (!QUOTE.test(rest)) break;
        rest = rest.replace(QUOTE, "");
      } else if (kind === "item") {
        // An item may begin with one blank line, not with two.
        if (isBlank(rest) ? element.childNodes.length === 0 : indentOf(rest) < width) break;
        rest = dedent(rest, width);
      }
    }
    return [depth, rest];
  }

  #codeLine(line, isPartial) {
    const { fence, indent } = this.#leaf;
    if (fence) {
      const closing = trimmed(unindented(line));
      const isEnd = closing.length >= fence.length && closing === fence[0].repeat(closing.length) && indentOf(line) < 4;
      if (isEnd && !isPartial) this.#close(this.#open.length);
      else this.#leaf.addLine(dedent(line, Math.min(indent, indentOf(line))));
    } else if (isBlank(line)) {
      this.#leaf.blanks += `${dedent(line, 4)}\n`;
      this.#markBlank();
    } else if (indentOf(line) >= 4) {
      for (const blank of this.#leaf.blanks.split("\n").slice(0, -1)) this.#leaf.addLine(blank);
      this.#leaf.blanks = "";
      this.#leaf.addLine(dedent(line, 4));
    } else {
      return false;
    }
    return true;
  }

  /** A line that makes a heading or a table of the paragraph above it. */
  #underline(line) {
    const leaf = this.#leaf;
    const depth = this.#open.length;
    const setext = SETEXT.exec(line);
    const at = leaf.text.lastIndexOf("\n") + 1;
    const header = leaf.text.slice(at);
    if (setext) {
      const heading = make(setext[1][0] === "=" ? "h3" : "h4");
      heading.append(...leaf.content.childNodes);
      leaf.element.replaceWith(heading);
      leaf.content = heading;
      this.#close(depth);
    } else if (DELIMITERS.test(line) && `${line}${header}`.includes("|") && cellsOf(header).length === cellsOf(line).length) {
      leaf.text = trimmed(leaf.text.slice(0, at));
      leaf.drawn = "";
      if (!leaf.text && !leaf.kept) leaf.element.remove();
      this.#close(depth);
      this.#add(depth, new Table(header, line, this.#cite));
    } else {
      return false;
    }
    return true;
  }

  /** Open the block quotes and list items that the line begins. */
  #containers(depth, rest) {
    while (!isBlank(rest) && depth < MAX_DEPTH && indentOf(rest) < 4) {
      const item = RULE.test(rest) ? null : this.#itemOf(depth, rest);
      if (QUOTE.test(rest)) {
        rest = rest.replace(QUOTE, "");
        depth = this.#enter(depth, { kind: "quote", element: directed(make("blockquote"), rest) });
      } else if (item) {
        const { key, width, number } = item;
        rest = item.rest;
        if (this.#open[depth - 1].key !== key) {
          const element = directed(make(number === undefined ? "ul" : "ol"), rest);
          if (number > 1 || number === 0) element.start = number;
          depth = this.#enter(depth, { kind: "list", key, element, isLoose: false });
        }
        depth = this.#enter(depth, { kind: "item", width, element: make("li") });
      } else {
        break;
      }
    }
    return [depth, rest];
  }

  #itemOf(depth, line) {
    const found = ITEM.exec(line);
    if (!found) return null;
    const [marker, bullet, digits, delimiter] = found;
    const content = line.slice(marker.length);
    const number = digits === undefined ? undefined : Number(digits);
    // A paragraph is interrupted by a list only if that has text, and begins with 1.
    const isInterrupting = this.#leaf instanceof Prose && depth === this.#open.length;
    if (isInterrupting && (isBlank(content) || (number ?? 1) !== 1)) return null;
    const spaces = isBlank(content) || indentOf(content) > 4 ? 1 : indentOf(content);
    return { key: delimiter ?? bullet, number, width: marker.length + spaces, rest: dedent(content, spaces) };
  }

  #begin(depth, line, more, isPartial) {
    depth = this.#leave(depth);
    const heading = more ? null : HEADING.exec(line);
    const fence = more ? null : FENCE.exec(line);
    if (indentOf(line) >= 4) {
      this.#add(depth, new Code("")).addLine(dedent(line, 4) + more);
    } else if (heading) {
      const text = trimmed(trimmed(unindented(line.slice(heading[0].length))).replace(/(^|[ \t]+)#+$/, ""));
      this.#add(depth, new Prose(make(`h${Math.min(6, heading[1].length + 2)}`), text, this.#cite)).draw(isPartial);
      this.#leaf = null;
    } else if (fence) {
      this.#add(depth, new Code(fence[2], fence[1], indentOf(line)));
    } else if (!more && RULE.test(line)) {
      this.#add(depth, { element: make("hr") });
      this.#leaf = null;
    } else {
      this.#add(depth, new Prose(make("p"), unindented(line) + more, this.#cite));
    }
  }

  /** A blank line makes a list loose if more comes after it: see `#append`. */
  #markBlank() {
    for (let i = this.#open.length - 1; i > 0 && this.#open[i].kind !== "quote"; i -= 1) this.#open[i].isBlank = true;
  }

  #close(depth, isBlank = false) {
    this.#leaf?.draw?.();
    this.#leaf = null;
    this.#open.length = depth;
    if (isBlank) this.#markBlank();
  }

  /** Close what is deeper; a list, too, since it takes nothing but items. */
  #leave(depth) {
    const left = this.#open[depth - 1].kind === "list" ? depth - 1 : depth;
    this.#close(left);
    return left;
  }

  #enter(depth, container) {
    depth = container.kind === "item" ? depth : this.#leave(depth);
    this.#close(depth);
    this.#append(depth, container.element);
    this.#open.push(container);
    return depth + 1;
  }

  #add(depth, leaf) {
    this.#append(depth, leaf.element);
    this.#leaf = leaf;
    return leaf;
  }

  #append(depth, element) {
    const parent = this.#open[depth - 1];
    const list = parent.kind === "item" ? this.#open[depth - 2] : parent;
    if (parent.isBlank && list.kind === "list" && parent.element.childNodes.length) {
      list.isLoose = true;
      list.element.classList.add("loose");
    }
    for (const container of this.#open) container.isBlank = false;
    if (depth === 1 && parent.element.childNodes.length >= GROUP) this.#root.append((parent.element = make("div", "group")));
    parent.element.append(element);
  }
}

// --- A paragraph: chapter 6 of CommonMark, GitHub's bare links and ~~strikethrough~~ --------------------------------------

/** Elements within each other. Thousands would overflow a browser's stack when it lays them out. */
const MAX_NESTED = 16;

const SPECIAL = /[\\`*_~[\]!<&\n\uFDD0]|\bhttps?:\/\//g;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const BEFORE = [/(?<=^|\s)/uy, /(?<=[\p{P}\p{S}])/uy];
const AFTER = [/(?=\s|$)/uy, /(?=[\p{P}\p{S}])/uy];
const ENTITY = /&(?:#[xX]([\da-fA-F]{1,6})|#(\d{1,7})|(amp|lt|gt|quot|apos|nbsp|copy|hellip|ndash|mdash));/y;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", hellip: "…", ndash: "–", mdash: "—" };
const AUTOLINK = /<([a-z][a-z\d+.-]{1,31}:[^\s<>]*)>/iy;
const BARE_LINK = /https?:\/\/[^\s<[\]`\uFDD0]+/y;
const nested = (inner) => String.raw`(?:[^\0-\x20()\\]|\\[^\n]|\(${inner}\))*`;
const TITLE = String.raw`"(?:[^"\\]|\\[^])*"|'(?:[^'\\]|\\[^])*'|\((?:[^()\\]|\\[^])*\)`; // not shown
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
 * Text that is still being written, so that it does not jump when the rest comes: half a link shows its text, and
 * delimiters at the very end wait for what they delimit.
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
    else if (!this.#take()) this.#plain(character[0]);
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

  /** Take a part that one pattern recognizes: character references, links between angle brackets and bare ones, `<br>`, citations. */
  #take() {
    const [text, at] = [this.#text, this.#at];
    const pattern = [ENTITY, AUTOLINK, BREAK, CITATION, BARE_LINK].find((each) => match(each, text, at));
    if (!pattern) return false;
    const found = match(pattern, text, at);
    let [whole, inner] = found;
    if (pattern === BARE_LINK) whole = inner = trimmedLink(whole);
    if (pattern === ENTITY) this.#add(decode(found));
    else if (pattern === BREAK) this.#add(make("br"));
    else if (pattern === CITATION) this.#add(this.#cite(Number(inner)));
    else this.#add(link(inner) ?? whole);
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
    const [spaceBefore, markBefore] = BEFORE.map((pattern) => match(pattern, text, at));
    const [spaceAfter, markAfter] = AFTER.map((pattern) => match(pattern, text, end));
    const isLeft = !spaceAfter && (!markAfter || spaceBefore || markBefore);
    const isRight = !spaceBefore && (!markBefore || spaceAfter || markAfter);
    const isWord = character === "_"; // within a word, it is a part of a name
    if (character === "~" && end - at !== 2) return this.#plain(text.slice(at, end));
    const delimiter = {
      node: this.#mark(text.slice(at, end)),
      character,
      count: end - at,
      length: end - at,
      canOpen: isLeft && (!isWord || !isRight || markBefore),
      canClose: isRight && (!isWord || !isLeft || markAfter),
      order: this.#order++,
      before: this.#last,
      after: null,
    };
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
    if (depth > MAX_NESTED) return false;
    this.#depths.set(element, depth);
    element.append(...nodes);
    first.after(element);
    return true;
  }

  /** Show emphasis that is open, and may still be closed, as if it were closed. */
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
