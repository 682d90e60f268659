"""rawsse.client.resources, `with_raw_response`: an answer together with its response."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.answers import ASK, KEY, client_of, head, plain
from support.clock import run
from support.streams import ANSWER, to_bytes

from rawsse.client.resources import RawResponse, TokenCount
from rawsse.client.stream import EventStream
from rawsse.errors import BadRequestError
from rawsse.messages import Message
from rawsse.replay.fakes import FakeStream

LIMITS = {
    "anthropic_ratelimit_requests_limit": "50",
    "anthropic_ratelimit_requests_remaining": "49",
    "anthropic_ratelimit_requests_reset": "2026-01-02T03:04:05Z",
}


def streamed(**fields: str) -> bytes:
    body = to_bytes(ANSWER)
    return head(content_type="text/event-stream", content_length=f"{len(body)}", request_id="req_9", **fields) + body


def made(**fields: str) -> RawResponse[TokenCount]:
    raw: RawResponse[TokenCount] = run(
        client_of(plain(b'{"input_tokens": 3}', **fields)).messages.with_raw_response.count_tokens(
            model="m", messages=[]
        )
    )
    return raw


def test_a_response_has_a_status_header_fields_and_a_request_id() -> None:
    raw = made(request_id="req_1", X_Other="b")
    assert (raw.status_code, raw.request_id, raw.headers["x-other"], raw.retries_taken) == (200, "req_1", "b", 0)


def test_a_response_without_ids_has_none() -> None:
    assert made().request_id is None


def test_parsing_gives_what_it_brought() -> None:
    assert run(made().parse()).input_tokens == 3


def test_the_rate_limits_are_read() -> None:
    requests = made(**LIMITS).rate_limits.requests
    assert requests is not None
    assert (requests.limit, requests.remaining) == (50, 49)
    assert requests.reset == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert not made().rate_limits


def test_its_repr_tells_neither_the_answer_nor_the_time() -> None:
    assert repr(made(request_id="req_1")) == "<RawResponse 200, request req_1>"


def test_a_whole_message_comes_with_its_response() -> None:
    raw = run(client_of(streamed(**LIMITS)).messages.with_raw_response.create(**ASK))
    assert type(raw.parsed) is Message
    assert (raw.parsed.text, raw.request_id, raw.retries_taken) == ("Hello ☺", "req_9", 0)
    assert raw.rate_limits.requests is not None
    assert raw.timing.ended == 0


def test_events_come_with_their_response_and_are_still_to_be_read() -> None:
    async def story() -> list[str]:
        raw = await client_of(streamed()).messages.with_raw_response.create(**ASK, stream=True)
        assert (raw.status_code, raw.request_id) == (200, "req_9")
        events = await raw.parse()
        assert type(events) is EventStream
        return [event.type async for event in events]

    assert run(story()) == [raw["type"] for raw in ANSWER]


def test_a_count_comes_with_its_response() -> None:
    client = client_of(plain(b'{"input_tokens": 3}', request_id="req_2"))
    raw = run(client.messages.with_raw_response.count_tokens(model="m", messages=[]))
    assert (raw.parsed.input_tokens, raw.request_id) == (3, "req_2")
    assert KEY not in repr(raw)


def test_retries_are_counted() -> None:
    later = FakeStream([plain(b"{}", "529 Later", connection="close")])
    client = client_of(later, streamed(), max_retries=1)
    assert run(client.messages.with_raw_response.create(**ASK)).retries_taken == 1


def test_a_refusal_is_raised_as_it_is_without_a_raw_response() -> None:
    client = client_of(plain(b"{}", "400 No", request_id="req_3"))
    with pytest.raises(BadRequestError) as caught:
        run(client.messages.with_raw_response.create(**ASK))
    assert caught.value.request_id == "req_3"


def test_a_call_that_does_not_exist_is_an_error_at_once() -> None:
    with pytest.raises(AttributeError, match="creat"):
        _ = client_of().messages.with_raw_response.creat


# --- As a block ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with_raw_response", "with_streaming_response"])
def test_leaving_the_block_closes_what_was_not_read(name: str) -> None:
    async def story() -> list[str]:
        connection = FakeStream([streamed()[:-40]], end=None)
        async with getattr(client_of(connection).messages, name).create(**ASK, stream=True) as raw:
            assert (raw.status_code, raw.headers["request-id"]) == (200, "req_9")
            events = await raw.parse()
            first = await anext(events)
        assert connection.is_aborted
        return [first.type, events.ending.kind]

    assert run(story()) == ["message_start", "cancelled"]


def test_a_response_that_was_awaited_may_be_entered_later() -> None:
    async def story() -> str:
        connection = FakeStream([streamed()[:-40]], end=None)
        raw = await client_of(connection).messages.with_raw_response.create(**ASK, stream=True)
        async with raw as entered:
            assert entered is raw
        assert connection.is_aborted
        return str(raw.parsed.ending.kind)

    assert run(story()) == "cancelled"


def test_a_block_around_a_whole_answer_has_it() -> None:
    async def story() -> str:
        async with client_of(streamed()).messages.with_streaming_response.create(**ASK) as raw:
            message = await raw.parse()
            assert isinstance(message, Message)
            return message.text

    assert run(story()) == "Hello ☺"


def test_a_refusal_is_raised_by_the_block() -> None:
    async def story() -> None:
        async with client_of(plain(b"{}", "400 No")).messages.with_streaming_response.create(**ASK):
            pytest.fail("it was refused")

    with pytest.raises(BadRequestError):
        run(story())


def test_the_models_too() -> None:
    async def story() -> str:
        client = client_of(plain(b'{"type": "model", "id": "m"}', request_id="req_4"))
        async with client.models.with_streaming_response.retrieve("m") as raw:
            return f"{raw.request_id} {(await raw.parse()).id}"

    assert run(story()) == "req_4 m"
