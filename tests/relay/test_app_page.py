"""rawsse.relay.app, the page: which files are served, as what, and that nothing else is."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import socket
import threading
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from rawsse.relay.dialects import Answer
from rawsse.relay.page import CONTENT_SECURITY_POLICY, Page

from .stage import ask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page in a folder, with a secret beside it and another in it that is hidden."""
    (tmp_path / "secret.txt").write_text("secret")
    site = tmp_path / "site"
    (site / "sub" / "deep").mkdir(parents=True)
    (site / "index.html").write_text("<p>home")
    (site / "sub" / "deep" / "a file ü.txt").write_text("here")
    (site / ".env").write_text("ANTHROPIC_API_KEY=secret")
    (site / ".git").mkdir()
    (site / ".git" / "config").write_text("secret")
    if os.name == "posix":  # elsewhere they cannot be the names of files
        for name in ("index.html:stream", "..\\secret.txt", "line\nbreak"):
            (site / name).write_text("secret")
    return site


def header(page: Page, path: str, name: str) -> str | None:
    return dict(page.find(path)[0]).get(name)


# --- The built-in page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/index.html", "/rawsse.js", "/style.css"])
def test_the_built_in_page_is_there(path: str) -> None:
    assert len(Page().find(path)[1]) > 100


def test_the_built_in_page_may_load_nothing_from_elsewhere() -> None:
    assert header(Page(), "/", "content-security-policy") == CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
    )


@pytest.mark.parametrize(
    "path", ["/__init__.py", "/../cli.py", "/..", "/nothing.js", "/README.md", "/package.json", "/chat.d.ts"]
)
def test_of_the_package_nothing_but_the_page_is_served(path: str) -> None:
    with pytest.raises(Answer, match="there is no /"):
        Page().find(path)


def test_the_built_in_page_is_served_without_its_comments() -> None:
    headers, script = Page().find("/page.js")
    assert not re.search(rb"^\s*(//|/\*|\*)", script, re.MULTILINE)
    assert dict(headers)["etag"] == f'"{hashlib.sha256(script).hexdigest()[:32]}"'


def test_what_looks_like_a_comment_within_a_line_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        'f("https://a.example/"); // after',
        "    g(.../** @type {T} */ (a));",
        "  // alone",
        "/* two",
        " * lines */",
        "",
        "b /= c //d;",
    ]
    (folder / "rawsse.js").write_text("\n".join(lines) + "\n")
    page = Page()
    monkeypatch.setattr(page, "_folder", folder)
    assert page.find("/rawsse.js")[1].decode().splitlines() == [
        'f("https://a.example/");',
        "g(... (a));",
        "b /= c //d;",
    ]


def test_ones_own_scripts_are_served_as_they_are(folder: Path) -> None:
    (folder / "a.js").write_text("// mine\n")
    assert Page(folder).find("/a.js")[1] == b"// mine\n"


# --- A folder of one's own -----------------------------------------------------------------------------------------


def test_ones_own_page_makes_its_own_policy(folder: Path) -> None:
    headers, body = Page(folder).find("/")
    assert body == b"<p>home"
    assert [name for name, _ in headers] == [
        "content-type",
        "etag",
        "x-content-type-options",
        "referrer-policy",
        "cache-control",
    ]


def test_folders_in_the_folder_are_served(folder: Path) -> None:
    assert Page(folder).find("/sub/deep/a file ü.txt")[1] == b"here"


def test_a_folder_given_by_a_relative_path_is_served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert Page(Path("site")).find("/index.html")[1] == b"<p>home"


