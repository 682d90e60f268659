"""The renderer of Markdown in a real Chromium: CommonMark's own examples, streams cut anywhere, hostile text, its speed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .node_harness import NODE_MODULES
from .scripted_server import ScriptedServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    """A page that has the renderer, under the built-in page's policy, and `md` of `markdown_page.js`."""
    with ScriptedServer() as server, chromium.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        page.evaluate(Path(__file__).with_name("markdown_page.js").read_text())
        yield page


def outlines(page: Page, *sources: str) -> list[str]:
    return list(page.evaluate("(sources) => sources.map((source) => md.ours(md.render([source])))", list(sources)))


# --- The specification -----------------------------------------------------------------------------------------------

EXAMPLE = re.compile(r"^`{32} example\n([\s\S]*?)^\.\n([\s\S]*?)^`{32}$|^#{1,6} *(.*)$", re.M)

LEFT_OUT = {"HTML blocks", "Raw HTML", "Link reference definitions", "Images"}

DIFFERENT = {
    5: "a tab that is partly an indent is kept as a tab",
    6: "the same",
    7: "the same",
    21: "HTML is text",
    25: "of the 2,231 named characters, the most common are known",
    31: "HTML is text",
    308: "HTML is text",
    309: "HTML is text",
    344: "HTML is text",
    475: "HTML is text",
    476: "HTML is text",
    477: "HTML is text",
    491: "HTML is text",
    494: "HTML is text",
    517: "an image is a link",
    520: "an image is a link",
    524: "HTML is text",
    596: "links lead to http, https and mailto",
    598: "the same",
    599: "the same",
    601: "the same",
    602: "bare links are links, as on GitHub",
    603: "a backslash in an address is a slash (WHATWG URL)",
    604: "an address of mail is text",
    605: "the same",
    608: "bare links are links, as on GitHub",
    611: "bare links are links, as on GitHub",
    642: "HTML is text",
    643: "HTML is text",
}
"""Examples whose outcome is another on purpose."""


def test_the_examples_of_the_specification_have_the_structure_that_it_gives(page: Page) -> None:
    file = NODE_MODULES / "commonmark-spec" / "spec.txt"
    if not file.exists():
        pytest.skip(f"no commonmark-spec in {NODE_MODULES} (RAWSSE_NODE_MODULES names another folder)")
    section, examples = "", []
    for source, expected, heading in EXAMPLE.findall(file.read_text()):
        section = heading or section
        if not heading:
            examples.append((section, source.replace("→", "\t"), expected.replace("→", "\t")))
    checked = [
        (number, source, expected)
        for number, (section, source, expected) in enumerate(examples, 1)
        if section not in LEFT_OUT and number not in DIFFERENT and "]:" not in source
    ]
    script = "(examples) => examples.map(([number, source, html]) => [number, md.ours(md.render([source])), md.theirs(html)])"
    found = page.evaluate(script, checked)
    assert [each for each in found if each[1] != each[2]] == []
    assert len(checked) > 450


# --- What is beyond it -------------------------------------------------------------------------------------------------

LINK = "<a https://x.org/>"
TABLE = "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>"

BEYOND = {
    "|a|b|\n|-|:-:|\n|1|2|\n": TABLE.format("<th>a</th><th center>b</th>", "<tr><td>1</td><td center>2</td></tr>"),
    "a | b\n- | -:\n`x\\|y` | **z**\n": TABLE.format(
        "<th>a</th><th right>b</th>", "<tr><td><code>x|y</code></td><td right><strong>z</strong></td></tr>"
    ),
    "|a|\n|-|\n|1|2|\n\n|\n": TABLE.format("<th>a</th>", "<tr><td>1</td></tr>") + "\n<p>|</p>",
    "|a|b|\n|-|-|\n|1|\n# h\n": TABLE.format("<th>a</th><th>b</th>", "<tr><td>1</td><td></td></tr>") + "\n<h3>h</h3>",
    "Text:\n|a|b|\n|-|-|\n": "<p>Text:</p>\n" + TABLE.format("<th>a</th><th>b</th>", ""),
    "|a|b|\n|-|\n": "<p>|a|b|\n|-|</p>",
    "- x\n\n  |a|\n  |-|\n": "<ul><li><p>x</p>" + TABLE.format("<th>a</th>", "") + "</li></ul>",
    "See https://x.org/a_b_c. Or (https://x.org/?q=(1)).\n": "<p>See <a https://x.org/a_b_c>https://x.org/a_b_c</a>. Or "
    "(<a https://x.org/?q=(1)>https://x.org/?q=(1)</a>).</p>",
    "**https://x.org** xhttps://x.org\n": f"<p><strong>{LINK}https://x.org</a></strong> xhttps://x.org</p>",
    "[https://x.org](https://x.org)\n": f"<p>{LINK}https://x.org</a></p>",
    "~~gone~~ ~here~\n": "<p><del>gone</del> ~here~</p>",
    "|a|\n|-|\n|1<br>2|\n": TABLE.format("<th>a</th>", "<tr><td>1<br>2</td></tr>"),
    "![otter](https://x.org/)\n": f"<p>{LINK}otter</a></p>",
}
"""Source -> outline: tables, bare links and strikethrough as GitHub's specification has them, and our own."""


