"""rawsse.replay.scrub: canaries in every place of an exchange, over deltas cut everywhere, and none of them in the
file."""

from __future__ import annotations

import base64
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.sampling import one_in
from support.secrets import SECRETS
from support.streams import (
    PING,
    STOP,
    Raw,
    block,
    block_start,
    block_stop,
    delta,
    end,
    start,
    text_delta,
    to_bytes,
    tool_block,
)

import rawsse
from rawsse.errors import ConfigurationError, RecordingError, SecretRemainsError, UsageError
from rawsse.messages import MessageBuilder
from rawsse.replay import (
    Read,
    RecordedRequest,
    Recording,
    ScrubPolicy,
    Secret,
    checked,
    every_pair_split,
    every_split,
    find_secrets,
    scrub,
    shipped_fixtures,
)
from rawsse.sse import Decoder

PACKAGE = Path(rawsse.__file__).parent

SECRET = "Qm7xT2vLp9Rk4WzN8sBd"  # 20 letters and digits, no 8 of them twice
KEY = "sk-" + "ant-api03-" + SECRET
HIDDEN = "sk-" + "ant-api03-" + "*" * 20
SHORT_KEY = "sk-" + "ant-a0-" + SECRET[:9]
WINDOW = 8
_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")


def recorded(body: bytes, **fields: Any) -> Recording:
    return Recording(reads=(Read(0.5, body),), duration=1.0, **fields)


def leaks(secret: str, text: str) -> list[str]:
    """What can be read of a secret: its pieces of 8 characters that stand in a text."""
    pieces = {secret[at : at + WINDOW] for at in range(len(secret) - WINDOW + 1)}
    return sorted(piece for piece in pieces if piece in text)


def scrubbed(recording: Recording, policy: ScrubPolicy | None = None) -> Recording:
    """The same without its secrets. What must be so for every recording is asserted here."""
    clean = scrub(recording, policy)
    assert scrub(clean, policy) == clean
    assert checked(clean, policy) is clean  # nothing is found
    assert [len(read.data) for read in clean.reads] == [len(read.data) for read in recording.reads]
    assert [read.t for read in clean.reads] == [read.t for read in recording.reads]
    assert Recording.loads(clean.dump()) == clean
    return clean


def scrubbed_at(at: int, recording: Recording, policy: ScrubPolicy | None = None) -> Recording:
    """The same for a recording that is cut at every place: at every eighth, all of it is asserted."""
    return scrubbed(recording, policy) if at % 8 == 0 else scrub(recording, policy)


def seen(recording: Recording) -> str:
    """All that a reader of the file can see: the file itself, and what the deltas add up to, with all escapes read."""
    builder = MessageBuilder(strict=False)
    for event in Decoder().feed(recording.body):
        builder.feed(event)
    message = json.dumps(builder.message.raw if builder.message else None, ensure_ascii=False)
    text = recording.dump() + message
    for _ in range(4):  # escapes of escapes, as deep as any test here has them
        text += _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text[-50_000:]).replace("\\", "")
    return text


def deltas(kind: str, field: str, first: Raw, pieces: Sequence[str], between: Sequence[Raw] = (PING,)) -> list[Raw]:
    """An answer whose one block comes in these pieces, with other events between them."""
    events: list[Raw] = []
    for piece in pieces:
        events += [delta(0, kind, **{field: piece}), *between]
    return [start(), *block(0, first, *events), end(), STOP]


KINDS = [
    ("text_delta", "text", {"type": "text", "text": ""}, "Use {} then."),
    ("thinking_delta", "thinking", {"type": "thinking", "thinking": "", "signature": ""}, "They gave me {}."),
    ("input_json_delta", "partial_json", tool_block(), '{{"command": "export KEY=\\"{}\\""}}'),
    ("signature_delta", "signature", {"type": "thinking", "thinking": "", "signature": ""}, "{}"),
    ("compaction_delta", "content", {"type": "compaction", "content": ""}, "The key is {}."),
    ("smell_delta", "smell", {"type": "smell", "smell": ""}, "of {}"),
]
"""Delta type, its field, how its block begins, and what it says."""