TRAVERSALS = [
    "/../secret.txt",
    "//../secret.txt",
    "/sub/../../secret.txt",
    "/sub/../index.html",
    "/./index.html",
    "/..%2fsecret.txt",
    "/%2e%2e/secret.txt",
    "/..\\secret.txt",
    "/sub\\..\\..\\secret.txt",
    "/index.html\x00.js",
    "/\x00",
    "/.env",
    "/.git/config",
    "/sub//deep",
    "/sub/",
    "/sub",
    "/C:/secret.txt",
    "/index.html:stream",
    "/index.html/more",
    "/" + "x" * 300,
    "/nothing",
    "/\ufffd",
    "/line\nbreak",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_what_is_no_file_of_the_folder_is_not_there(folder: Path, path: str) -> None:
    with pytest.raises(Answer, match="there is no /"):
        Page(folder).find(path)


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_link_out_of_the_folder_leads_nowhere(folder: Path, *, is_folder: bool) -> None:
    target = folder.parent if is_folder else folder.parent / "secret.txt"
    (folder / "link").symlink_to(target)
    with pytest.raises(Answer, match="there is no /"):
        Page(folder).find("/link/secret.txt" if is_folder else "/link")


def test_a_link_inside_the_folder_is_followed(folder: Path) -> None:
    (folder / "link.html").symlink_to(folder / "index.html")
    assert Page(folder).find("/link.html")[1] == b"<p>home"


def test_a_folder_beside_it_whose_name_begins_alike_is_not_inside(folder: Path) -> None:
    (folder.parent / "site2").mkdir()
    (folder.parent / "site2" / "a.txt").write_text("secret")
    (folder / "link").symlink_to(folder.parent / "site2")
    with pytest.raises(Answer, match="there is no /"):
        Page(folder).find("/link/a.txt")


def test_links_in_a_circle_lead_nowhere(folder: Path) -> None:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    with pytest.raises(Answer, match="there is no /"):
        Page(folder).find("/a")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were opened: a pipe would wait for a writer, and some devices have no end."""
    files: list[Path] = []

    def read_bytes(path: Path) -> bytes:
        files.append(path)
        return b""

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return files


@pytest.mark.parametrize("path", ["/pipe", "/link"])
def test_a_pipe_is_not_there(folder: Path, path: str, opened: list[Path]) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "pipe")
    with pytest.raises(Answer, match="there is no /"):
        Page(folder).find(path)
    assert opened == []


def test_a_device_is_not_there(opened: list[Path]) -> None:
    with pytest.raises(Answer, match="there is no /"):
        Page(Path("/dev")).find("/zero")
    assert opened == []


def test_a_socket_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # its path may be no longer than 107 characters
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(Answer, match="there is no /"):
            Page(folder).find("/socket")


def test_a_file_that_may_not_be_read_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(f"may not read {path}")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # chmod would not keep root out
    with pytest.raises(Answer, match="there is no /"):
        Page(folder).find("/")


def test_a_page_in_a_zip_file_is_served(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "page.zip", "w") as archive:
        archive.writestr("index.html", "zipped")
    with zipfile.ZipFile(tmp_path / "page.zip") as archive:
        assert Page(zipfile.Path(archive)).find("/")[1] == b"zipped"  # type: ignore[arg-type]  # as an installed package may be


# --- Content types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("A.JS", "text/javascript; charset=utf-8"),
        ("a.min.js", "text/javascript; charset=utf-8"),
        ("a.js.map", "application/json; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("none", "application/octet-stream"),
    ],
)
def test_a_file_says_what_it_is(folder: Path, name: str, kind: str) -> None:
    (folder / name).write_bytes(b"")
    assert header(Page(folder), f"/{name}", "content-type") == kind


def test_what_a_file_is_does_not_depend_on_the_machines_table_of_types(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"")
    mimetypes.add_type("text/plain", ".png")
    try:
        assert header(Page(folder), "/a.png", "content-type") == "image/png"
    finally:
        mimetypes.init()


def test_a_browser_may_not_guess_what_a_file_is(folder: Path) -> None:
    assert header(Page(folder), "/", "x-content-type-options") == "nosniff"


# --- What a browser has already --------------------------------------------------------------------------------------


def test_a_file_has_a_tag_that_changes_with_its_content(folder: Path) -> None:
    first = header(Page(folder), "/", "etag")
    assert first == header(Page(folder), "/", "etag")
    assert first is not None
    assert re.fullmatch(r'"[!#-~]+"', first)  # RFC 9110, 8.8.3
    (folder / "index.html").write_text("<p>HOME")  # as long as before, and perhaps in the same second
    assert header(Page(folder), "/", "etag") != first


def test_the_tag_of_the_built_in_page_changes_with_its_notice() -> None:
    assert header(Page(notice="a"), "/", "etag") != header(Page(notice="b"), "/", "etag")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("known", ["{0}", "W/{0}", '"x", {0}', '"x" ,W/{0} ', "*"])
def test_a_file_that_a_browser_has_is_not_sent_again(known: str, method: str) -> None:
    tag = header(Page(), "/", "etag")
    browser = ask(method, "/", headers={"if-none-match": known.format(tag)})
    assert (browser.status, browser.body, browser.headers["etag"]) == (304, b"", tag)
    assert browser.headers["cache-control"] == "no-cache"
    assert "content-length" not in browser.headers  # RFC 9110, 8.6: none, or that of a 200


@pytest.mark.parametrize("known", ["", '"x"', "x", 'W/"x"'])
def test_a_file_that_a_browser_has_otherwise_is_sent(known: str) -> None:
    browser = ask("GET", "/", headers={"if-none-match": known})
    assert (browser.status, browser.body) == (200, Page().find("/")[1])


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("HEAD", "/style.css"), ("PUT", "/index.html")])
def test_files_are_read_in_a_thread(method: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    find = Page.find

    def note(page: Page, path: str) -> Any:
        threads.append(threading.get_ident())
        return find(page, path)

    monkeypatch.setattr(Page, "find", note)
    assert ask(method, path).status == (405 if method == "PUT" else 200)
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


# --- The notice ----------------------------------------------------------------------------------------------------


def test_a_notice_stands_on_the_built_in_page_as_text() -> None:
    content = Page(notice="Try <b>tools</b> & more").find("/")[1]
    assert b"<p>Try &lt;b&gt;tools&lt;/b&gt; &amp; more</p>" in content


def test_examples_stand_below_the_notice_as_buttons() -> None:
    content = Page(notice="Try", examples=["a", "<b>"]).find("/")[1]
    button = b'<button type="button" class="example">%s</button>'
    assert b'<p>Try</p><p class="examples">' + b" ".join((button % b"a", button % b"&lt;b&gt;")) + b"</p>" in content


def test_without_a_notice_the_page_has_none() -> None:
    assert Page(notice="").find("/")[1] == Page().find("/")[1]


def test_the_users_own_page_is_sent_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(b"<!-- notice -->")
    assert Page(tmp_path, notice="hello").find("/")[1] == b"<!-- notice -->"


@pytest.mark.parametrize("name", ["rawsse.js", "chat.js", "react.js", "ai.js", "tabs.js"])
def test_the_modules_are_found_beside_a_page_of_the_operator_s(name: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    page = Page(tmp_path)
    assert page.find(f"/{name}")[1] == (files("rawsse") / "web" / name).read_bytes()  # with their comments
    assert header(page, f"/{name}", "content-type") == "text/javascript; charset=utf-8"
    (tmp_path / name).write_text("my own")
    assert page.find(f"/{name}")[1] == b"my own"
    with pytest.raises(Answer):
        page.find("/page.js")
