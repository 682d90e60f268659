"""The page: files out of a folder, with the header fields that keep them safe.

This file knows paths, content types and the Content-Security-Policy. It refuses to know what the page does.
"""

from __future__ import annotations

import html
import mimetypes
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the built-in page: nothing from elsewhere, nothing inline, no frame around it. Model text could do nothing even if it
were taken for markup."""

HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


NOTICE_MARK = b"<!-- notice -->"


class NoSuchPage(Exception):  # noqa: N818 - an answer to be given, not a failure of ours
    """There is no file of that name."""


class Page:
    """The files of a folder; the built-in page's if `folder` is None. The user's own page makes its own policy.

    `notice` is a text that the built-in page shows below its greeting.
    """

    def __init__(self, folder: Path | None = None, *, notice: str = "") -> None:
        self._notice = f"<p>{html.escape(notice)}</p>".encode() if notice and folder is None else b""
        self._folder: Traversable = folder if folder is not None else files("rawsse") / "web"
        self._headers = HEADERS if folder else (("content-security-policy", CONTENT_SECURITY_POLICY), *HEADERS)

    def find(self, path: str) -> tuple[tuple[tuple[str, str], ...], bytes]:
        """(header fields, content) of the file at a decoded URL path; `/` is `index.html`. Raises `NoSuchPage`.

        Names with a leading dot are not served, and nothing outside the folder is.
        """
        name = path.lstrip("/") or "index.html"
        file = self._folder
        for part in name.split("/"):
            if not part or part.startswith(".") or not part.isprintable() or "\\" in part or ":" in part:
                raise NoSuchPage(path)
            file = file / part
        try:
            if not _is_inside(file, self._folder):
                raise NoSuchPage(path)
            content = file.read_bytes()
        except (OSError, RuntimeError):  # a folder, unreadable, a name too long; links in a circle
            raise NoSuchPage(path) from None
        if self._notice and name == "index.html":
            content = content.replace(NOTICE_MARK, self._notice)
        return (("content-type", _content_type(name)), *self._headers), content


def _is_inside(file: Traversable, folder: Traversable) -> bool:
    """Also after symbolic links are followed."""
    if isinstance(file, Path) and isinstance(folder, Path):
        return file.resolve().is_relative_to(folder.resolve())
    return True  # in a zip file there are no links


# What a page is made of. Python's own table is the machine's: on Windows the registry may call a script text/plain, and with
# `nosniff` browsers would not run it.
_TYPES: Mapping[str, str] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


def _content_type(name: str) -> str:
    kind, encoding = mimetypes.guess_type(name)
    kind = _TYPES.get(PurePosixPath(name).suffix.lower(), kind)
    if kind is None or encoding is not None:  # a compressed file is sent as it is
        return "application/octet-stream"
    is_text = kind.startswith("text/") or kind.endswith(("javascript", "json", "svg+xml"))
    return f"{kind}; charset=utf-8" if is_text else kind
