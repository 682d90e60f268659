"""rawsse.replay.explain_page: the page stands alone, says what the recording says, and holds its text as text only."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest
from support.long import long_recording
from support.streams import STOP, block, end, input_delta, start, text_delta, tool_block

from rawsse.errors import ConfigurationError
from rawsse.replay import Read, RecordedRequest, Recording, shipped_fixtures
from rawsse.replay.explain import Timeline
from rawsse.replay.explain_page import MAX_SHOWN_EVENTS, MAX_SHOWN_LINES, explain_html
from rawsse.sse import encode

VOID = {"meta", "link", "br", "hr", "img", "input"}
LONGEST_PAGE = 1_500_000


class Parsed(HTMLParser):
    """A page as its elements: (tag, attributes, text within)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element: tuple[str, dict[str, str], list[str]] = (tag, {name: value or "" for name, value in attrs}, [])
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element[2].append(data)

    def all(self, tag: str, kind: str = "") -> list[str]:
        """The texts of all elements of a tag, and of a class."""
        found = (
            text
            for name, given, text in self.elements
            if name == tag and (not kind or kind in given.get("class", "").split())
        )
        return ["".join(text) for text in found]

    def ids(self) -> list[str]:
        return [given["id"] for _, given, _ in self.elements if "id" in given]


def wire(*events: dict[str, object]) -> bytes:
    return b"".join(encode(json.dumps(event), event=str(event["type"])) for event in events)


def page_of(body: bytes) -> Parsed:
    return Parsed(explain_html(Recording.from_sse(body)))


@cache
def page_of_fixture(name: str) -> Parsed:
    return Parsed(explain_html(shipped_fixtures()[name]))


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_every_event_has_a_row_and_what_it_adds_is_linked_to_the_message(name: str) -> None:
    events, page = Timeline.of(shipped_fixtures()[name]).events, page_of_fixture(name)
    rows = [given["id"] for tag, given, _ in page.elements if tag == "li" and "id" in given]
    assert rows == [f"e{event.event}" for event in events]
    ids = set(page.ids())
    assert len(ids) == len(page.ids())
    for tag, given, _ in page.elements:
        if tag == "a":
            assert given["href"].startswith("#")
            assert given["href"][1:] in ids


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_nothing_is_asked_of_the_network(name: str) -> None:
    page = page_of_fixture(name)
    assert {tag for tag, _, _ in page.elements} & {"link", "img", "iframe", "object", "form", "base"} == set()
    for _, given, _ in page.elements:
        assert not {"src", "srcset", "action", "style", "poster"} & set(given)
        assert not [name for name in given if name.startswith("on")]
    for sheet in page.all("style"):
        assert "url(" not in sheet
        assert "@import" not in sheet


def test_the_policy_allows_the_page_s_own_style_and_script_and_nothing_else() -> None:
    page = page_of_fixture("plain")
    policy = next(given["content"] for tag, given, _ in page.elements if given.get("http-equiv"))
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_figures_are_those_of_the_recording() -> None:
    page = page_of_fixture("pings")
    assert dict(zip(page.all("dt")[-10:], page.all("dd")[-10:], strict=True)) == {
        "first event": "0.900 s, event 1",
        "first content": "4.650 s, event 17",
        "longest gap": "0.393 s after 6.019 s",
        "end": "8.264 s",
        "tokens per second": "29.2",
        "reads": "29, 2,883 bytes",
        "pings": "15",
        "events": "29: 15 ping, 1 message_start, 2 content_block_start, 1 signature_delta, 2 content_block_stop, "
        "6 text_delta, 1 message_delta, 1 message_stop",
        "usage": 'input_tokens 11, output_tokens 62, service_tier "standard"',
        "ending": "answer: complete; connection: clean",
    }


