// What the tests of the renderer do in a page: render, and compare trees. Evaluated by Playwright; see `test_markdown.py`.
async () => {
  const { citationMark, link, Markdown } = await import("/markdown.js");

  /** Render a source that comes in these pieces, drawn after each; `look(root)` is called after each drawing. */
  function render(pieces, look = () => {}) {
    const root = document.createElement("div");
    const cite = (number) => Object.assign(document.createElement("sup"), { textContent: number });
    const markdown = new Markdown(root, { cite });
    for (const piece of pieces) {
      markdown.append(piece);
      markdown.draw();
      look(root);
    }
    markdown.end();
    markdown.draw();
    return root;
  }

  const BLOCKS = /^(DIV|P|H\d|UL|OL|LI|BLOCKQUOTE|PRE|HR|TABLE|THEAD|TBODY|TR|TH|TD)$/;
  const LEVELS = { H1: "h3", H2: "h4", H3: "h5", H4: "h6", H5: "h6", H6: "h6" };

  /** A tree as a string that says what the specification says: tags, addresses, starts, text; not how it is made. */
  function outline(node, isOurs, isTight = false) {
    if (node.nodeType === 3) return node.data;
    const tag = node.tagName;
    if (tag === "HR" || tag === "BR") return `<${tag.toLowerCase()}>`;
    const isList = tag === "UL" || tag === "OL";
    const tight = isList ? !node.classList.contains("loose") : tag === "LI" && isTight;
    let inner = [...node.childNodes]
      .filter((child) => !child.classList?.contains("bar"))
      .filter((child) => !(child.nodeType === 3 && /^\s*$/.test(child.data) && node.querySelector(":scope > :is(p,ul,ol,li,blockquote,pre,h1,h2,h3,h4,h5,h6,tr,td,th,tbody,thead)")))
      .map((child) => outline(child, isOurs, tight && (isList || tag === "LI")))
      .join("");
    inner = inner.replace(/<br>\n/g, "<br>"); // what follows a break is on a line of its own without it
    if (BLOCKS.test(tag) && tag !== "PRE") inner = inner.trim();
    if (tag === "LI" && !isOurs) inner = inner.replace(/\n(?=<(p|ul|ol|blockquote|pre|h\d|hr))/g, "").replace(/(<\/(?:p|ul|ol|blockquote|pre|h\d)>|<hr>)\n/g, "$1");
    if (isOurs && (tag === "SPAN" || tag === "DIV")) return inner;
    if (isOurs && tag === "P" && isTight) return inner;
    if (tag === "A") {
      const href = node.getAttribute("href");
      return /^(https?:\/\/|mailto:)/i.test(href) ? `<a ${decodeURI(new URL(href).href)}>${inner}</a>` : inner;
    }
    if (tag === "CODE" && node.parentNode.tagName === "PRE") return isOurs ? inner : inner.replace(/\n$/, "");
    const name = isOurs ? tag.toLowerCase() : (LEVELS[tag] ?? tag.toLowerCase());
    const align = /^T[HD]$/.test(tag) ? (isOurs ? node.className : (node.getAttribute("align") ?? "")) : "";
    const start = tag === "OL" && node.start !== 1 ? ` ${node.start}` : "";
    return `<${name}${align && ` ${align}`}${start}>${inner}</${name}>`;
  }

  const ours = (root) => [...root.childNodes].map((child) => outline(child, true)).join("\n");
  function theirs(html) {
    const body = new DOMParser().parseFromString(html, "text/html").body;
    return [...body.childNodes].filter((n) => n.nodeType === 1 || n.data.trim()).map((child) => outline(child, false)).join("\n");
  }

  globalThis.md = { render, ours, theirs, Markdown, citationMark, link };
};