@pytest.mark.parametrize("source", BEYOND)
def test_tables_bare_links_and_strikethrough_are_known(page: Page, source: str) -> None:
    assert outlines(page, source) == [BEYOND[source]]


# --- Streams -----------------------------------------------------------------------------------------------------------

DOCUMENT = """# Title *one*

A paragraph with **strong**, `code`, [a link](https://x.org "t") and https://x.org/bare,
over two lines.\x20\x20
Hard break.

Setext
---

- one
- two
  1. deep
  2. deeper

     loose
- three

> quoted
lazy

| a | b |
|---|--:|
| 1 | **2** |
| 3 | 4 |

```python
def f():
\treturn "x"  # `not` code

```
    indented

    code
***
Last _line_ is open with a "quote" & an &amp; <b>"""


def test_however_a_document_is_cut_it_becomes_the_same_elements(page: Page) -> None:
    script = """(source) => {
      const whole = md.render([source]).innerHTML;
      const wrong = [];
      for (let i = 1; i < source.length; i += 1) {
        if (md.render([source.slice(0, i), source.slice(i)]).innerHTML !== whole) wrong.push(i);
      }
      if (md.render([...source]).innerHTML !== whole) wrong.push("singly");
      const crlf = source.replaceAll("\\n", "\\r\\n");
      if (md.render([...crlf]).innerHTML !== whole) wrong.push("CRLF");
      if (md.render([source.replaceAll("\\n", "\\r")]).innerHTML !== whole) wrong.push("CR");
      return wrong;
    }"""
    assert page.evaluate(script, DOCUMENT) == []


def test_every_prefix_becomes_what_it_becomes_at_once(page: Page) -> None:
    script = """(source) => {
      const wrong = [];
      for (let i = 0; i <= source.length; i += 1) {
        const prefix = source.slice(0, i);
        if (md.render([...prefix]).innerHTML !== md.render([prefix]).innerHTML) wrong.push(prefix.slice(-20));
      }
      return wrong;
    }"""
    assert page.evaluate(script, DOCUMENT[:260]) == []


def test_nodes_of_a_finished_block_are_never_replaced(page: Page) -> None:
    script = """(source) => {
      const gone = [];
      let kept = [];
      md.render([...source], (root) => {
        for (const node of kept) if (!root.contains(node)) gone.push(node.outerHTML);
        // All blocks but the last, and in the last the same again, are finished, with all that is in them.
        kept = [];
        for (let level = root; level; level = level.lastElementChild) {
          const isText = /^(P|H\\d|PRE|TR)$/.test(level.tagName) || level.className === "code";
          const before = isText ? [] : [...level.children].slice(0, -1);
          kept.push(...before, ...before.flatMap((block) => [...block.querySelectorAll("*")]));
          if (isText) break;
        }
      });
      return gone;
    }"""
    assert page.evaluate(script, DOCUMENT) == []