def test_bytes_lines_and_event_stand_side_by_side() -> None:
    page = page_of(b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n')
    assert page.all("span", "at") == ["0", "13", "37"]
    assert page.all("code", "hex") == ["65 76 65 6e 74 … 0d 0a", "64 61 74 61 3a … 0d 0a", "0d 0a"]
    assert page.all("code", "text") == ["event: pingCR LF", 'data: {"type": "ping"}CR LF', "CR LF"]
    assert page.all("p", "what") == ["1 ping"]


def test_a_read_begins_where_it_began_also_within_a_line() -> None:
    page = Parsed(
        explain_html(Recording(reads=(Read(0.5, b"event: pi"), Read(0.75, b'ng\ndata: {"type":"ping"}\n\n'))))
    )
    assert page.all("p", "read") == ["read 1 · 0.500 s · 9 bytes", "read 2 · 0.750 s · 26 bytes"]
    assert page.all("code", "text")[:2] == ["event: pi…", "ngLF"]


def test_the_message_is_made_of_what_the_events_added() -> None:
    body = wire(start(), *block(0, {"type": "text", "text": ""}, text_delta(0, "Hel"), text_delta(0, "lo\n")), end())
    page = page_of(body)
    assert page.all("p", "prose") == ["Hello\n"]
    assert [
        given["id"] for tag, given, _ in page.elements if given.get("id", "").startswith("m") and tag == "span"
    ] == ["m3", "m4"]


def test_the_input_of_a_tool_is_its_json_text() -> None:
    body = wire(start(), *block(0, tool_block(), input_delta(0, '{"a": '), input_delta(0, "1}")))
    assert page_of(body).all("p", "prose") == ['{"a": 1}']


def test_a_block_that_came_whole_shows_what_it_holds() -> None:
    page = page_of(wire(start(), *block(0, tool_block(input={"a": 1}))))
    assert '{"id": "toolu_1", "name": "weather", "input": {"a": 1}}' in page.all("p", "says")


def test_blocks_whose_numbers_are_confused_show_their_text_without_links() -> None:
    text: dict[str, object] = {"type": "text", "text": ""}
    body = wire(start(), *block(0, text, text_delta(0, "one")), *block(0, text, text_delta(0, "two")))
    page = page_of(body)
    assert page.all("p", "prose") == ["one", "two"]


def test_what_is_wrong_stands_at_its_event() -> None:
    page = page_of(b"data: {\n\ndata: half")
    assert page.all("p", "problem")[0].startswith("the data of event 'message' are not JSON")
    assert page.all("p", "problem")[1] == "the stream ends inside an event: 'data: half'"
    assert page.all("p", "says") == ["None: message_start never came."]


def test_a_stream_that_breaks_rules_has_a_red_badge_their_number_and_the_first_beside_the_message_and_marks() -> None:
    text: dict[str, object] = {"type": "text", "text": ""}
    events = start(), *block(0, text, text_delta(0, "Hel"), text_delta(0, "l0")), end(), STOP
    body = wire(*events).replace(b"l0", b"l\xff")
    page = page_of(body)
    assert page.all("p", "verdict") == ["broken"]
    assert page.all("p", "bad") == ["broken"]
    first = "'\\xff' is not UTF-8"
    words = f"1 broken rule at byte {body.index(0xFF)}, event 4: {first}"
    assert dict(zip(page.all("dt"), page.all("dd"), strict=True))["problems"] == words
    assert page.all("p", "problem") == [first, words]  # of the row, and above the message
    assert page.all("mark") == ["l\ufffd"]
    assert page.all("p", "prose") == ["Hell\ufffd"]


def test_the_badge_tells_a_connection_that_was_cut_from_one_that_ended_well() -> None:
    plain, cut = (replace(shipped_fixtures()["plain"], end=how) for how in ("clean", "cut"))
    assert Parsed(explain_html(plain)).all("p", "verdict") == ["complete"]
    assert Parsed(explain_html(cut)).all("p", "bad") == ["complete; connection: cut"]


def test_a_stop_reason_that_never_came_is_called_none_as_on_a_terminal() -> None:
    assert "stop reason: none" in page_of_fixture("cut").all("p", "says")


def test_a_bare_event_stream_has_no_picture_and_no_times() -> None:
    body = wire(start(), end())
    page = page_of(body)
    assert page.all("svg") == []
    assert page.all("p", "read") == [f"read 1 · unknown time · {len(body)} bytes"]
    assert "0.000" not in "".join(page.all("main"))
    assert len(page_of_fixture("plain").all("svg")) == 1


def test_no_control_character_is_shown_as_a_picture_that_fonts_lack() -> None:
    controls = "".join(map(chr, (*range(0x20), 0x7F)))
    text: dict[str, object] = {"type": "text", "text": ""}
    body = wire(start(model=controls), *block(0, text, text_delta(0, controls)))
    error: dict[str, object] = {"type": "error", "error": {"type": controls, "message": controls}}
    recording = Recording.from_sse(body + wire(error) + f": {controls}\n".encode())
    for event in (None, 3, 5):
        assert not re.search("[␀-␡]", explain_html(recording, event=event))
    page = Parsed(explain_html(recording))
    assert page.all("p", "adds")[0].startswith(r"\x00\x01\x02")
    assert r"\x08\t\n\x0b\x0c\r\x0e" in page.all("p", "adds")[0]
    assert "\\x08\t\n\\x0b" in page.all("p", "prose")[0]  # the message keeps its tabs and lines
    assert page_of(wire(start(), *block(0, text, text_delta(0, "␊␉")))).all("p", "prose") == ["␊␉"]


def test_gaps_stand_between_the_rows() -> None:
    assert Parsed(explain_html(long_recording(100, pause_at=50))).all("li", "wait") == ["nothing came for 6.000 s"]


def test_a_gap_within_an_event_stands_before_its_row() -> None:
    reads = (*(Read(number / 10, b": a\n\n") for number in range(5)), Read(0.5, b"data: "), Read(9.0, b"x\n\n"))
    page = Parsed(explain_html(Recording(reads=reads, duration=9.0)))
    items = [given["class"].split()[0] for tag, given, _ in page.elements if tag == "li"]
    assert items == ["row"] * 5 + ["wait", "row"]


# --- The page of one event ---


def test_the_page_of_an_event_has_its_layers_from_the_read_to_the_message() -> None:
    text: dict[str, object] = {"type": "text", "text": ""}
    body = wire(start(), *block(0, text, text_delta(0, "a <b> & ␊")))
    at = body.index(b"event: content_block_delta")
    page = Parsed(explain_html(Recording(reads=(Read(0.5, body[:at]), Read(0.75, body[at:]))), event=3))
    assert page.all("h2") == ['event 3: content_block_delta [0] text_delta "a <b> & ␊"']
    layers = dict(zip(page.all("dt")[-6:], page.all("dd", "prose"), strict=True))
    assert list(layers) == ["read", "chunk, rebuilt", "lines", "JSON", "message", "note"]
    event = wire(text_delta(0, "a <b> & ␊"))
    size = len(body) - at
    words = f"2 at 0.750 s, {size} bytes; the event's: {len(event)}, from byte {at} of the body"
    assert layers["read"] == words
    # RFC 9112, 7.1: a chunk is its size in hexadecimal, CR LF, the data, CR LF.
    own, rest = (data.decode().replace("\n", "LF") for data in (event, body[at + len(event) :]))
    assert layers["chunk, rebuilt"] == f"{size:x}CR LF\n{own}\n{rest}\nCR LF"
    assert layers["lines"] == event.decode().replace("\n", "LF\n").removesuffix("\n")
    assert json.loads(layers["JSON"]) == text_delta(0, "a <b> & ␊")
    assert layers["message"].split("\n")[1:] == ['[0] text (not complete): {"text": "a <b> & ␊"}']


def test_the_bytes_of_the_event_are_marked_in_a_chunk_with_those_of_others() -> None:
    events = [f'data: {{"type":"ping","n":{number}}}\r\n\r\n'.encode() for number in (1, 2, 3)]
    recording = Recording(reads=(Read(0.0, b"".join(events)[:-3]), Read(0.1, b"\n\r\n")))
    marked = [Parsed(explain_html(recording, event=number)).all("mark") for number in (1, 2, 3)]
    assert marked == [
        ['data: {"type":"ping","n":1}CR LFCR LF'],
        ['data: {"type":"ping","n":2}CR LFCR LF'],
        ['data: {"type":"ping","n":3}CR'],
    ]
    assert Parsed(explain_html(Recording.from_sse(events[0]), event=1)).all("mark") == []


def test_the_page_of_a_recording_says_how_to_get_that_of_an_event() -> None:
    assert "rawsse explain --event N --html OUT …" in page_of(wire(start())).all("code")


def test_the_page_of_an_event_has_the_style_and_the_policy_of_the_other() -> None:
    whole, one = (Parsed(explain_html(shipped_fixtures()["plain"], event=number)) for number in (None, 5))
    assert one.all("style") == whole.all("style")
    assert [given for tag, given, _ in one.elements if tag == "meta"] == [
        given for tag, given, _ in whole.elements if tag == "meta"
    ]


def test_the_page_of_an_event_has_its_colour_and_the_picture_in_which_it_stands_out() -> None:
    recording = shipped_fixtures()["plain"]
    for event in Timeline.of(recording).events[::13]:
        page = explain_html(recording, event=event.event)
        assert f'<h2 class="k-{event.lane}">event {event.event}: ' in page
        [lit] = re.findall(r'<g class="mark (k-\w+) lit"><title>([^:]*)', page)
        assert lit[0] == f"k-{event.lane}"
        first, last = (int(number) for number in re.findall(r"\d+", lit[1])[-4:-2]) if "events" in lit[1] else (0, 0)
        assert f"event {event.event} at" in lit[1] or first <= event.event <= last
        assert 'href="#' not in page
    assert " lit" not in explain_html(recording).partition("</svg>")[0].partition("<svg")[2]
    assert "<svg" not in explain_html(Recording.from_sse(recording.body), event=1)


def test_the_page_of_an_event_says_what_is_wrong_with_it_and_is_bounded() -> None:
    page = Parsed(explain_html(Recording.from_sse(b"data: {\n\n"), event=1))
    assert page.all("dt")[-3:] == ["problem", "message", "note"]
    assert page.all("dd", "prose")[-3].startswith("the data of event 'message' are not JSON")
    single = Recording(reads=tuple(Read(0.0, bytes([byte])) for byte in b": x\n" * 1000 + b"data: 1\n\n"))
    assert len(explain_html(single, event=1)) < 50_000


@pytest.mark.parametrize("number", [0, 80])
def test_an_event_that_is_not_there_has_no_page(number: int) -> None:
    with pytest.raises(ConfigurationError, match=f"there is no event {number}: plain has 79"):
        explain_html(shipped_fixtures()["plain"], event=number)


# --- Text is text ---

HOSTILE = (
    '</style></script><script>alert(1)</script><img src=x onerror=alert(2)>"\'&<a href="javascript:alert(3)">\x1b\u202e'
)


def test_whatever_a_recording_holds_is_text() -> None:
    body = wire(
        start(id=HOSTILE, model=HOSTILE),
        *block(0, {"type": "text", "text": "", "x": HOSTILE}, text_delta(0, HOSTILE)),
        *block(1, tool_block(name=HOSTILE, id=HOSTILE), input_delta(1, HOSTILE)),
        {"type": "error", "error": {"type": HOSTILE, "message": HOSTILE}},
    )
    usual = Parsed(explain_html(shipped_fixtures()["tools"]))
    request = RecordedRequest("POST", HOSTILE, {}, {HOSTILE: HOSTILE})
    recording = Recording(
        request, 200, {HOSTILE: HOSTILE}, (Read(0.1, body + f": {HOSTILE}\n".encode()),), "cut", 1.0, HOSTILE
    )
    for number in range(1, len(Timeline.of(recording).events) + 1):
        one = Parsed(explain_html(recording, event=number))
        assert {tag for tag, _, _ in one.elements} <= {tag for tag, _, _ in usual.elements} | {"mark", "g"}
        assert any(HOSTILE[:-2] in text for text in one.all("dd", "prose"))
        assert not re.search("[\x1b\u202e]", explain_html(recording, event=number))
    page = Parsed(explain_html(recording))
    assert {tag for tag, _, _ in page.elements} <= {tag for tag, _, _ in usual.elements}
    assert len(page.all("script")) == 1
    assert page.all("script") == usual.all("script")
    assert not any("\x1b" in text or "\u202e" in text for text in page.all("body"))
    assert any("</style></script><script>alert(1)</script>" in text for text in page.all("p", "prose"))


# --- Long recordings ---


def test_a_long_recording_is_folded_and_every_event_is_accounted_for() -> None:
    page = Parsed(explain_html(long_recording(1000, pause_at=500)))
    (fold,) = page.all("li", "fold")
    # 1,015 events: a start, a block's start, 1,000 deltas, 10 pings, and three at the end; 440 are shown before, 60 after.
    assert fold.startswith("Events 441 to 955 510 text_delta, 5 ping; bytes ")
    assert fold.endswith("; longest gap 6.000 s")
    assert page.all("p", "prose") == [" word" * 1000]
    assert sum(tag == "li" and "row" in given.get("class", "") for tag, given, _ in page.elements) == 440 + 60


@pytest.mark.parametrize("text", [" word", "x" * 2000])
def test_however_long_a_recording_is_its_page_is_not(text: str) -> None:
    page, longer = (len(explain_html(long_recording(n, pause_at=500, text=text)).encode()) for n in (600, 1100))
    assert longer < LONGEST_PAGE
    assert (
        longer - page < 50 * 500
    )  # a row has hundreds of bytes; a mark in the picture, and a word of the answer, have less


def test_events_of_many_lines_and_bytes_that_came_one_by_one_are_bounded_too() -> None:
    lines = b"data: {\n" + b'data: "type": "ping"\n' + b"data:\n" * 10_000 + b"data: }\n\n"
    assert len(explain_html(Recording.from_sse(lines))) < 50_000
    single = Recording(reads=tuple(Read(0.0, bytes([byte])) for byte in shipped_fixtures()["plain"].body))
    assert len(explain_html(single).encode()) < LONGEST_PAGE


def test_the_problems_of_the_events_that_share_a_row_stand_in_it() -> None:
    recording = long_recording(1000, pause_at=500)
    at = len(recording.reads) // 2
    bad = (*recording.reads[:at], Read(recording.reads[at].t, b"data: {\n\n"), *recording.reads[at:])
    page = Parsed(explain_html(Recording(reads=bad, duration=recording.duration)))
    assert len(page.all("li", "fold")) == 1
    assert page.all("p", "problem")[0].startswith("event 508: the data of event 'message' are not JSON")


def test_of_very_many_problems_the_first_are_shown_and_the_others_are_counted() -> None:
    page = page_of(b"data: {\n\n" * 1000)
    assert len(page.all("li", "row")) == MAX_SHOWN_EVENTS
    (fold,) = page.all("li", "fold")
    assert fold.count("are not JSON") == MAX_SHOWN_LINES
    assert fold.endswith("… and 488 more")


def test_very_many_comments_share_a_row_too() -> None:
    page = page_of(b": x\n\n" * 1000)
    (fold,) = page.all("li", "fold")
    assert fold.startswith("500 comments ")
