"""rawsse.client.blocking.facade: blocking classes as reflection sees them, and what they give and take."""

from __future__ import annotations

import builtins
import copy
import gc
import inspect
import pydoc
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any, get_origin

import pytest
from support.answers import ASK, KEY, Connections, answer, plain
from support.streams import ANSWER

import rawsse
from rawsse.client.blocking import (
    BlockingConversation,
    BlockingEventStream,
    BlockingMessageStream,
    BlockingRawResponse,
    BlockingReply,
    BlockingToolRunner,
    Client,
    Page,
)
from rawsse.client.blocking.facade import Facade
from rawsse.client.client import AsyncClient
from rawsse.client.resources import AsyncBeta, AsyncMessages, AsyncModels, AsyncPage, RawResponse
from rawsse.client.stream import EventStream, MessageStream
from rawsse.client.tools.conversation import Conversation, Reply
from rawsse.client.tools.runner import ToolRunner
from rawsse.errors import ConfigurationError
from rawsse.replay.fakes import FakeStream, fake_links

FACADES = [made for made in Facade._blocking.values() if made.__module__ == "rawsse.client.blocking"]

SPECIAL = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}

HIDDEN = {"aclose", "call"}


def client_of(*streams: FakeStream | bytes, **options: Any) -> Client:
    made = [FakeStream([stream]) if isinstance(stream, bytes) else stream for stream in streams]
    given: dict[str, Any] = {"connect": Connections(*made), "max_retries": 0, **options}
    return Client(api_key=KEY, base_url="http://api.example", **given)


@pytest.mark.parametrize(
    "options", [{"api_key": "s3cr3t"}, {"auth_token": "s3cr3t"}, {"proxy": "http://u:s3cr3t@h"}], ids=str
)
def test_the_frames_of_a_constructor_that_fails_show_no_secret(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client(**{"api_key": KEY, **options}, timeout=-1)  # type: ignore[arg-type]
    ours = [
        repr(each.locals)
        for each in traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
        if each.filename != __file__
    ]
    assert ours
    assert "s3cr3t" not in "".join(ours)


# --- Names, signatures, docstrings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asynchronous", "blocking"),
    [
        (AsyncClient, Client),
        (AsyncMessages, type(Client(api_key=KEY).messages)),
        (AsyncModels, type(Client(api_key=KEY).models)),
        (AsyncBeta, type(Client(api_key=KEY).beta)),
        (AsyncPage, Page),
        (ToolRunner, BlockingToolRunner),
        (MessageStream, BlockingMessageStream),
        (EventStream, BlockingEventStream),
        (RawResponse, BlockingRawResponse),
        (Conversation, BlockingConversation),
        (Reply, BlockingReply),
    ],
)
def test_a_blocking_class_has_what_the_async_one_has_with_the_same_arguments(
    asynchronous: type, blocking: type
) -> None:
    theirs = {name for name in dir(asynchronous) if not name.startswith("_") and not name.isupper()} - HIDDEN
    theirs |= {SPECIAL[name] for name in dir(asynchronous) if name in SPECIAL}
    assert theirs - {"count", "index"} <= set(dir(blocking))  # those of a named tuple
    for name in theirs & set(dir(blocking)):
        member = inspect.getattr_static(asynchronous, name, None)
        if inspect.isfunction(member):
            ours = getattr(blocking, name)
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(member).parameters)
            assert not inspect.iscoroutinefunction(inspect.unwrap(ours))
    if inspect.isfunction(asynchronous.__init__):  # type: ignore[misc]
        assert list(inspect.signature(blocking).parameters) == list(inspect.signature(asynchronous).parameters)


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.__name__)
def test_no_text_speaks_of_async_code(facade: type) -> None:
    shown = pydoc.plain(pydoc.render_doc(facade)).partition("Methods inherited")[0]
    assert not re.findall(r"\b(async \w+|await|Async\w+|aclose|__a(?:enter|exit|iter|next)__)\b", shown)
    others = {of.__name__ for of in Facade._blocking} | {"Pages", "TextStream"}
    assert not re.findall(rf"\b({'|'.join(others)})\b", shown)


IN_THE_ENVIRONMENT = r"ANTHROPIC_\w+|\w+_PROXY|SSL_CERT_\w+"