def pieces_of(body: bytes, field: str) -> list[str]:
    events = [json.loads(event.data) for event in Decoder().feed(body)]
    return [event["delta"][field] for event in events if event["type"] == "content_block_delta"]


# --- Over deltas ---


@pytest.mark.parametrize(("kind", "field", "first", "words"), KINDS, ids=[kind[0] for kind in KINDS])
def test_a_key_is_hidden_wherever_two_deltas_cut_it(kind: str, field: str, first: Raw, words: str) -> None:
    text = words.format(KEY)
    step = one_in(4) if kind != "text_delta" else 1
    for at in range(0, len(text) + 1, step):
        pieces = [text[:at], text[at:]]
        clean = scrubbed_at(at, recorded(to_bytes(deltas(kind, field, first, pieces))))
        hidden = words.format(HIDDEN)
        assert clean.body == to_bytes(deltas(kind, field, first, [hidden[:at], hidden[at:]]))
        assert leaks(SECRET, seen(clean)) == []


@pytest.mark.parametrize(("shape", "before", "secret", "after"), SECRETS)
def test_a_secret_of_every_shape_is_hidden_wherever_two_deltas_cut_it(
    shape: str, before: str, secret: str, after: str
) -> None:
    text = f"{before}{secret}{after} "
    # At its ends and in the middle: `test_a_key_is_hidden_wherever_two_deltas_cut_it` has all the cuts.
    first, last = len(before) + 1, len(before) + len(secret) - 1
    places = sorted({first, (first + last) // 2, last}) if one_in(2) > 1 else range(len(text) + 1)
    cuts = [recorded(to_bytes([text_delta(0, text[:at]), PING, text_delta(0, text[at:])])) for at in places]
    scrubbed(cuts[len(cuts) // 2])
    for recording in cuts:
        clean = scrub(recording)
        said = "".join(pieces_of(clean.body, "text"))
        assert len(said) == len(text), shape
        assert leaks(secret, clean.dump() + said) == []


def test_a_key_is_hidden_wherever_three_deltas_cut_it() -> None:
    for number, pieces in enumerate([*every_pair_split(SHORT_KEY.encode())][:: one_in(5)]):
        body = to_bytes(deltas(*KINDS[0][:3], [piece.decode() for piece in pieces], between=()))
        clean = scrubbed_at(number, recorded(body))
        assert "".join(pieces_of(clean.body, "text")) == "sk-" + "ant-a0-" + "*" * 9
        assert leaks(SECRET, seen(clean)) == []


@pytest.mark.parametrize(("kind", "field", "first", "words"), KINDS, ids=[kind[0] for kind in KINDS])
def test_a_key_is_hidden_when_every_delta_has_one_character(kind: str, field: str, first: Raw, words: str) -> None:
    clean = scrubbed(recorded(to_bytes(deltas(kind, field, first, list(words.format(KEY))))))
    assert pieces_of(clean.body, field) == list(words.format(HIDDEN))


def test_every_character_of_a_key_may_be_an_escape_on_the_wire() -> None:
    for at in range(0, len(KEY), one_in(3)):
        escaped = KEY[:at] + f"\\u{ord(KEY[at]):04X}" + KEY[at + 1 :]
        hidden = HIDDEN[:at] + ("*" * 6 if HIDDEN[at] == "*" else KEY[at]) + HIDDEN[at + 1 :]
        for cut in (0, 5, at, at + 6, len(escaped)):
            if at < cut < at + 6:
                continue
            body = to_bytes(deltas(*KINDS[0][:3], ["AAA", "BBB"]))
            body = body.replace(b"AAA", escaped[:cut].encode()).replace(b"BBB", escaped[cut:].encode())
            clean = scrubbed_at(at, recorded(body))
            assert "".join(pieces_of(clean.body, "text")) == hidden
            assert leaks(SECRET, seen(clean)) == []


def test_a_key_of_nothing_but_escapes_is_hidden() -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in KEY).encode()
    body = to_bytes(deltas(*KINDS[0][:3], ["AAA"])).replace(b"AAA", escaped)
    beginning = len(b"\\u0000") * HIDDEN.index("*")
    assert scrubbed(recorded(body)).body == body.replace(escaped, escaped[:beginning].ljust(len(escaped), b"*"))


def test_an_escape_within_a_tool_input_may_itself_be_cut() -> None:
    said = '{"key": "' + KEY.replace("-", "\\u002d").replace("Q", "\\u0051") + '"}'
    for at in range(0, len(said) + 1, one_in(2)):
        body = to_bytes(deltas(*KINDS[2][:3], [said[:at], said[at:]]))
        clean = scrubbed_at(at, recorded(body))
        pieces = pieces_of(clean.body, "partial_json")
        assert [len(json.dumps(piece)) for piece in pieces] == [len(json.dumps(said[:at])), len(json.dumps(said[at:]))]
        assert json.loads("".join(pieces)) == {"key": HIDDEN.replace("*", "*" * 7, 1)}  # the Q was an escape of 7 bytes


def test_a_tool_input_with_json_in_its_strings_remains_json() -> None:
    said = json.dumps({"body": json.dumps({"a": json.dumps({"key": KEY, "é": "\n"})})})
    for at in range(0, len(said) + 1, 3 * one_in(3)):
        clean = scrubbed_at(at, recorded(to_bytes(deltas(*KINDS[2][:3], [said[:at], said[at:]]))))
        read = json.loads("".join(pieces_of(clean.body, "partial_json")))
        assert json.loads(json.loads(read["body"])["a"]) == {"key": HIDDEN, "é": "\n"}


def test_a_block_may_begin_with_the_beginning_of_a_key() -> None:
    first = {"type": "text", "text": KEY[:20]}
    clean = scrubbed(recorded(to_bytes(deltas("text_delta", "text", first, [KEY[20:25], KEY[25:]]))))
    assert clean.body == to_bytes(
        deltas("text_delta", "text", first | {"text": HIDDEN[:20]}, [HIDDEN[20:25], HIDDEN[25:]])
    )


def test_a_key_may_be_cut_by_the_end_of_a_block_of_text() -> None:
    for at in range(len(KEY) + 1):
        events = [start()]
        for index, piece in enumerate((KEY[:at], KEY[at:])):
            events += block(index, {"type": "text", "text": ""}, text_delta(index, piece))
        clean = scrubbed_at(at, recorded(to_bytes([*events, end(), STOP])))
        assert "".join(pieces_of(clean.body, "text")) == HIDDEN


def test_blocks_whose_deltas_alternate_are_told_apart() -> None:
    events = [start(), block_start(0, {"type": "text", "text": ""}), block_start(1, tool_block())]
    for one, other in zip(KEY, "x" * len(KEY), strict=True):
        events += [text_delta(0, one), delta(1, "input_json_delta", partial_json=other)]
    clean = scrubbed(recorded(to_bytes([*events, block_stop(0), block_stop(1), end(), STOP])))
    folded = [
        event["delta"] for event in map(json.loads, (e.data for e in Decoder().feed(clean.body))) if "delta" in event
    ]
    assert "".join(piece.get("text", "") for piece in folded) == HIDDEN


def test_the_deltas_of_two_messages_in_one_body_are_told_apart() -> None:
    one, other = (to_bytes(deltas(*KINDS[0][:3], [piece])) for piece in ("a word, then sk-", "lower " + SECRET * 2))
    assert scrub(recorded(one + other)).body == one + other


def test_a_private_key_keeps_its_lines() -> None:
    lines = [SECRET + SECRET[::-1] + SECRET + "/+=A"] * 3
    said = "-----BEGIN " + "PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n"
    for at in range(0, len(said) + 1, 7):
        clean = scrubbed_at(at, recorded(to_bytes(deltas(*KINDS[0][:3], [said[:at], said[at:]]))))
        text = "".join(pieces_of(clean.body, "text"))
        assert text.split("\n")[1:4] == ["*" * 60 + "/***"] * 3


def test_a_stream_that_is_cut_within_the_last_delta_is_scrubbed_to_its_last_byte() -> None:
    whole = to_bytes(
        [start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, KEY[:12]), text_delta(0, KEY[12:])]
    )
    for size in range(whole.rindex(b"data:"), len(whole), one_in(3)):
        clean = scrubbed(recorded(whole[:size], end="cut"))
        assert leaks(SECRET, clean.dump()) == []


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r", b"\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_may_end_in_any_way(line_end: bytes, mark: bytes) -> None:
    body = to_bytes(deltas(*KINDS[0][:3], [KEY[:20], KEY[20:]]))
    hidden = to_bytes(deltas(*KINDS[0][:3], [HIDDEN[:20], HIDDEN[20:]]))
    clean = scrubbed(recorded(mark + body.replace(b"\n", line_end)))
    assert clean.body == mark + hidden.replace(b"\n", line_end)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r", b"\n"])
def test_the_data_of_an_event_may_have_several_lines(line_end: bytes) -> None:
    body = b'data: {"delta":\ndata:{"text":"%b"},\ndata\n:x\ndata: "index":0}\n\n'.replace(b"\n", line_end)
    clean = scrubbed(recorded(body % KEY[:18].encode() + body % KEY[18:].encode()))
    assert clean.body == body % HIDDEN[:18].encode() + body % HIDDEN[18:].encode()


def test_other_streams_are_joined_as_well() -> None:
    frames = ['data: {"text": "%s"}\n\n', 'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n']
    for frame in frames:
        for at in range(len(KEY) + 1):
            body = frame % KEY[:at] + ": a comment\n\n" + frame % KEY[at:] + "data: [DONE]\n\n"
            hidden = frame % HIDDEN[:at] + ": a comment\n\n" + frame % HIDDEN[at:] + "data: [DONE]\n\n"
            assert scrubbed_at(at, recorded(body.encode())).body == hidden.encode()


def test_reads_end_where_they_ended() -> None:
    body = to_bytes([text_delta(0, "é" + KEY[:20]), text_delta(0, KEY[20:] + "é")])
    hidden = to_bytes([text_delta(0, "é" + HIDDEN[:20]), text_delta(0, HIDDEN[20:] + "é")])
    for before, after in zip(every_split(body), every_split(hidden), strict=True):
        clean = scrub(Recording(reads=tuple(Read(float(n), data) for n, data in enumerate(before))))
        assert [read.data for read in clean.reads] == list(after)


# --- In every other place of a body ---

PLACES: list[Callable[[str], Raw]] = [
    lambda text: start(id=text),
    lambda text: start(**{text: 1}),
    lambda text: start(content=[{"type": "text", "text": text}]),
    lambda text: {"type": "error", "error": {"type": "api_error", "message": text}},
    lambda text: {"type": text},
    lambda text: block_start(0, tool_block(input={"deep": [[{"deeper": {"still": [text]}}]]})),
    lambda text: block_start(0, {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": text}]}),
    lambda text: delta(0, "citations_delta", citation={"type": "char_location", "cited_text": text}),
    lambda text: end(text),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_key_is_hidden_in_every_place_of_an_event(place: Callable[[str], Raw]) -> None:
    clean = scrubbed(recorded(to_bytes([place(f"see {KEY}, é")])))
    assert clean.body == to_bytes([place(f"see {HIDDEN}, é")])


@pytest.mark.parametrize(
    "frame", [b": %b\n\n", b"event: %b\ndata: {}\n\n", b"id: %b\n\n", b"data: %b\n\n", b"%b: x\n\n", b"%b"]
)
def test_a_key_is_hidden_in_every_field_of_an_event(frame: bytes) -> None:
    assert scrubbed(recorded(frame % KEY.encode())).body == frame % HIDDEN.encode()


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key %b"},"request_id":"req_1"}',
        b"<html><body>%b</body></html>",
        b"\xff\xfe%b\x80",
        b"\xed\xa0\x80 %b",
        b'["%b", [[[[[[[[[["',
    ],
)
def test_a_key_is_hidden_in_a_body_that_is_no_stream(frame: bytes) -> None:
    assert scrubbed(recorded(frame % KEY.encode(), status=401)).body == frame % HIDDEN.encode()


def test_all_that_is_not_secret_stays_byte_for_byte() -> None:
    text = b'"text":"%b \\/ \\ud83d\\ude00"'
    frame = b'event:x\ndata:  { "delta" : {"type":"text_delta",' + text + b'} ,"index":0 , "n":1.50e1}      \n\n'
    assert scrubbed(recorded(frame % KEY.encode())).body == frame % HIDDEN.encode()


def test_the_same_secret_turns_into_the_same_stars() -> None:
    events = deltas(*KINDS[0][:3], [f"{KEY} {KEY[:30]}", f"{KEY[30:]} Bearer {KEY}"])
    clean = scrubbed(recorded(to_bytes(events)))
    assert "".join(pieces_of(clean.body, "text")).split(" ") == [HIDDEN, HIDDEN, "Bearer", "*" * len(KEY)]


# --- In the request ---


def request_of(recording: Recording) -> RecordedRequest:
    assert recording.request is not None
    return recording.request


def with_request(**fields: Any) -> Recording:
    return Recording(request=RecordedRequest(**({"method": "POST", "path": "/v1/messages"} | fields)))


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        (f"/v1/messages?x={KEY}", f"/v1/messages?x={HIDDEN}"),
        (f"/{KEY}/v1/messages", f"/{HIDDEN}/v1/messages"),
        ("/v1?key=open-sesame&beta=true", "/v1?key=***********&beta=true"),
        ("http://aladdin:open-sesame@host/v1", "http://aladdin:***********@host/v1"),
        (
            f"/v1?x={KEY.replace('-', '%2D').replace('Q', '%51')}",
            f"/v1?x={HIDDEN.replace('-', '%2D').replace('*', '***', 1)}",
        ),
        ("/v1/messages?beta=true", "/v1/messages?beta=true"),
    ],
)
def test_keys_are_hidden_in_the_path(path: str, hidden: str) -> None:
    assert request_of(scrubbed(with_request(path=path))).path == hidden


@pytest.mark.parametrize(
    ("body", "hidden"),
    [
        ({"system": KEY}, {"system": HIDDEN}),
        (
            {"a": [{"b": [1, {"c": [f"x {KEY} y", None, 1.5]}]}]},
            {"a": [{"b": [1, {"c": [f"x {HIDDEN} y", None, 1.5]}]}]},
        ),
        ({"metadata": {KEY: "é"}}, {"metadata": {HIDDEN: "é"}}),
        (f"key: {KEY}\n", f"key: {HIDDEN}\n"),
        ("client_secret=open-sesame&a=b", "client_secret=***********&a=b"),
        ([KEY], [HIDDEN]),
        ({"system": json.dumps({"key": json.dumps(KEY)})}, {"system": json.dumps({"key": json.dumps(HIDDEN)})}),
        ({"system": "\ud83d " + KEY}, {"system": "\ud83d " + HIDDEN}),
        (
            {"input": {"SecretAccessKey": SECRET * 2, "Region": "eu-north-1"}},
            {"input": {"SecretAccessKey": "*" * 40, "Region": "eu-north-1"}},
        ),
    ],
)
def test_keys_are_hidden_in_the_request_body(body: Any, hidden: Any) -> None:
    assert request_of(scrubbed(with_request(body=body))).body == hidden


@pytest.mark.parametrize("body", [None, "", 1, {"model": "m", "messages": [], "stream": True}])
def test_a_request_body_without_secrets_is_the_same(body: Any) -> None:
    recording = with_request(body=body)
    assert request_of(scrub(recording)).body is body


# --- Headers ---


def test_only_the_headers_on_the_list_are_kept() -> None:
    secret = {
        "X-Api-Key": KEY,
        "authorization": "Bearer x",
        "cookie": "a=b",
        "user-agent": "me",
        "host": "h",
        "x-new": "?",
    }
    kept = {"Content-Type": "application/json", "anthropic-version": "2023-06-01", "anthropic-beta": "b"}
    assert request_of(scrubbed(with_request(headers=secret | kept))).headers == kept


def test_of_the_answer_too() -> None:
    secret = {"anthropic-organization-id": "o", "anthropic-workspace-id": "w", "set-cookie": "s", "cf-ray": "c"}
    kept = {"content-type": "text/event-stream", "Request-Id": "r", "anthropic-ratelimit-x": "5", "retry-after": "3"}
    assert scrubbed(recorded(b"", headers=secret | kept)).headers == kept


def test_a_header_on_the_list_may_hold_a_key_all_the_same() -> None:
    clean = scrubbed(replace(with_request(headers={"anthropic-beta": f"a,{KEY}"}), headers={"request-id": KEY}))
    assert request_of(clean).headers == {"anthropic-beta": f"a,{HIDDEN}"}
    assert clean.headers == {"request-id": HIDDEN}


def test_a_header_for_credentials_that_is_put_on_the_list_is_kept_without_its_value() -> None:
    policy = ScrubPolicy(allowed_request_headers=("x-*",))
    clean = scrubbed(with_request(headers={"X-Api-Key": "any thing", "x-app": "cli"}), policy)
    assert request_of(clean).headers == {"X-Api-Key": "*** *****", "x-app": "cli"}


# --- The caller's own ---


def test_a_secret_of_the_callers_is_hidden_whatever_it_looks_like() -> None:
    secret = 'correct "horse" naïve ☺😀'
    policy = ScrubPolicy(secrets=(secret,))
    for at in range(len(secret) + 1):
        body = to_bytes(deltas(*KINDS[0][:3], [secret[:at], secret[at:]]))
        clean = scrubbed_at(at, recorded(body), policy)
        assert "".join(pieces_of(clean.body, "text")) == '******* "*****" ****** *******'


def test_a_secret_of_the_callers_is_hidden_in_escapes_too() -> None:
    policy = ScrubPolicy(secrets=("naïve ☺😀",))
    body = json.dumps({"a": "naïve ☺😀"}).encode()
    assert json.loads(scrubbed(recorded(body), policy).body) == {"a": f"**{'*' * 6}** {'*' * 18}"}
    assert scrubbed(recorded(body.upper().replace(b"\\U", b"\\u")), policy).body == body.upper().replace(b"\\U", b"\\u")


def test_of_a_pattern_with_a_group_the_group_is_hidden() -> None:
    policy = ScrubPolicy(patterns=(r"password is (\w+)", re.compile(r"<(?P<open>\w)(?P<secret>\w*)>"), "C:[a-z]+"))
    body = to_bytes(deltas(*KINDS[0][:3], ["The pass", "word is swordfish. <", "abc> C:x"]))
    clean = scrubbed(recorded(body), policy)
    assert pieces_of(clean.body, "text") == ["The pass", "word is *********. <", "a**> *:*"]


@pytest.mark.parametrize("wrong", [{"patterns": ("(",)}, {"secrets": ("my-own-secret", "abc")}])
def test_what_is_wrong_with_a_policy_does_not_show_its_secrets(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ScrubPolicy(**{"secrets": ("my-own-secret",), **wrong})
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    shown = [repr(frame.locals) for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    assert shown
    assert "own-secret" not in "".join(shown)
    policy = ScrubPolicy(secrets=("my-own-secret",))
    assert "own-secret" not in repr([policy, policy.secrets, policy.shapes()])


def test_a_pattern_that_matches_its_own_stars_is_no_trouble() -> None:
    clean = scrubbed(recorded(b"data: one two\n\n"), ScrubPolicy(patterns=(r"\S{4}",)))
    assert clean.body == b"****: one two\n\n"


def test_a_pattern_that_leaves_no_json_leaves_a_text() -> None:
    clean = scrubbed(with_request(body={"pin": 1234}), ScrubPolicy(patterns=(r'"pin": \d+',)))
    assert request_of(clean).body == '{"***": ****}'


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"secrets": ("abc",)}, "a secret must have at least 4 characters, not 3"),
        ({"patterns": ("(",)}, "'(' is not a regular expression: missing ), unterminated subpattern at position 0"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ScrubPolicy(**fields)
    assert str(caught.value) == message


def test_a_policy_does_not_print_the_secrets() -> None:
    assert SECRET not in repr(ScrubPolicy(secrets=(SECRET,)))


# --- Finding and refusing ---


def places(exchange: Recording | bytes | str) -> list[str]:
    return [str(secret) for secret in find_secrets(exchange)]


def test_a_finding_names_shape_and_place_and_never_the_secret() -> None:
    recording = Recording(
        RecordedRequest("POST", f"/v1?key={SECRET}", {"x-api-key": SECRET, "accept": KEY}, {"a": [{"b": KEY}], KEY: 1}),
        headers={"set-cookie": SECRET, "via": KEY},
        reads=(
            Read(0.0, to_bytes(deltas(*KINDS[0][:3], [KEY[:15], KEY[15:16], "", KEY[16:]])) + b": " + KEY.encode()),
        ),
    )
    assert places(recording) == [
        "key in a query in the request path",
        "credential in the request header x-api-key",
        "Anthropic key in the request header accept",
        "credential in the response header set-cookie",
        "Anthropic key in the response header via",
        "Anthropic key in the request body, a.0.b",
        "Anthropic key in the request body",
        "Anthropic key in the response body, event 3, text of block 0 (across 3 deltas)",
        "Anthropic key in the response body, event 13",
    ]
    assert leaks(SECRET, repr(find_secrets(recording))) == []


def test_a_finding_tells_the_byte_and_the_event() -> None:
    body = to_bytes([start(), PING, text_delta(0, f"é {KEY}")])
    (secret,) = find_secrets(body)
    assert secret == Secret("Anthropic key", "response body, event 3, text of block 0", body.index(SECRET.encode()), 3)


@pytest.mark.parametrize("body", [KEY, KEY.encode(), f"{{{json.dumps(KEY)}: 1}}", "\ud800" + KEY])
def test_a_text_is_taken_for_the_body_of_a_response(body: bytes | str) -> None:
    assert places(body) == ["Anthropic key in the response body"]


def test_a_key_in_several_shapes_is_found_once() -> None:
    assert places(f"authorization: Bearer {KEY}") == ["Anthropic key in the response body"]


def test_a_recording_with_a_secret_may_not_be_written() -> None:
    with pytest.raises(SecretRemainsError) as caught:
        checked(replace(recorded(KEY.encode() + b" " + KEY.encode()), name="a.sse.jsonl"))
    message = "a.sse.jsonl may not be written: Anthropic key in the response body, and 1 more"
    assert str(caught.value) == message
    assert isinstance(caught.value, UsageError)
    assert not isinstance(caught.value, RecordingError)


def test_a_secret_that_scrubbing_cannot_get_at_is_refused() -> None:
    policy = ScrubPolicy(patterns=(r"(?<=\*)\w",))  # every star that is written makes the letter after it one, too
    half = scrub(recorded(b"*abcdefgh"), policy)
    assert half.body == b"******fgh"
    with pytest.raises(SecretRemainsError, match="match of your pattern 1 in the response body"):
        checked(half, policy)


def test_a_body_that_is_still_compressed_is_refused() -> None:
    recording = recorded(b"\x1f\x8b\x08\x00\xffabc", headers={"Content-Encoding": "gzip"})
    message = "recording may not be written: content that cannot be searched ('gzip') in the response body"
    for function in (scrub, checked):
        with pytest.raises(SecretRemainsError) as caught:
            function(recording)
        assert str(caught.value) == message


def test_a_body_that_was_decompressed_is_not_refused_for_its_header() -> None:
    recording = recorded("data: é".encode()[:-1], headers={"Content-Encoding": "gzip"})
    assert scrubbed(recording).body == recording.body


# --- Names that say it, other ways of writing, other blocks ---


def test_what_a_name_says_is_a_secret_is_hidden_in_a_request() -> None:
    body = {"mcp_servers": [{"url": "https://a.b", "authorization_token": "hunter2hunter2"}], "max_tokens": 10}
    body["messages"] = [{"role": "user", "content": 'DB_PASSWORD=hunter2hunter2, {"api_key": "hun\\"ter2hunter2"}'}]
    request = RecordedRequest("POST", "/v1/messages", {}, body)
    clean = scrubbed(Recording(request=request))
    assert leaks("hunter2hunter2", seen(clean)) == []
    assert clean.request is not None
    assert clean.request.body["mcp_servers"] == [{"url": "https://a.b", "authorization_token": "*" * 14}]
    assert clean.request.body["messages"][0]["content"] == (
        'DB_PASSWORD=**************, {"api_key": "***\\"***********"}'
    )
    assert [str(secret) for secret in find_secrets(Recording(request=request))] == [
        "value of a secret's name in the request body, mcp_servers.0.authorization_token",
        "value of a secret's name in the request body, messages.0.content",
        "value of a secret's name in the request body, messages.0.content",
    ]


def test_a_known_key_behind_such_a_name_keeps_what_tells_its_kind() -> None:
    request = RecordedRequest("POST", "/v1/messages", {}, {"api_key": KEY})
    clean = scrubbed(Recording(request=request))
    assert clean.request is not None
    assert clean.request.body == {"api_key": HIDDEN}


def test_a_password_in_a_tool_s_input_is_hidden_wherever_two_deltas_cut_it() -> None:
    text = '{"user": "me", "password": "open\\nsesame!", "max_tokens": 5}'
    for at in range(0, len(text) + 1, one_in(2)):
        events = deltas("input_json_delta", "partial_json", tool_block(), [text[:at], text[at:]])
        clean = scrubbed_at(at, recorded(to_bytes(events)))
        said = json.loads("".join(pieces_of(clean.body, "partial_json")))
        assert said == {"user": "me", "password": "****\n*******", "max_tokens": 5}


def test_a_key_that_a_thought_begins_and_the_text_ends_is_hidden() -> None:
    for at in range(len(KEY) + 1):
        thought = delta(0, "thinking_delta", thinking=f"Is it {KEY[:at]}")
        events = [
            *(start(), *block(0, {"type": "thinking", "thinking": "", "signature": ""}, thought)),
            *(*block(1, {"type": "text", "text": ""}, text_delta(1, f"{KEY[at:]}, or not?")), end(), STOP),
        ]
        clean = scrubbed_at(at, recorded(to_bytes(events)))
        assert leaks(SECRET, clean.body.decode()) == []
        assert f"Is it {HIDDEN[:at]}" in clean.body.decode()
        assert f"{HIDDEN[at:]}, or not?" in clean.body.decode()


def test_a_key_that_a_thought_begins_and_a_call_ends_is_hidden() -> None:
    for at in range(len(KEY) + 1):
        thought = delta(0, "thinking_delta", thinking=f"Is it {KEY[:at]}")
        call = delta(1, "input_json_delta", partial_json=KEY[at:])
        events = [
            *(start(), *block(0, {"type": "thinking", "thinking": "", "signature": ""}, thought)),
            *(*block(1, tool_block(), call), end(), STOP),
        ]
        clean = scrubbed_at(at, recorded(to_bytes(events)))
        assert f"Is it {HIDDEN[:at]}" in clean.body.decode()
        assert f'"partial_json": "{HIDDEN[at:]}"' in clean.body.decode()


CALLERS = "horse/battery\u00e9"


@pytest.mark.parametrize(
    ("before", "written", "after"),
    [
        ("https://a.b/?q=", "horse%2Fba%74tery%c3%a9", "&a=b"),
        ("It is ", "%68orse/battery\u00e9", "."),
        ("It is ", base64.b64encode(CALLERS.encode()).decode(), ""),
        ("Basic YTp", base64.b64encode(b"a:" + CALLERS.encode()).decode()[3:], ""),
        ("Basic bWU6", base64.urlsafe_b64encode(b"me:" + CALLERS.encode() + b", and more").decode()[4:24], "BhbmQg"),
    ],
)
def test_a_secret_of_the_caller_s_is_hidden_however_it_is_written(before: str, written: str, after: str) -> None:
    policy = ScrubPolicy(secrets=(CALLERS,))
    clean = scrubbed(recorded(to_bytes([text_delta(0, before + written + after)])), policy)
    said = pieces_of(clean.body, "text")[0]
    assert leaks(written, said) == []
    assert (said[: len(before)], said[-len(after) :] if after else "") == (before, after)


# --- What has no secrets stays as it is ---


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_a_shipped_recording_is_not_changed(name: str) -> None:
    recording = shipped_fixtures()[name]
    assert scrub(recording) == recording
    assert find_secrets(recording) == []


def calls_of(function: Callable[[], object]) -> int:
    """How many calls, of functions in Python and in C, are made in it: work, whatever the machine's speed."""
    count = 0

    def one_more(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(one_more)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def test_twice_the_stream_is_twice_the_work() -> None:
    def stream(size: int) -> Iterator[str]:
        return (f'word "{number}" é ' for number in range(size))

    once, twice = (to_bytes(deltas(*KINDS[0][:3], list(stream(size)))) for size in (150, 300))
    assert calls_of(lambda: find_secrets(twice)) < 2.1 * calls_of(lambda: find_secrets(once))