def test_a_selection_in_a_finished_block_survives_what_comes_after(page: Page) -> None:
    script = """() => {
      const root = document.createElement("div");
      document.body.append(root);
      const markdown = new md.Markdown(root);
      const selection = getSelection();
      for (const [i, piece] of [..."Some *text* here.\\n\\nAnd more,\\nand more.\\n"].entries()) {
        markdown.append(piece);
        markdown.draw();
        if (i === 20) selection.selectAllChildren(root.querySelector("em"));
      }
      const said = String(selection);
      root.remove();
      return said;
    }"""
    assert page.evaluate(script) == "text"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("Some **bo", "<p>Some <strong>bo</strong></p>"),
        ("Some **", "<p>Some</p>"),
        ("A `cod", "<p>A <code>cod</code></p>"),
        ("A [link](https://x.o", "<p>A link</p>"),
        ("Text\n-", "<p>Text</p>"),
        ("Text\n---", "<p>Text</p>"),
        ("| a | b |", "<p></p>"),
        ("| a | b |\n|--", "<p></p>"),
        ("- one\n-", "<ul><li>one</li></ul>"),
        ("Text\n``", "<p>Text</p>"),
        ("```\nx\n``", "<pre>x</pre>"),
        ("1", ""),
    ],
)
def test_what_is_still_being_written_does_not_jump(page: Page, source: str, shown: str) -> None:
    script = """(source) => {
      const root = document.createElement("div");
      const markdown = new md.Markdown(root);
      markdown.append(source);
      markdown.draw();
      return md.ours(root);
    }"""
    assert page.evaluate(script, source) == shown


# --- What the model writes is text -----------------------------------------------------------------------------------

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](java\tscript:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](<javascript:alert(1)>)",
    "<javascript:alert(1)>",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](vbscript:x)",
    "[a](//evil.example)",
    "[a](/relative)",
    "[a](#here)",
    "![a](javascript:alert(1))",
    '[a](https://x.org" onclick="alert(1))',
    "| <img src=x> |\n|---|\n| [a](javascript:1) |",
    "```<script>\n</code></pre><script>alert(1)</script>\n```",
    "# <svg onload=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;img src=x onerror=alert(1)&#62;",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_no_markup_and_no_address_of_the_models_comes_to_life(page: Page, source: str) -> None:
    script = """(source) => {
      const root = md.render([source]);
      const names = [...root.querySelectorAll("*")].map((each) => each.tagName.toLowerCase());
      const links = [...root.querySelectorAll("[href]")].map((each) => each.protocol);
      const others = [...root.querySelectorAll("*")].flatMap((each) => each.getAttributeNames());
      return { names, links, others };
    }"""
    found = page.evaluate(script, source)
    assert not {"img", "script", "svg", "iframe", "object", "style", "form", "input"} & set(found["names"])
    assert set(found["links"]) <= {"http:", "https:", "mailto:"}
    assert not [name for name in found["others"] if name.startswith("on") or name in ("src", "style")]


def test_a_link_opens_beside_the_page_and_tells_nothing_of_it(page: Page) -> None:
    script = "() => { const a = md.link('https://x.org'); return [a.rel, a.target, a.title]; }"
    assert page.evaluate(script) == ["noopener noreferrer", "_blank", "https://x.org"]


def test_each_block_finds_its_own_direction(page: Page) -> None:
    script = """() => {
      const source = "English.\\n\\n\u05e2\u05d1\u05e8\u05d9\u05ea\\n\\n- \u05d0\\n\\n"
        + "> \u05d1\\n\\n```\\n\u05d2\\n```\\n";
      const root = md.render([source]);
      root.className = "text";
      document.querySelector("#welcome").className = "answer";
      document.querySelector("#welcome").append(root);
      const style = (each) => getComputedStyle(each.querySelector("pre") ?? each);
      const found = (each) => (each.tagName === "P" ? style(each).unicodeBidi : style(each).direction);
      const directions = [...root.children].map(found);
      root.remove();
      return directions;
    }"""
    assert page.evaluate(script) == ["plaintext", "plaintext", "rtl", "rtl", "ltr"]


def test_only_spaces_tabs_and_line_ends_are_left_out(page: Page) -> None:
    odd = "\ufeff\u00a0\u2028\u0085\u000bx\u000b\u0085\u2028\u00a0\ufeff"
    script = "(source) => [...md.render([source]).children].map((each) => each.textContent)"
    assert page.evaluate(script, f" {odd} \n\n# {odd}\n") == [odd, odd]


