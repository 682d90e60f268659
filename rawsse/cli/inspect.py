"""Looking at recordings and streams in a terminal or a pipe: `rawsse check` and `rawsse explain`.

This file knows where they come from (files, standard input, an API) and in which order what is found is shown. It refuses to
know arguments, exit codes, and what is right or wrong with a stream; see `rawsse.replay` for that.

    is_good = check_all(["answer.sse.jsonl", "-", "http://127.0.0.1:8001"], model=…, prompt=…)
    is_good = explain_all([Path("answer.sse.jsonl")], color=True)
"""

from __future__ import annotations

import asyncio
import errno
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from rawsse.cli.terminal import complain, show, write
from rawsse.errors import APIConnectionError, ConfigurationError, RawsseError

if TYPE_CHECKING:
    from io import BufferedReader

    from rawsse.replay import Finding, Recording, ScrubPolicy

READ_BYTES = 65536
"""How much is read from standard input at a time, at most: what is there is looked at at once."""

ASKED_TOKENS = 256
"""How long an answer is asked for when an API is checked: long enough for every event of a text."""

STDIN = "-"
_PATH = "/v1/messages"

T = TypeVar("T")


# --- check ---------------------------------------------------------------------------------------------------------


def check_all(
    sources: Iterable[str], *, model: str, prompt: str, scrub: Sequence[str] = (), as_json: bool = False
) -> bool:
    """Check each source: a recording, a folder, `-` for standard input, or the URL of an API. True if no rule is broken.

    What is found in a stream that is still coming is shown as it is found. `scrub`: patterns of secrets beside the known.
    Raises `ConfigurationError` if one of them is none.
    """
    from rawsse.replay import ScrubPolicy

    is_good, policy = True, ScrubPolicy(patterns=tuple(scrub))
    for source in sources:
        if source == STDIN:
            is_good &= _check_stdin(_Report(source, policy, as_json=as_json), policy)
        elif source.startswith(("http://", "https://")):
            report = _Report(source, policy, as_json=as_json)
            is_good &= asyncio.run(_check_api(report, source.rstrip("/").removesuffix(_PATH), model, prompt, policy))
        else:
            for recording in _load_all(Path(source)):
                is_good &= recording is not None and _check_recording(recording, policy, as_json=as_json)
    return is_good


class _Report:
    """What is shown of one stream: each finding, and a line for the whole."""

    def __init__(self, name: str, policy: ScrubPolicy, *, as_json: bool) -> None:
        self._name = name
        self.policy = policy
        self._as_json = as_json
        self._counts = {"error": 0, "warning": 0, "note": 0}

    def add(self, findings: Iterable[Finding]) -> None:
        from rawsse.replay.scrub import scrub_line

        for found in findings:
            finding = replace(found, text=scrub_line(found.text, self.policy))  # it quotes what has come
            self._counts[finding.severity] += 1
            place = {"byte": finding.where.byte, "event": finding.where.event}
            fields = {"severity": finding.severity, "rule": finding.rule, **place, "text": finding.text}
            show(self._json(fields) if self._as_json else f"  {finding}")

    def sum_up(self) -> bool:
        """Say how good the whole is. True if no rule is broken."""
        broken = self._counts["error"]
        counts = {f"{severity}s": count for severity, count in self._counts.items()}
        show(self._json(counts) if self._as_json else f"{self._name}: {_in_words(broken)}")
        return broken == 0

    def _json(self, fields: Mapping[str, object]) -> str:
        return json.dumps({"stream": self._name, **fields})


def _in_words(broken: int) -> str:
    """How many rules are broken."""
    return f"{broken} broken rule{'' if broken == 1 else 's'}" if broken else "ok"


def _check_recording(recording: Recording, policy: ScrubPolicy, *, as_json: bool) -> bool:
    from rawsse.replay import check

    findings = check(recording, policy)
    broken = sum(finding.severity == "error" for finding in findings)
    report = _Report(recording.name, policy, as_json=as_json)
    if not as_json:
        show(f"{recording.name}: {_in_words(broken)}")
    report.add(findings)
    return report.sum_up() if as_json else broken == 0