@pytest.mark.parametrize("kind", [*FACADES, *(of for of, made in Facade._blocking.items() if made in FACADES)])
def test_a_docstring_names_nothing_that_cannot_be_looked_up(kind: type) -> None:
    members = [inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")]
    texts = [inspect.getdoc(each) or "" for each in (kind, *members) if not isinstance(each, int | str)]
    names = set(re.findall(r"`([A-Z]\w+|rawsse\.[\w.]+)[`(.]", " ".join(texts)))
    here = {**vars(builtins), **({} if issubclass(kind, Facade) else vars(sys.modules[kind.__module__]))}
    found = {name for name in names if pydoc.locate(name) or name in here or hasattr(rawsse, name)}
    assert {name for name in names - found if not re.fullmatch(IN_THE_ENVIRONMENT, name)} == set()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(("name", "calls"), [("messages", AsyncMessages), ("models", AsyncModels)])
def test_help_lists_what_a_client_has_with_all_its_calls(kind: type, name: str, calls: type) -> None:
    assert f" |  {name}" in pydoc.plain(pydoc.render_doc(f"rawsse.{kind.__name__}"))
    shown = pydoc.plain(pydoc.render_doc(f"rawsse.{kind.__name__}.{name}"))
    assert set(re.findall(r"`(\w+)`", shown)) >= {call for call in dir(calls) if not call.startswith("_")}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_a_client_has_can_be_replaced_in_a_test_and_is_not_shared_with_other_options(kind: Any) -> None:
    client = kind(api_key=KEY)
    for name in ("messages", "models", "beta"):
        before = getattr(client, name)
        assert getattr(client.with_options(max_retries=1), name) is not before
        setattr(client, name, "a fake")
        assert getattr(client, name) == "a fake"


def test_a_signature_names_what_the_method_gives() -> None:
    messages = Client(api_key=KEY).messages
    assert inspect.signature(messages.create).return_annotation == "Message | BlockingEventStream"
    assert inspect.signature(messages.stream).return_annotation == "BlockingMessageStream"
    assert inspect.signature(Client(api_key=KEY).models.list).return_annotation == "Page"
    assert inspect.get_annotations(type(messages).stream)["return"] == "BlockingMessageStream"


def test_a_method_has_the_name_of_its_class() -> None:
    method = type(Client(api_key=KEY).messages).create
    assert (method.__module__, method.__qualname__) == ("rawsse.client.blocking", "Messages.create")
    assert (method.__doc__ or "").startswith("The whole answer; with `stream=True`, its events.")


def test_a_property_has_its_docstring() -> None:
    assert inspect.getdoc(BlockingMessageStream.headers) == inspect.getdoc(MessageStream.headers)


def test_wrong_arguments_are_refused_in_the_names_of_the_blocking_class() -> None:
    client: Any = Client(api_key=KEY)
    with pytest.raises(TypeError, match=r"^Messages\.create\(\) missing 3 required keyword-only arguments"):
        client.messages.create()
    make: Any = Client
    with pytest.raises(TypeError, match=r"^Client\.__init__\(\) got an unexpected keyword argument 'tempo'"):
        make(tempo=1)


def test_a_type_error_from_within_a_call_stays_as_it_is() -> None:
    def give_up(_: object) -> None:
        raise TypeError("the AsyncClient of something else")

    runner = client_of().messages.tool_runner(**ASK, tools=[])
    with pytest.raises(TypeError, match=r"^the AsyncClient of something else$"):
        runner.set_messages_params(give_up)  # type: ignore[arg-type]


# --- Objects -------------------------------------------------------------------------------------------------------


def test_what_a_client_has_is_always_the_same_object() -> None:
    client = Client(api_key=KEY)
    assert client.messages is client.messages
    assert client.beta.messages is client.messages
    assert client.beta.models is client.models
    assert client.with_options(max_retries=1).messages is not client.messages


def test_dir_lists_what_a_client_has() -> None:
    client = Client(api_key=KEY)
    public = {name for name in dir(client) if not name.startswith("_")}
    assert {"messages", "models", "beta", "conversation", "close", "base_url"} <= public
    assert not public & HIDDEN
    assert all(hasattr(client, name) for name in public)


@pytest.mark.parametrize("name", sorted(HIDDEN))
def test_a_blocking_client_has_nothing_that_only_async_code_can_use(name: str) -> None:
    assert not hasattr(Client(api_key=KEY), name)


def test_an_unknown_attribute_is_missing_from_the_blocking_class() -> None:
    client: Any = Client(api_key=KEY)
    with pytest.raises(AttributeError):
        _ = client.mesages
    with pytest.raises(AttributeError, match="'Client' object has no attribute '_pools'"):
        _ = client._pools


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (lambda client: client, r"<Client for http://api\.example, with a key>"),
        (lambda client: client.messages, r"<rawsse\.client\.blocking\.Messages object at 0x\w+>"),
        (lambda client: client.messages.stream(**ASK), "<BlockingMessageStream not open, request None>"),
        (lambda client: client.messages.with_raw_response.create(**ASK), "<BlockingRawResponse 200, request req_1>"),
    ],
)
def test_a_repr_has_the_name_of_the_blocking_class(thing: Any, shown: str) -> None:
    assert re.fullmatch(shown, repr(thing(client_of(answer(ANSWER)))))


