"""rawsse.client.resources: lists that come in pages, from a server that is a function."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.answers import Sent, client_of, plain
from support.clock import run

from rawsse.client.request import Query
from rawsse.client.resources import AsyncPage, ModelInfo, Pages
from rawsse.errors import APIConnectionError, ConfigurationError, EventDataError
from rawsse.messages.lens import Lens
from rawsse.replay.fakes import FakeStream


def model(id: str) -> dict[str, Any]:
    return {"type": "model", "id": id, "display_name": id.title(), "created_at": "2026-02-05T00:00:00Z"}


def answer(*ids: str, **fields: Any) -> dict[str, Any]:
    """A page as the API sends it, the last one unless `has_more` says otherwise."""
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return {"data": [model(id) for id in ids], "first_id": first, "last_id": last, "has_more": False, **fields}


class Server:
    """Gives these answers, one after the other, and keeps what it was asked. An error among them is raised."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Query] = []

    async def __call__(self, query: Query) -> dict[str, Any]:
        self.asked.append(query)
        given = self.answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


async def ids_of(models: Pages | AsyncPage) -> list[str]:
    return [model.id async for model in models]


async def first_of(server: Server, query: Query | None = None) -> AsyncPage:
    return await Pages(server, query or {})


# --- All of them ----------------------------------------------------------------------------------------------------


def test_a_list_of_one_page_is_asked_for_once() -> None:
    server = Server(answer("a", "b"))
    assert run(ids_of(Pages(server, {"limit": "5"}))) == ["a", "b"]
    assert server.asked == [{"limit": "5"}]


def test_iterating_goes_on_from_the_last_id_of_each_page() -> None:
    server = Server(answer("a", "b", has_more=True), answer("c", "d", has_more=True), answer("e"))
    assert run(ids_of(Pages(server, {"limit": "2"}))) == ["a", "b", "c", "d", "e"]
    assert server.asked == [{"limit": "2"}, {"limit": "2", "after_id": "b"}, {"limit": "2", "after_id": "d"}]


def test_a_caller_who_pages_backwards_goes_on_from_the_first_id() -> None:
    server = Server(answer("d", "e", has_more=True), answer("b", "c", has_more=True), answer("a"))
    assert run(ids_of(Pages(server, {"before_id": "f"}))) == ["d", "e", "b", "c", "a"]
    assert server.asked == [{"before_id": "f"}, {"before_id": "d"}, {"before_id": "b"}]


def test_a_caller_who_starts_in_the_middle_goes_on_from_there() -> None:
    server = Server(answer("d", has_more=True), answer("e"))
    assert run(ids_of(Pages(server, {"after_id": "c", "lifecycle": ["active", "retired"]}))) == ["d", "e"]
    assert server.asked[1] == {"after_id": "d", "lifecycle": ["active", "retired"]}


def test_a_page_is_fetched_when_it_is_needed_and_not_before() -> None:
    async def story() -> list[int]:
        server = Server(answer("a", "b", has_more=True), answer("c"))
        models = aiter(Pages(server, {}))
        return [len(server.asked), *[len(server.asked) async for _ in models]]

    assert run(story()) == [0, 1, 1, 2]


def test_a_loop_that_is_left_leaves_nothing_behind() -> None:
    async def story() -> int:
        server = Server(answer("a", "b", has_more=True))
        async for _ in Pages(server, {}):
            break
        return len(server.asked)

    assert run(story()) == 1  # and `run` finds no generator that was left to the loop


def test_each_loop_over_a_list_begins_anew() -> None:
    async def story() -> list[str]:
        models = Pages(Server(answer("a"), answer("b")), {})
        return [*await ids_of(models), *await ids_of(models)]

    assert run(story()) == ["a", "b"]


def test_iterating_over_a_page_gives_it_and_all_after_it() -> None:
    async def story() -> list[str]:
        page = await first_of(Server(answer("a", has_more=True), answer("b", has_more=True), answer("c")))
        second = await page.get_next_page()
        return await ids_of(second)

    assert run(story()) == ["b", "c"]


def test_after_its_end_an_iterator_stays_at_its_end() -> None:
    async def story() -> list[str]:
        models = aiter(Pages(Server(answer("a")), {}))
        return [each.id for _ in range(3) async for each in models]

    assert run(story()) == ["a"]


def test_a_failure_comes_out_of_the_loop_and_the_page_can_be_tried_again() -> None:
    async def story() -> list[str]:
        server = Server(answer("a", has_more=True), APIConnectionError("the network is down"), answer("b"))
        models = aiter(Pages(server, {}))
        found = [(await anext(models)).id]
        with pytest.raises(APIConnectionError, match="the network is down"):
            await anext(models)
        return [*found, (await anext(models)).id]

    assert run(story()) == ["a", "b"]


# --- One page -------------------------------------------------------------------------------------------------------


def test_awaiting_a_list_gives_its_first_page() -> None:
    page = run(first_of(Server(answer("a", "b", has_more=True))))
    assert ([model.id for model in page.data], page.first_id, page.last_id, page.has_more) == (
        ["a", "b"],
        "a",
        "b",
        True,
    )