def _check_stdin(report: _Report, policy: ScrubPolicy) -> bool:
    from rawsse.replay import Checker

    checker = Checker(policy=policy)
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    stream = cast("BufferedReader", sys.stdin.buffer)
    while not checker.is_over and (data := stream.read1(READ_BYTES)):
        report.add(checker.feed(data))
    report.add(checker.close())
    return report.sum_up()


async def _check_api(report: _Report, base_url: str, model: str, prompt: str, policy: ScrubPolicy) -> bool:
    from rawsse.client.client import AsyncClient
    from rawsse.client.request import Secrets
    from rawsse.replay import Checker
    from rawsse.replay.proxy import BodyAnswer

    body = {
        "model": model,
        "max_tokens": ASKED_TOKENS,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
    }
    # What needs no key gets none that is worth anything.
    client = AsyncClient(base_url=base_url)
    async with client if client.has_credential else AsyncClient(base_url=base_url, api_key="none") as client:
        call = client.call("POST", _PATH, kind=BodyAnswer, body=body, max_retries=0)
        # The API may quote what the request had.
        report.policy = policy = replace(policy, secrets=tuple(Secrets(call.settings.request.headers).values))
        answer = await call.open()
        content_type = answer.response.headers.get("content-type") or ""
        checker = Checker(answer.response.status, content_type, wants_stream=True, policy=policy)
        while True:
            for piece in answer.take():
                report.add(checker.feed(piece))
            if answer.is_over or checker.is_over:
                break
            await call.more()
        if isinstance(answer.error, APIConnectionError):
            complain(answer.error)
        elif answer.error is not None:
            raise answer.error
    report.add(checker.close("clean" if answer.error is None else "cut"))
    return report.sum_up()


# --- explain -------------------------------------------------------------------------------------------------------


def explain_all(paths: Iterable[Path], *, color: bool) -> bool:
    """Explain every recording as text, its secrets hidden. False if there is something that is none."""
    from rawsse.replay.explain import explain, visible
    from rawsse.replay.scrub import to_show

    is_good = True
    for path in paths:
        for recording in _load_all(path):
            is_good &= recording is not None
            if recording is not None:
                # Whatever a terminal would obey was made visible by `explain`; what is left are our own colours.
                write(f"== {visible(recording.name)}\n{explain(to_show(recording), color=color)}\n")
    return is_good


def explain_to_page(paths: Sequence[Path], out: Path) -> bool:
    """Write each recording's page: to the file `out`, or into it if it is a folder or there are several recordings."""
    from rawsse.replay.explain_page import explain_html
    from rawsse.replay.recording import write_whole
    from rawsse.replay.scrub import to_show

    recordings = [recording for path in paths for recording in _load_all(path)]
    is_folder = out.is_dir() or len(recordings) > 1
    if is_folder and out.exists() and not out.is_dir():
        raise ConfigurationError(f"--html: {out} is no folder, and there are {len(recordings)} recordings")
    for recording in recordings:
        if recording is not None:
            page = (
                out / f"{Path(recording.name).name.removesuffix('.jsonl').removesuffix('.sse')}.html"
                if is_folder
                else out
            )
            page.parent.mkdir(parents=True, exist_ok=True)
            write_whole(page, explain_html(to_show(recording)))
            show(f"{page}")
    return None not in recordings


# --- Files ---------------------------------------------------------------------------------------------------------


def _load_all(path: Path) -> Iterator[Recording | None]:
    """Every recording; None for a file that is none, which is said: the others are looked at all the same."""
    from rawsse.replay import Recording, find_recordings

    files = _or_none(find_recordings, path)
    if files is None:
        yield None
    for file in files or []:
        yield _or_none(Recording.load, file)


def _or_none(load: Callable[[Path], T], path: Path) -> T | None:
    try:
        return load(path)
    except (RawsseError, OSError) as exc:
        complain(exc)
        return None