def test_a_page_is_shown_as_its_json() -> None:
    body = b'{"data": [{"id": "async AsyncPage"}], "has_more": false}'
    assert repr(client_of(plain(body)).models.list()).startswith("Page(data=[ModelInfo(id='async AsyncPage'")


def test_results_are_of_the_classes_that_are_exported() -> None:
    client = client_of(answer(ANSWER), answer(ANSWER))
    with client.messages.stream(**ASK) as stream:
        assert type(stream) is BlockingMessageStream
        assert isinstance(stream.text_stream, Iterator)
    with client.messages.create(**ASK, stream=True) as events:
        assert type(events) is BlockingEventStream
    runner = client.messages.tool_runner(**ASK, tools=[])
    assert type(runner) is BlockingToolRunner
    assert isinstance(runner.text_stream, Iterator)
    conversation = client.conversation(model="m", max_tokens=1)
    assert type(conversation) is BlockingConversation
    assert type(conversation.stream("hi")) is BlockingReply


def test_a_runner_may_be_annotated_with_what_it_yields() -> None:
    assert get_origin(BlockingToolRunner[BlockingMessageStream]) is BlockingToolRunner


# --- Classes of the user's -------------------------------------------------------------------------------------------


class Mine(Client):
    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(api_key=KEY, **options)
        self.name = name
        self.talk = self.conversation(model="m", max_tokens=9)

    def ask(self) -> str:
        text: str = self.messages.create(**ASK).text
        return text


def test_a_client_may_be_a_class_of_the_user_s() -> None:
    client = Mine("tea", base_url="http://api.example", connect=Connections(FakeStream([answer(ANSWER)])))
    assert client.ask() == "Hello ☺"
    assert repr(client) == "<Mine for http://api.example, with a key>"
    assert list(inspect.signature(Mine).parameters) == ["name", "options"]


def test_with_options_keeps_the_class_and_its_attributes() -> None:
    first = Mine("tea", base_url="http://one.example")
    second = first.with_options(base_url="http://two.example")
    assert (type(second), second.name, second.base_url) == (Mine, "tea", "http://two.example")
    assert (first.base_url, second.with_options().name) == ("http://one.example", "tea")
    assert second.talk is first.talk


def test_a_client_can_make_another_of_its_class() -> None:
    client = Client(api_key=KEY)
    assert type(type(client)(api_key=KEY)) is Client


def test_the_calls_with_their_responses_can_be_shown_and_copied() -> None:
    calls = client_of(answer(ANSWER)).messages.with_raw_response
    assert repr(calls).startswith("<rawsse.client.blocking.BlockingWithRawResponse object at ")
    assert copy.copy(calls).create(**ASK).status_code == 200


def test_a_copy_is_the_same_client() -> None:
    client = client_of(answer(ANSWER))
    assert copy.copy(client).messages.create(**ASK).text == "Hello ☺"


# --- What goes in --------------------------------------------------------------------------------------------------


def test_an_async_object_is_refused() -> None:
    wrong: Any = AsyncClient(api_key=KEY)
    with pytest.raises(
        ConfigurationError, match=r"^a blocking class cannot use an AsyncClient: give a blocking object$"
    ):
        BlockingConversation(wrong, model="m", max_tokens=9)
    with pytest.raises(ConfigurationError, match="cannot use an AsyncClient"):
        BlockingConversation(client=wrong, model="m", max_tokens=9)


def test_an_async_class_refuses_a_blocking_object() -> None:
    wrong: Any = Client(api_key=KEY)
    with pytest.raises(ConfigurationError, match=r"^a Conversation needs an AsyncClient, not a Client; "):
        Conversation(wrong, model="m", max_tokens=9)


def test_a_runner_can_be_made_of_the_messages_of_a_client() -> None:
    client = client_of(answer(ANSWER))
    runner = BlockingToolRunner[Any](client.messages, **ASK)
    assert runner.until_done().text == "Hello ☺"


# --- Memory --------------------------------------------------------------------------------------------------------


def test_an_error_is_freed_with_its_last_reference() -> None:
    class Heavy(Exception):  # noqa: N818
        def __del__(self) -> None:
            freed.append("freed")

    async def connect(*_: object) -> FakeStream:
        raise Heavy

    freed: list[str] = []
    client = Client(api_key=KEY, base_url="http://api.example", connect=fake_links(connect))
    gc.disable()
    try:
        with pytest.raises(Heavy) as caught:
            client.messages.create(**ASK)
        del caught
    finally:
        gc.enable()
    assert freed == ["freed"]
