"""A folder of recordings that grows: names, numbers, and files that are there whole or not at all.

This file knows how a recording gets onto the disk beside others. It refuses to know what is in it, and when it is written.

    shelf = Shelf("recordings")
    number = shelf.next_number()
    shelf.put(number, "claude-sonnet-5-complete", text)         # recordings/0001-claude-sonnet-5-complete.sse.jsonl

Names tell no time, so the same exchanges in the same order have the same names. Numbers go on where those in the folder end;
no file is ever written over, whoever else writes there. Files can be read by their owner only: they hold what people asked.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from pathlib import Path

from rawsse.errors import ConfigurationError

SUFFIX = ".sse.jsonl"
MAX_SLUG_CHARS = 60

_NUMBERED = re.compile(rf"(\d{{4,}})-(.*){re.escape(SUFFIX)}")


def slug(*words: str) -> str:
    """The words as a part of a file's name, on any system: `Claude Sonnet/5` is `claude-sonnet-5`."""
    plain = re.sub(r"[^a-z0-9.]+", "-", "-".join(filter(None, words)).lower())
    return plain[:MAX_SLUG_CHARS].strip("-.")


class Shelf:
    """The folder, which is made if need be. `word` stands in every name behind the number.

    `max_files`: when there are more with that word, the oldest go, those of earlier runs included. Any thread may use it.
    Raises `ConfigurationError` if the folder cannot be used.
    """

    def __init__(self, folder: str | Path, *, word: str = "", max_files: int | None = None) -> None:
        if max_files is not None and (max_files < 1 or not word):
            # Without the word, the oldest could be files that somebody made with care.
            raise ConfigurationError("max_files must be 1 or more, and needs a name for the files that it counts")
        self.folder = Path(folder)
        self._word = slug(word)
        self._max_files = max_files
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._numbers = itertools.count(1 + max((number for number, _, _ in self._files()), default=0))
        except OSError as exc:
            raise ConfigurationError(f"{self.folder} cannot hold recordings: {exc.strerror or exc}") from exc

    def next_number(self) -> int:
        """A number that no file has."""
        return next(self._numbers)

    def name(self, number: int, what: str) -> str:
        """The name of the file with that number."""
        return f"{number:04}-{slug(self._word, what) or 'answer'}{SUFFIX}"

    def put(self, number: int, what: str, text: str) -> Path:
        """Write a file, with another number if somebody else has taken this one. Raises `OSError`."""
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self.folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode())
            path = self._publish(temporary, number, what)
        finally:
            Path(temporary).unlink(missing_ok=True)
        self._drop_oldest()
        return path

    def _publish(self, temporary: str, number: int, what: str) -> Path:
        while True:
            path = self.folder / self.name(number, what)
            try:
                _rename(temporary, path)
            except FileExistsError:
                number = self.next_number()
            else:
                return path

    def _files(self) -> list[tuple[int, str, Path]]:
        """The numbered files, oldest first."""
        found = [(match, path) for path in self.folder.iterdir() if (match := _NUMBERED.fullmatch(path.name))]
        return sorted((int(match[1]), match[2], path) for match, path in found)

    def _drop_oldest(self) -> None:
        if self._max_files is not None:
            own = [path for _, rest, path in self._files() if rest.startswith(f"{self._word}-")]
            for path in own[: -self._max_files]:
                path.unlink(missing_ok=True)


def _rename(temporary: str, path: Path) -> None:
    """Raises `FileExistsError` if there is one; POSIX's `rename` would write over it, and `link` does not."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system that has no links
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(temporary, path)
