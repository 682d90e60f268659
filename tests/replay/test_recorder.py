"""rawsse.replay.recorder: `record(replay(x)) == x`, what is kept of failures, and that no stream suffers from it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.answers import ASK, KEY, SSE_HEAD, answer, chunked, client_of, head, plain
from support.asking import saying
from support.clock import run
from support.quoting import IN_HEADERS, PLACES, some_forms
from support.reading import read_body
from support.sampling import one_in
from support.sockets import serving, trusting

import rawsse
from rawsse.client.blocking import Client
from rawsse.client.client import AsyncClient
from rawsse.client.request import RequestData
from rawsse.client.retry import Timeouts
from rawsse.errors import APIError, ConfigurationError
from rawsse.replay import (
    FakeNetwork,
    Read,
    Recorder,
    Recording,
    ReplayServer,
    ScrubPolicy,
    by_event,
    compose,
    scrub,
    shipped_fixtures,
)
from rawsse.replay.explain import explain
from rawsse.replay.fakes import FakeStream
from rawsse.replay.proxy import RawAnswer
from rawsse.sse import Decoder

FIXTURES = shipped_fixtures()
PLAIN = FIXTURES["plain"]
FOLDER = Path(os.environ.get("RAWSSE_RECORDINGS") or Path(rawsse.__file__).parents[2] / "shared" / "recordings")
REAL = sorted(FOLDER.glob("*.sse"), key=lambda path: path.stat().st_size)
SOME = REAL[:: 6 * one_in(5)] + REAL[-3 :: one_in(3)]
"""Of every size. That none of the others holds a secret, or breaks the format, is tested without a client."""
SINGLE = Recording(
    reads=tuple(Read(number / 10, event) for number, event in enumerate(by_event(FIXTURES["tools"].body)))
)
"""An answer of which each read brings one event."""
STREAM = {**ASK, "stream": True}
SERVED = 60 * 1024
"""A read up to this size comes through a socket in one piece: with head and framing it is less than one read of our client."""


def recordings_in(folder: Path) -> list[Recording]:
    return [Recording.load(path) for path in sorted(folder.iterdir())]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def client_with(network: FakeNetwork, recorder: Recorder, **options: Any) -> AsyncClient:
    given: dict[str, Any] = {"api_key": KEY, "base_url": "http://api.example", "max_retries": 0, **options}
    return AsyncClient(connect=network, recorder=recorder, **given)


# --- record(replay(x)) == x ------------------------------------------------------------------------------------------


async def recorded(recordings: list[Recording], folder: Path) -> list[Recording]:
    """The recordings of a client that has read what a replay at the recorded pace sends it, without a socket."""
    async with client_with(FakeNetwork(*recordings, speed=1), Recorder(folder)) as client:
        for recording in recordings:
            await read_body(client, recording.request.body if recording.request else STREAM)
    return recordings_in(folder)


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_a_recording_of_a_replay_is_what_was_replayed(name: str, tmp_path: Path) -> None:
    (found,) = run(recorded([FIXTURES[name]], tmp_path))
    asked, given = found.request, FIXTURES[name].request
    assert replace(found, request=given) == FIXTURES[name]
    assert asked is not None
    assert given is not None
    assert replace(asked, headers={}) == replace(given, headers={})
    assert asked.headers == {**given.headers, "accept": "application/json"}


@pytest.mark.skipif(not REAL, reason=f"there are no recordings in {FOLDER}")
def test_so_are_the_recordings_of_real_streams(tmp_path: Path) -> None:
    given = [Recording.load(path) for path in SOME]
    for path, one, found in zip(SOME, given, run(recorded(given, tmp_path)), strict=True):
        assert replace(found, request=None, headers=one.headers) == one, path.name


async def recorded_over_a_socket(recordings: list[Recording], folder: Path) -> list[Recording]:
    async with (
        ReplayServer(recordings, speed=1) as server,
        AsyncClient(api_key=KEY, base_url=server.base_url, recorder=Recorder(folder), max_retries=0) as client,
    ):
        for _ in recordings:
            await read_body(client, STREAM)
    return recordings_in(folder)


def as_came(recording: Recording) -> tuple[Any, ...]:
    return recording.status, recording.reads, recording.end, recording.duration


def test_a_socket_in_between_changes_nothing(tmp_path: Path) -> None:
    given = [
        FIXTURES[name] for name in ("cut", "tools", "error-after-content")
    ]  # short: each read waits for real sockets
    found = run(recorded_over_a_socket(given, tmp_path))
    assert [as_came(one) for one in found] == [as_came(one) for one in given]


@pytest.mark.skipif(not REAL, reason=f"there are no recordings in {FOLDER}")
def test_nor_for_the_recordings_of_real_streams(tmp_path: Path) -> None:
    few = SOME[::4] + REAL[-1:]
    given = [Recording.load(path) for path in few]
    for path, one, found in zip(few, given, run(recorded_over_a_socket(given, tmp_path)), strict=True):
        if len(one.body) <= SERVED:
            assert as_came(found) == as_came(one), path.name
        else:  # all in one read, as nothing is known of its boundaries; one read of a socket does not hold that
            assert (found.body, found.end, found.duration) == (one.body, "clean", 0.0), path.name


def test_a_recording_of_a_stall_has_the_stall(tmp_path: Path) -> None:
    async def story() -> None:
        network = FakeNetwork(PLAIN, speed=1, faults=["stall=20@event=2"])
        async with client_with(network, Recorder(tmp_path)) as client:
            await read_body(client, STREAM)

    run(story())
    (found,) = recordings_in(tmp_path)
    assert (found.body, found.duration) == (PLAIN.body, PLAIN.duration + 20)


# --- What is a read --------------------------------------------------------------------------------------------------


def recording_of(stream: FakeStream | bytes, tmp_path: Path, **options: Any) -> Recording:
    """The recording of one answer, read to its end."""

    async def story() -> None:
        async with client_of(stream, recorder=Recorder(tmp_path, **options)) as client:
            await read_body(client, STREAM)

    run(story())
    (found,) = recordings_in(tmp_path)
    return found


def test_two_chunks_in_one_packet_are_one_read_and_one_chunk_in_two_packets_is_two(tmp_path: Path) -> None:
    stream = FakeStream([SSE_HEAD + b"2\r\nab\r\n2\r\ncd\r\n", 1.5, b"4\r\nef", 0.5, b"gh\r\n0\r\n\r\n"])
    reads = recording_of(stream, tmp_path).reads
    assert reads == (Read(0.0, b"abcd"), Read(1.5, b"ef"), Read(2.0, b"gh"))


@pytest.mark.parametrize("tls", [False, True])
def test_what_is_sent_at_once_is_one_read_through_a_socket_and_through_tls_too(tls: bool, tmp_path: Path) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        for piece in (SSE_HEAD + b"2\r\nab\r\n", b"2\r\ncd\r\n2\r\nef\r\n", b"0\r\n\r\n"):
            writer.write(piece)
            await asyncio.sleep(1.5)

    async def story() -> None:
        async with serving(slow, tls=tls) as origin:
            context = trusting().get() if tls else None
            client = AsyncClient(
                api_key=KEY, base_url=f"{origin}", ssl_context=context, recorder=Recorder(tmp_path), max_retries=0
            )
            async with client:
                await read_body(client, STREAM)

    run(story())
    (found,) = recordings_in(tmp_path)
    assert (found.reads, found.duration) == ((Read(0.0, b"ab"), Read(1.5, b"cdef")), 3.0)


def test_what_came_compressed_is_recorded_as_if_it_had_not(tmp_path: Path) -> None:
    body = gzip.compress(PLAIN.body)
    fields = {"content_type": "text/event-stream", "content_encoding": "gzip", "transfer_encoding": "chunked"}
    found = recording_of(head(**fields) + chunked(body[:100], body[100:]), tmp_path)
    assert (found.body, "content-encoding" in found.headers) == (PLAIN.body, False)


def test_what_is_badly_compressed_is_cut_where_it_cannot_be_read_any_more(tmp_path: Path) -> None:
    fields = {"content_type": "text/event-stream", "content_encoding": "gzip", "transfer_encoding": "chunked"}

    async def story() -> None:
        body = gzip.compress(b"data: 1\n\n")
        stream = FakeStream([head(**fields) + b"%x\r\n%b\r\n" % (len(body), body), chunked(b"no gzip")])
        async with client_of(stream, recorder=Recorder(tmp_path)) as client:
            await read_body(client, STREAM, RawAnswer)

    run(story())
    (found,) = recordings_in(tmp_path)
    assert (found.body, found.end) == (b"data: 1\n\n", "cut")


def test_what_is_compressed_in_an_unknown_way_is_not_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> int:
        recorder = Recorder(tmp_path)
        answer = plain(b"\x1b\xff\xfe..", content_type="text/event-stream", content_encoding="br")
        async with client_of(answer, recorder=recorder) as client:
            await read_body(client, STREAM, RawAnswer)
        return recorder.lost

    assert run(story()) == 1
    assert names(tmp_path) == []
    assert "content that cannot be searched" in caplog.text


# --- How it ended ----------------------------------------------------------------------------------------------------


async def stopped_after(count: int, folder: Path) -> None:
    async with client_with(FakeNetwork(SINGLE, speed=1), Recorder(folder)) as client:
        stream = await client.messages.create(**ASK, stream=True)
        for _ in range(count):
            await anext(stream)
        await stream.close()


@pytest.mark.parametrize(
    "count", sorted({*range(1, len(SINGLE.reads), one_in(4)), len(SINGLE.reads) - 1, len(SINGLE.reads)})
)
def test_a_recording_is_written_at_whatever_event_the_client_leaves(count: int, tmp_path: Path) -> None:
    run(stopped_after(count, tmp_path))
    (found,) = recordings_in(tmp_path)
    assert found.end == ("clean" if count == len(SINGLE.reads) else "client_closed")
    assert found.reads == SINGLE.reads[: len(found.reads)]
    assert len(Decoder().feed(found.body)) >= count


def test_who_stops_at_message_stop_has_a_clean_recording_although_the_body_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        held = FakeStream([answer(saying("Hi")).removesuffix(b"0\r\n\r\n")], end=None)
        async with client_of(held, recorder=Recorder(tmp_path)) as client:
            await client.messages.create(**ASK)

    run(story())
    assert [found.end for found in recordings_in(tmp_path)] == ["clean"]


def test_what_was_cut_is_recorded_as_cut(tmp_path: Path) -> None:
    (found,) = run(recorded([FIXTURES["cut"]], tmp_path))
    assert (found.end, names(tmp_path)) == ("cut", ["0001-claude-sonnet-5-truncated.sse.jsonl"])


@pytest.mark.parametrize(
    ("fault", "end", "kind"),
    [
        ("drop@event=-1", "clean", "complete"),  # the body ends in peace, without message_stop
        ("close@event=-1", "cut", "complete"),
        ("stall@event=-1", "client_closed", "complete"),
        ("close@event=3", "cut", "truncated"),
        ("stall@event=3", "client_closed", "timeout"),
    ],
)
def test_the_end_is_that_of_the_body_and_not_that_of_the_answer(
    fault: str, end: str, kind: str, tmp_path: Path
) -> None:
    async def story() -> None:
        async with client_with(FakeNetwork(PLAIN, faults=[fault]), Recorder(tmp_path)) as client:
            with contextlib.suppress(APIError):
                await client.messages.create(**ASK)

    run(story())
    assert [found.end for found in recordings_in(tmp_path)] == [end]
    assert names(tmp_path) == [f"0001-claude-sonnet-5-{kind}.sse.jsonl"]


def test_a_body_that_ends_in_peace_in_the_middle_of_an_answer_is_not_cut(tmp_path: Path) -> None:
    part = replace(PLAIN, reads=PLAIN.reads[:10])

    async def story() -> None:
        async with client_with(FakeNetwork(part), Recorder(tmp_path)) as client:
            with pytest.raises(rawsse.StreamTruncatedError):
                await client.messages.create(**ASK)

    run(story())
    assert [(found.end, found.body) for found in recordings_in(tmp_path)] == [("clean", part.body)]


def test_a_client_whose_patience_is_over_has_left(tmp_path: Path) -> None:
    async def story() -> None:
        network = FakeNetwork(PLAIN, faults=["stall@event=2"])
        async with client_with(network, Recorder(tmp_path), timeouts=Timeouts(silence=30)) as client:
            with pytest.raises(rawsse.APITimeoutError):
                await client.messages.create(**ASK)

    run(story())
    (found,) = recordings_in(tmp_path)
    assert (found.end, found.duration) == ("client_closed", 30.0)
    assert names(tmp_path) == ["0001-claude-sonnet-5-timeout.sse.jsonl"]


def test_a_refusal_is_recorded_with_its_body(tmp_path: Path) -> None:
    refusal = {"type": "error", "error": {"type": "rate_limit_error", "message": "Slowly."}}
    body = json.dumps(refusal).encode()
    found = recording_of(plain(body, "429 Too Many Requests", content_type="application/json"), tmp_path)
    assert (found.status, json.loads(found.body), found.end) == (429, refusal, "clean")
    assert names(tmp_path) == ["0001-claude-sonnet-5-error-429.sse.jsonl"]


def test_what_is_larger_than_the_limit_is_kept_to_there_and_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stream = FakeStream([SSE_HEAD + b"9\r\ndata: 1\n\n\r\n", chunked(b"data: 2\n\n")])
    found = recording_of(stream, tmp_path, max_bytes=10)
    assert (found.body, found.end) == (b"data: 1\n\n", "cut")
    assert "cut here: there was no room for more" in caplog.text


def test_without_an_answer_there_is_nothing_to_record(tmp_path: Path) -> None:
    async def story() -> None:
        recorder = Recorder(tmp_path)
        async with client_of(b"", recorder=recorder) as client:
            await read_body(client, STREAM)
        assert (recorder.written, recorder.lost) == (0, 0)

    run(story())
    assert names(tmp_path) == []


# --- Attempts, calls, clients ----------------------------------------------------------------------------------------


def test_every_attempt_is_a_recording(tmp_path: Path) -> None:
    async def story() -> None:
        network = FakeNetwork(PLAIN, faults=["status=529 x1", "error=overloaded_error@event=0 x1 after=1"])
        async with client_with(network, Recorder(tmp_path), max_retries=2) as client:
            await client.messages.create(**ASK)

    run(story())
    assert names(tmp_path) == [
        "0001-claude-sonnet-5-error-529.sse.jsonl",
        "0002-claude-sonnet-5-error.sse.jsonl",
        "0003-claude-sonnet-5-complete.sse.jsonl",
    ]


def test_numbers_are_given_at_the_beginning(tmp_path: Path) -> None:
    async def story() -> None:
        slow = replace(PLAIN, reads=tuple(Read(read.t + 10, read.data) for read in PLAIN.reads), duration=20)
        network = FakeNetwork(slow, PLAIN, speed=1)
        async with client_with(network, Recorder(tmp_path)) as client:
            first = asyncio.create_task(client.messages.create(**{**ASK, "model": "first"}))
            await asyncio.sleep(1)
            await client.messages.create(**{**ASK, "model": "second"})
            await first

    run(story())
    assert names(tmp_path) == ["0001-first-complete.sse.jsonl", "0002-second-complete.sse.jsonl"]


def test_other_calls_are_not_recorded(tmp_path: Path) -> None:
    async def story() -> None:
        count = plain(b'{"input_tokens": 3}', content_type="application/json")
        async with client_of(count, recorder=Recorder(tmp_path)) as client:
            await client.messages.count_tokens(model="m", messages=ASK["messages"])

    run(story())
    assert names(tmp_path) == []


def test_a_path_behind_a_proxy_is_a_path(tmp_path: Path) -> None:
    async def story() -> None:
        client = client_of(answer(saying("Hi")), recorder=Recorder(tmp_path), proxy="http://proxy.example:3128")
        async with client:
            await client.messages.create(**ASK)

    run(story())
    (found,) = recordings_in(tmp_path)
    assert found.request is not None
    assert found.request.path == "/v1/messages"


def test_clients_may_share_a_recorder(tmp_path: Path) -> None:
    async def story() -> tuple[int, int]:
        async with Recorder(tmp_path) as recorder:
            for _ in range(2):
                async with client_of(answer(saying("Hi")), recorder=recorder) as client:
                    await client.with_options(strict=False).messages.create(**ASK)
            return recorder.written, recorder.lost

    assert run(story()) == (2, 0)


def test_a_blocking_client_has_one_too(tmp_path: Path) -> None:
    client = Client(api_key=KEY, base_url="http://api.example", connect=FakeNetwork(PLAIN), recorder=Recorder(tmp_path))
    with client:
        client.messages.create(**ASK)
    assert [found.body for found in recordings_in(tmp_path)] == [PLAIN.body]


# --- Secrets ---------------------------------------------------------------------------------------------------------


def asked_with(tmp_path: Path, stream: bytes, policy: ScrubPolicy | None = None, **options: Any) -> str:
    """All that is on the disk after a call."""

    async def story() -> None:
        async with client_of(stream, recorder=Recorder(tmp_path, policy=policy), **options) as client:
            await client.messages.create(**{**ASK, "system": f"Do not tell {PASSWORD}."})

    run(story())
    return "".join(path.read_text() for path in tmp_path.iterdir())


PASSWORD = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": PASSWORD},
        {"api_key": None, "auth_token": PASSWORD},
        {"default_headers": {"cookie": f"session={PASSWORD}; theme=dark"}},
        {"default_headers": {"x-goog-api-key": PASSWORD}},
        {"default_headers": {"x-amz-security-token": PASSWORD}},
    ],
)
def test_a_credential_of_the_client_is_nowhere_even_if_the_answer_says_it(
    options: dict[str, Any], tmp_path: Path
) -> None:
    text = asked_with(tmp_path, answer(saying("It is correct-", "horse-battery-staple.")), **options)
    assert PASSWORD not in text
    assert "horse" not in text
    assert "It is *" in text


def test_a_placeholder_takes_no_words_out_of_the_answer(tmp_path: Path) -> None:
    assert "just a test" in asked_with(tmp_path, answer(saying("just a test")), api_key="test")


def test_a_policy_of_the_caller_s_is_kept(tmp_path: Path) -> None:
    policy = ScrubPolicy(secrets=(PASSWORD,), patterns=("Bergen",))
    text = asked_with(tmp_path, answer(saying("Rain in Bergen.")), policy)
    assert (PASSWORD in text, "Bergen" in text, "Rain in ******." in text) == (False, False, True)


def test_a_file_s_name_says_nothing_that_was_asked(tmp_path: Path) -> None:
    async def story() -> None:
        async with client_of(answer(saying("Hi")), recorder=Recorder(tmp_path)) as client:
            await client.messages.create(**{**ASK, "model": f"sk-ant-api03-{'x' * 40}"})

    run(story())
    assert names(tmp_path) == ["0001-sk-ant-api03-complete.sse.jsonl"]


# --- No stream suffers -----------------------------------------------------------------------------------------------


def test_a_recording_that_cannot_be_written_is_told_to_the_log_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async def story() -> tuple[str, int, int]:
        recorder = Recorder(tmp_path)
        monkeypatch.setattr(Path, "write_text", full)
        async with client_of(answer(saying("Hi")), recorder=recorder) as client:
            message = await client.messages.create(**ASK)
        return message.text, recorder.written, recorder.lost

    assert run(story()) == ("Hi", 0, 1)
    assert "an answer is not recorded: [Errno 28] No space left on device" in caplog.text


def test_a_fault_of_the_recorder_s_is_none_of_the_stream_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def story() -> tuple[str, int]:
        recorder = Recorder(tmp_path)
        monkeypatch.setattr("rawsse.replay.recorder.scrub", fail)
        async with client_of(answer(saying("Hi")), recorder=recorder) as client:
            message = await client.messages.create(**ASK)
        return message.text, recorder.lost

    assert run(story()) == ("Hi", 1)
    assert "a bug in the recorder" in caplog.text


def test_nothing_is_written_in_the_thread_of_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def watched(*args: Any) -> Recording:
        threads.append(threading.current_thread().name)
        return scrub(*args)

    async def story() -> None:
        async with client_of(answer(saying("Hi")), recorder=Recorder(tmp_path)) as client:
            await client.messages.create(**ASK)

    monkeypatch.setattr("rawsse.replay.recorder.scrub", watched)
    run(story())
    assert [name.startswith("rawsse recorder") for name in threads] == [True]


def held(tmp_path: Path, max_held_bytes: int, calls: int = 1) -> tuple[int, int]:
    """How many answers are recorded, and lost, one after the other. Each comes in reads of 100 bytes."""

    async def story() -> tuple[int, int]:
        recorder = Recorder(tmp_path, max_held_bytes=max_held_bytes)
        wire = answer(saying("Hi"))
        for _ in range(calls):
            stream = FakeStream(wire[at : at + 100] for at in range(0, len(wire), 100))
            async with client_of(stream, recorder=recorder) as client:
                await client.messages.create(**ASK)
        return recorder.written, recorder.lost

    return run(story())


SIZE = len(json.dumps(STREAM, separators=(",", ":")))


def test_what_is_held_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert held(tmp_path, SIZE - 1) == (0, 1)
    assert f"an answer is not recorded: max_held_bytes ({SIZE - 1}) are held of others" in caplog.text


def test_an_answer_for_which_there_is_no_more_room_is_cut_there(tmp_path: Path) -> None:
    assert held(tmp_path, SIZE + 500) == (1, 0)
    (found,) = recordings_in(tmp_path)
    assert (found.end, 0 < len(found.body) <= 500) == ("cut", True)


def test_what_was_written_makes_room(tmp_path: Path) -> None:
    assert held(tmp_path, SIZE + 1000, calls=3) == (3, 0)
    assert [found.end for found in recordings_in(tmp_path)] == ["clean"] * 3


def test_what_ends_after_the_recorder_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> tuple[str, int]:
        recorder = Recorder(tmp_path)
        client = client_of(answer(saying("Hi")), recorder=recorder)
        async with client, client.messages.stream(**ASK) as stream:
            recorder.close()
            text = await stream.get_final_text()
        await recorder.aclose()
        return text, recorder.lost

    assert run(story()) == ("Hi", 1)
    assert "the recorder is closed" in caplog.text


def test_a_forked_child_writes_in_a_thread_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> int:
        with contextlib.closing(Recorder(tmp_path)) as recorder:
            monkeypatch.setattr("rawsse.replay.recorder.os.getpid", lambda: -1)  # as a child sees it
            recorder._executor.shutdown()  # nothing runs there
            async with client_of(answer(saying("Hi")), recorder=recorder) as client:
                await client.messages.create(**ASK)
            return recorder.written

    assert run(story()) == 1


def test_a_folder_that_cannot_be_one_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot hold recordings"):
        Recorder(tmp_path / "file")


def test_each_recording_is_told_to_the_log_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawsse.replay")
    run(recorded([PLAIN], tmp_path))
    assert caplog.messages == [
        "0001-claude-sonnet-5-complete.sse.jsonl: status 200, complete (clean), 42 reads, 3.163 s"
    ]


def test_the_line_of_a_recording_whose_answer_is_not_what_was_said_counts_what_was_hidden(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rawsse.replay")
    recorder = Recorder(tmp_path, policy=ScrubPolicy(secrets=("acme-7781",)))
    secret = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz"
    said = f"Take {secret[:20]}", f"{secret[20:]} for acme-7781."  # one of them in two deltas
    echo = compose.recording_of(compose.answer("".join(said)), fragments=list(said))
    question = [{"role": "user", "content": "What of acme-7781?"}]

    async def story() -> None:
        async with (
            client_with(FakeNetwork(echo, speed=0), recorder) as client,
            client.messages.stream(**{**ASK, "messages": question}) as stream,
        ):
            await stream.get_final_message()

    run(story())
    (line,), (record,) = caplog.messages, caplog.records
    assert record.levelname == "WARNING"
    assert line.endswith(" s, secrets hidden in the request body: 1, secrets hidden in the response body: 2")
    assert secret[13:] not in line
    assert recorder.hidden == 2


# --- The flight recorder ---------------------------------------------------------------------------------------------


def flown(
    tmp_path: Path, network: FakeNetwork, use: Callable[[AsyncClient], Coroutine[Any, Any, Any]], **options: Any
) -> list[str]:
    """What a flight recorder has kept of what `use` did with a client."""

    async def story() -> None:
        async with client_with(network, Recorder(tmp_path, only_failed=True), **options) as client:
            with contextlib.suppress(APIError):
                await use(client)

    run(story())
    return names(tmp_path)


async def ask(client: AsyncClient) -> None:
    await client.messages.create(**ASK)


async def leave(client: AsyncClient) -> None:
    async with client.messages.stream(**ASK) as stream:
        await anext(stream)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status=500", "error-500"),
        ("error=overloaded_error@event=3", "error"),
        ("reset@event=3", "truncated"),
        ("close@event=3", "truncated"),
        ("no-last-chunk", None),
        ("bad-chunk-size=zz@event=3", "error"),
        ("stall@event=3", "timeout"),
        ("drop@event=1", "error"),
    ],
)
def test_it_keeps_every_kind_of_failure(fault: str, kind: str | None, tmp_path: Path) -> None:
    kept = flown(tmp_path, FakeNetwork(PLAIN, faults=[fault]), ask)
    assert kept == ([f"0001-failed-claude-sonnet-5-{kind}.sse.jsonl"] if kind else [])


def test_it_keeps_a_stream_that_ended_in_peace_but_not_whole(tmp_path: Path) -> None:
    part = replace(PLAIN, reads=PLAIN.reads[:10])
    assert flown(tmp_path, FakeNetwork(part), ask) == ["0001-failed-claude-sonnet-5-truncated.sse.jsonl"]


def test_it_keeps_what_passed_a_limit_of_the_client_s(tmp_path: Path) -> None:
    kept = flown(tmp_path, FakeNetwork(PLAIN), ask, max_message_bytes=100)
    assert kept == ["0001-failed-claude-sonnet-5-limit.sse.jsonl"]


def test_it_keeps_nothing_of_what_went_well_or_was_not_wanted(tmp_path: Path) -> None:
    assert flown(tmp_path, FakeNetwork(PLAIN, speed=1), ask) == []
    assert flown(tmp_path, FakeNetwork(PLAIN, speed=1), leave) == []


def test_it_keeps_nothing_of_a_call_that_was_cancelled(tmp_path: Path) -> None:
    async def cancelled(client: AsyncClient) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await client.messages.create(**ASK)

    assert flown(tmp_path, FakeNetwork(PLAIN, speed=1), cancelled) == []


def test_it_keeps_an_attempt_that_failed_although_the_next_one_did_not(tmp_path: Path) -> None:
    kept = flown(tmp_path, FakeNetwork(PLAIN, faults=["status=529 x1"]), ask, max_retries=1)
    assert kept == ["0001-failed-claude-sonnet-5-error-529.sse.jsonl"]


def test_it_keeps_nothing_of_an_answer_that_was_only_too_large_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        recorder = Recorder(tmp_path, only_failed=True, max_bytes=1000)
        async with client_with(FakeNetwork(PLAIN), recorder) as client:
            await client.messages.create(**ASK)

    run(story())
    assert names(tmp_path) == []


def test_it_leaves_the_newest_files(tmp_path: Path) -> None:
    async def story() -> None:
        recorder = Recorder(tmp_path, only_failed=True, max_files=2)
        network = FakeNetwork(PLAIN, faults=["status=500"])
        async with client_with(network, recorder) as client:
            for _ in range(5):
                await read_body(client, STREAM)

    run(story())
    assert [name[:11] for name in names(tmp_path)] == ["0004-failed", "0005-failed"]


def test_a_failure_that_it_kept_can_be_had_again(tmp_path: Path) -> None:
    kept = flown(tmp_path, FakeNetwork(PLAIN, speed=1, faults=["reset@event=3"]), ask)
    recording = Recording.load(tmp_path / kept[0])

    async def again() -> int:
        async with AsyncClient(api_key=KEY, connect=FakeNetwork(recording), max_retries=0) as client:
            with pytest.raises(rawsse.StreamTruncatedError) as caught:
                await client.messages.create(**ASK)
        return caught.value.bytes_received

    assert len(Decoder().feed(recording.body)) == 3
    assert run(again()) == len(recording.body)


def test_the_key_is_no_part_of_what_a_request_shows() -> None:
    assert KEY not in repr(RequestData("POST", "/", "h", (("x-api-key", KEY),), KEY.encode()))


# --- An API that quotes the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [*PLACES, *IN_HEADERS])
def test_a_flight_recorder_keeps_nothing_of_the_header_of_a_request(place: str, tmp_path: Path) -> None:
    key, gateway = "it's/my+own&key-0f3b7Qx~", "open-sesame-42"
    said = [form(secret) for form in some_forms(place).values() for secret in (key, gateway)]

    async def story() -> None:
        wires = [(PLACES | IN_HEADERS)[place](each) for each in said]
        async with Recorder(tmp_path, only_failed=True) as recorder:
            options = {"api_key": key, "default_headers": {"x-gateway": gateway}, "recorder": recorder}
            async with client_of(*wires, **options) as client:
                for _ in wires:
                    with contextlib.suppress(APIError):
                        await client.messages.create(**ASK)

    run(story())
    paths = list(tmp_path.iterdir())
    assert len(paths) == len(said)
    for path in paths:
        kept = path.read_text()
        for secret in (key, gateway, *said, *(json.dumps(each)[1:-1] for each in said)):
            assert secret not in kept
        explained = explain(Recording.load(path))
        assert key not in explained
        assert gateway not in explained