def test_a_page_is_a_lens_over_the_answer() -> None:
    raw = answer("a", new=1)
    page = run(first_of(Server(raw)))
    assert isinstance(page, Lens)
    assert (page.raw is raw, page["new"], page.to_dict() == raw) == (True, 1, True)


@pytest.mark.parametrize(
    ("raw", "has_next"),
    [
        (answer("a", has_more=True), True),
        (answer("a", has_more=False), False),
        (answer(has_more=True), False),
        (answer(has_more=True, last_id="a"), False),
        (answer("a", has_more=True, last_id=None), False),
        (answer("a", has_more=True, last_id=""), False),
        (answer("a", has_more=True, last_id=5), False),
        (answer("a", has_more=None), True),  # as the official SDKs read it
        ({"data": [model("a")]}, False),
        ({"data": []}, False),
    ],
)
def test_there_is_a_next_page_if_the_server_does_not_deny_it_and_says_from_where(
    raw: dict[str, Any], has_next: bool
) -> None:
    assert run(first_of(Server(raw))).has_next_page() is has_next


def test_the_next_page_of_the_last_one_is_a_mistake_of_the_caller() -> None:
    async def story() -> None:
        await (await first_of(Server(answer("a")))).get_next_page()

    with pytest.raises(RuntimeError, match=re.escape("no next page: call has_next_page() first")):
        run(story())


@pytest.mark.parametrize("data", [None, {}, "x", [1], [model("a"), None]])
def test_an_answer_that_is_no_page_says_what_it_is(data: Any) -> None:
    with pytest.raises(EventDataError, match=r"the page has no 'data' that is a list of objects: \"\{'data': "):
        run(first_of(Server({"data": data})))


def test_an_answer_without_data_is_no_page() -> None:
    with pytest.raises(EventDataError, match=r"the page has no 'data' that is a list of objects: '\{\}'"):
        run(first_of(Server({})))


# --- A server that goes in circles ----------------------------------------------------------------------------------


def test_a_server_that_gives_the_same_page_for_ever_is_not_asked_for_ever() -> None:
    server = Server(*[answer("a", "b", has_more=True)] * 9)
    with pytest.raises(EventDataError, match="the list goes in a circle: it was asked for after_id 'b' before"):
        run(ids_of(Pages(server, {})))
    assert len(server.asked) == 2


def test_nor_is_one_whose_pages_lead_round_in_a_ring() -> None:
    ring = [answer("a", has_more=True), answer("b", has_more=True), answer("c", has_more=True)]
    server = Server(*ring * 3)
    with pytest.raises(EventDataError, match="it was asked for after_id 'a' before"):
        run(ids_of(Pages(server, {})))
    assert len(server.asked) == 4


def test_nor_by_a_caller_who_takes_page_after_page() -> None:
    async def story() -> None:
        page = await first_of(Server(*[answer("a", has_more=True)] * 9), {"before_id": "z"})
        while page.has_next_page():
            page = await page.get_next_page()

    with pytest.raises(EventDataError, match="it was asked for before_id 'a' before"):
        run(story())


def test_a_last_page_that_ends_as_the_one_before_it_is_an_end_all_the_same() -> None:
    server = Server(answer("a", has_more=True), answer("a"))
    assert run(ids_of(Pages(server, {}))) == ["a", "a"]


def test_the_same_next_page_can_be_fetched_twice() -> None:
    async def story() -> tuple[str, str]:
        page = await first_of(Server(answer("a", has_more=True), answer("b"), answer("b")))
        return (await page.get_next_page()).data[0].id, (await page.get_next_page()).data[0].id

    assert run(story()) == ("b", "b")


# --- A model --------------------------------------------------------------------------------------------------------


def test_what_is_not_told_of_a_model_is_none() -> None:
    info = ModelInfo(model("claude"))
    assert (info.type, info.id, info.display_name, info.created_at) == (
        "model",
        "claude",
        "Claude",
        "2026-02-05T00:00:00Z",
    )
    assert (info.lifecycle, info.line, info.max_input_tokens, info.max_tokens) == (None, None, None, None)
    assert (info.deprecated_at, info.retires_at, info.capabilities) == (None, None, None)


def test_the_capabilities_of_a_model_can_be_looked_at() -> None:
    info = ModelInfo({**model("claude"), "capabilities": {"citations": {"supported": True}}})
    assert info.capabilities is not None
    assert info.capabilities.citations.supported is True


# --- The request target ---------------------------------------------------------------------------------------------


def test_a_model_has_a_path_of_its_own_whatever_its_id() -> None:
    for id, path in (("claude-opus-5", "/v1/models/claude-opus-5"), ("../keys?x", "/v1/models/..%2Fkeys%3Fx")):
        connection = FakeStream([plain(b"{}")])
        run(client_of(connection).models.retrieve(id))
        assert Sent(connection.written).line == f"GET {path} HTTP/1.1"


@pytest.mark.parametrize("id", ["", ".", ".."])
def test_an_id_that_would_lead_elsewhere_is_refused(id: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"model_id is not a model ID: '{id}'")):
        run(client_of().models.retrieve(id))


def test_an_id_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"model_id is not Unicode text: 'a\\udfff'"):
        run(client_of().models.retrieve("a\udfff"))
