"""The files of a folder over HTTP: the built-in page, or the operator's."""

from __future__ import annotations

import hashlib
import html
import mimetypes
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from rawsse.relay.dialects import Answer

PAGE_HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For the built-in page: nothing from other origins, nothing inline, no framing. Model text would be harmless even if it
were parsed as markup."""

MODULES = ("rawsse.js", "chat.js", "react.js", "ai.js", "tabs.js")
"""Served alongside the operator's page, unless its folder has files with these names."""

_COMMENTS = re.compile(rb"[ \t]*(?:(?:^|(?<=[ \t]))//(?: [^\n]*)?$|/\*(?:(?!\*/).)*\*/)", re.MULTILINE | re.DOTALL)
"""Comments, including those after code. The built-in page is served without comments and indentation, which are a third of
the bytes. No string, pattern or template in its files looks like a comment: the tests check that the meaning is unchanged."""

NOTICE_MARK = b"<!-- notice -->"

_PYTHONS_TYPES = mimetypes.MimeTypes()
"""Not the system's table: a Windows registry may map scripts to text/plain, which browsers do not run with `nosniff`."""

# Media types that Python's table lacks, or that it changed in 3.12.
_TYPES: Mapping[str, str] = {
    ".js": "text/javascript",
    ".map": "application/json",
    ".mjs": "text/javascript",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


class Page:
    """The files of a folder; those of the built-in page if `folder` is None.

    The built-in page shows `notice` below its greeting, followed by `examples` of prompts as buttons. The operator's page sets
    its own policy, and can load the browser modules.
    """

    def __init__(self, folder: Path | None = None, *, notice: str = "", examples: Iterable[str] = ()) -> None:
        self._is_built_in = folder is None
        self._folder: Traversable = folder if folder is not None else files("rawsse") / "web"
        policy = (("content-security-policy", CONTENT_SECURITY_POLICY),) if self._is_built_in else ()
        self._headers = (*policy, *PAGE_HEADERS)
        buttons = [f'<button type="button" class="example">{html.escape(each)}</button>' for each in examples]
        shown = f"<p>{html.escape(notice)}</p>" if notice else ""
        self._notice = (shown + (f'<p class="examples">{" ".join(buttons)}</p>' if buttons else "")).encode()

    def find(self, path: str) -> tuple[tuple[tuple[str, str], ...], bytes]:
        """(header fields, content) of the file at a decoded URL path; `/` is `index.html`. Raises `Answer`: 404.

        Neither dotfiles nor anything outside the folder is served.
        """
        name = path.lstrip("/") or "index.html"
        content = _read(self._folder, name)
        if content is None and name in MODULES:
            content = _read(files("rawsse") / "web", name)
        # The built-in page's folder also has the types and the README of the npm package.
        if content is None or (self._is_built_in and not name.endswith((".js", ".css", ".html"))):
            raise Answer(404, "not_found_error", f"there is no {path}")
        if self._is_built_in:
            content = re.sub(rb"(?m)^\s+", b"", _COMMENTS.sub(b"", content))
        if self._is_built_in and name.endswith(".css"):
            content = re.sub(rb"(?<=[{};,])\n| (?=\{)", b"", content)
        if self._is_built_in and self._notice and name == "index.html":
            content = content.replace(NOTICE_MARK, self._notice)
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return (("content-type", self._content_type(name)), ("etag", etag), *self._headers), content

    def _content_type(self, name: str) -> str:
        kind, encoding = _PYTHONS_TYPES.guess_type(name)
        kind = _TYPES.get(name[name.rfind(".") :].lower(), kind)
        if kind is None or encoding is not None:  # a compressed file is sent unchanged
            return "application/octet-stream"
        is_text = kind.startswith("text/") or kind.endswith(("javascript", "json", "svg+xml"))
        return f"{kind}; charset=utf-8" if is_text else kind


def _read(folder: Traversable, name: str) -> bytes | None:
    """The content of a file in a folder; None if there is no such file, or it may not be served."""
    file = folder
    for part in name.split("/"):
        if not part or part.startswith(".") or not part.isprintable() or "\\" in part or ":" in part:
            return None
        file = file / part
    try:
        # Symbolic links may lead out of the folder. Zip files have none.
        is_outside = (
            isinstance(file, Path) and isinstance(folder, Path) and folder.resolve() not in file.resolve().parents
        )
        # Opening a pipe would wait for a writer, and a device may have no end.
        return None if is_outside or not file.is_file() else file.read_bytes()
    except (OSError, RuntimeError):  # a folder, unreadable, a name too long; links in a circle
        return None