def test_the_text_cannot_forge_a_citation(page: Page) -> None:
    script = """async () => {
      const { FollowingBox, makeBlock, Sources } = await import("/answer.js");
      const box = new FollowingBox(document.body);
      const block = makeBlock({ type: "text", text: "a" + md.citationMark(1) + "b" }, { box, sources: new Sources() });
      block.end();
      box.flush();
      return [block.element.querySelectorAll("sup").length, block.element.textContent];
    }"""
    assert page.evaluate(script) == [0, "a\ufffd1\ufffdb"]


# --- Its speed -----------------------------------------------------------------------------------------------------------

DEEP = {
    "quotes": "> " * 20_000 + "x",
    "lists": "- " * 20_000 + "x",
    "indents": "".join(f"{'  ' * i}- x\n" for i in range(400)),
    "stars": "*a " * 40_000,
    "more stars": "**a *b " * 20_000,
    "star runs": "*" * 100_000 + "a",
    "underscores": "_" * 50_000 + "a" + "_" * 50_000,
    "brackets": "[" * 100_000,
    "link openers": "[a](" * 30_000,
    "nested links": "[" * 20_000 + "a" + "](https://x.org)" * 20_000,
    "parentheses": "https://x.org/" + ")" * 100_000 + "a",
    "backticks": "".join("`" * (i % 300 + 1) + "a" for i in range(1_000)),
    "backslashes": "\\" * 100_000,
    "entities": "&" * 100_000,
    "bars": "|" * 100_000 + "\n" + "|-" * 50_000,
    "wide rows": "|a|b|\n|-|-|\n" + "| x | y |\n" * 5_000,
    "dots": "https://x.org" + "." * 100_000 + "a",
    "spaces": "a" + " " * 200_000 + "b",
    "blank lines": "\n" * 200_000,
    "hashes": "#" * 100_000,
    "a long line": "word " * 200_000,
    "one word": "x" * 1_000_000,
    "surrogates": "\U0001f9a6" * 300_000,
}
MANY = 40


@pytest.mark.parametrize("source", DEEP.values(), ids=DEEP)
def test_a_hostile_text_takes_linear_time_and_bounded_depth(page: Page, source: str) -> None:
    script = """([source, pieces]) => {
      const size = Math.ceil(source.length / pieces);
      const began = performance.now();
      const root = md.render(Array.from({ length: pieces }, (_, i) => source.slice(i * size, (i + 1) * size)));
      const ms = performance.now() - began;
      const whole = md.render([source]);
      let depth = 0;
      for (const leaf of root.querySelectorAll("*")) {
        if (leaf.firstElementChild) continue;
        let d = 0;
        for (let node = leaf; node !== root; node = node.parentNode) d += 1;
        depth = Math.max(depth, d);
        if (d > 300) break;
      }
      const isSame = root.innerHTML === whole.innerHTML;
      return { ms, depth, isSame, lone: /[\\uD800-\\uDBFF](?![\\uDC00-\\uDFFF])/.test(root.textContent) };
    }"""
    found = page.evaluate(script, [source, MANY])
    assert found["ms"] < 3_000  # a quadratic one takes minutes
    assert found["depth"] < 100
    assert found["isSame"]
    assert not found["lone"]


def test_the_time_per_character_does_not_grow_with_the_answer(page: Page) -> None:
    script = """(source) => {
      const measure = (times) => {
        const root = document.createElement("div");
        const markdown = new md.Markdown(root);
        const began = performance.now();
        for (let i = 0; i < times; i += 1) {
          for (let at = 0; at < source.length; at += 40) {
            markdown.append(source.slice(at, at + 40));
            markdown.draw();
          }
        }
        return (performance.now() - began) / times;
      };
      measure(20);
      return [measure(50), measure(500)];
    }"""
    short, long = page.evaluate(script, DOCUMENT + "\n\n")
    assert long < 3 * short


def test_what_takes_long_is_drawn_in_parts(page: Page) -> None:
    script = """() => {
      const root = document.createElement("div");
      const markdown = new md.Markdown(root);
      markdown.append("A *line*.\\n\\n".repeat(20000));
      const steps = [];
      while (!markdown.draw(performance.now() + 5)) steps.push(root.textContent.length);
      return [steps.length > 3, root.querySelectorAll("p").length];
    }"""
    assert page.evaluate(script) == [True, 20_000]
