"""rawsse.client.blocking: conversations without async, over fake streams; what becomes of the history is tried in
`tools/test_conversation.py`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.answers import KEY, SSE_HEAD, Connections, Sent, answer, chunked
from support.asking import calling, saying
from support.background import PATIENCE
from support.streams import block_start, start, text_delta, to_bytes
from support.upstream import is_waiting, needs_signals, until

from rawsse.client.blocking import BlockingConversation, Client
from rawsse.client.tools.conversation import CUT_NOTE
from rawsse.client.tools.tool import tool
from rawsse.errors import ConfigurationError, StreamCancelledError, StreamTruncatedError
from rawsse.replay.fakes import FakeStream

Talk = Callable[..., BlockingConversation]

HELLO = saying("Hel", "lo.")
LOOK = calling(("weather", '{"city": "Oslo"}'), text="Let me see.")
CUT = SSE_HEAD + chunked(to_bytes([start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "Hel")]))


@tool
def weather(city: str) -> str:
    return f"{city}: 4 degrees"


def connection(given: Any) -> FakeStream:
    return (
        given if isinstance(given, FakeStream) else FakeStream([given if isinstance(given, bytes) else answer(given)])
    )


def client_of(*answers: Any) -> Client:
    made = Connections(*(connection(given) for given in answers))
    return Client(api_key=KEY, base_url="http://api.example", connect=made, max_retries=0)


def unending(text: str) -> FakeStream:
    """An answer that has come as far as this text, and waits."""
    events = [start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, text)]
    return FakeStream([SSE_HEAD + chunked(to_bytes(events)).removesuffix(b"0\r\n\r\n")], end=None)


@pytest.fixture
def talk() -> Iterator[Talk]:
    """Begin a conversation whose answers are these: events, bytes or streams."""
    clients: list[Client] = []

    def talk(*answers: Any, **options: Any) -> BlockingConversation:
        clients.append(client_of(*answers))
        return clients[-1].conversation(model="m", max_tokens=9, **options)

    yield talk
    for client in clients:
        client.close()


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


# --- Asking --------------------------------------------------------------------------------------------------------


def test_questions_and_answers_become_the_history(talk: Talk) -> None:
    second = connection(saying("Bye."))
    conversation = talk(HELLO, second, system="Be brief.", temperature=0)
    assert conversation.ask("Hello?").text == "Hello."
    assert conversation.ask("Bye!").text == "Bye."
    assert conversation.messages == [user("Hello?"), assistant("Hello."), user("Bye!"), assistant("Bye.")]
    asked = {"model": "m", "max_tokens": 9, "system": "Be brief.", "temperature": 0, "stream": True}
    assert Sent(second.written).json == {**asked, "messages": conversation.messages[:3]}


def test_the_text_comes_piece_by_piece_and_the_conversation_keeps_it(talk: Talk) -> None:
    conversation = talk(HELLO)
    with conversation.stream("Hello?") as reply:
        assert list(reply.text_stream) == ["Hel", "lo."]
    assert conversation.messages[1:] == [assistant("Hello.")]
    assert [(turn.state, turn.stopped_by) for turn in conversation.turns] == [("answered", "end_turn")]
    assert conversation.usage.output_tokens == conversation.turns[0].usage.output_tokens == 7


@pytest.mark.parametrize("way", ["text", "events", "until_done", "message", "final_text"])
def test_with_tools_a_reply_goes_on_over_all_answers_whichever_way_it_is_read(talk: Talk, way: str) -> None:
    conversation = talk(LOOK, saying("Cold."), tools=[weather])
    with conversation.stream("Oslo?") as reply:
        if way == "text":
            assert list(reply.text_stream) == ["Let me see.", "Cold."]
        elif way == "events":
            assert [event.type for event in reply].count("message_stop") == 2
        elif way == "message":
            assert reply.get_final_message().text == "Cold."
        elif way == "final_text":
            assert reply.get_final_text() == "Cold."
        else:
            reply.until_done()
        assert reply.stream.current_message_snapshot.text == "Cold."
        assert reply.stream.request_id == "req_1"
    assert conversation.usage.output_tokens == 14
    assert [message["role"] for message in conversation.messages] == ["user", "assistant", "user", "assistant"]
    assert conversation.messages[2]["content"][0]["content"] == "Oslo: 4 degrees"


# --- Answers that break off ----------------------------------------------------------------------------------------


def test_what_came_of_a_cut_answer_stays_and_the_next_question_says_so(talk: Talk) -> None:
    conversation = talk(CUT, HELLO)
    with pytest.raises(StreamTruncatedError):
        conversation.ask("one")
    assert conversation.turns[0].state == "cut"
    conversation.ask("two")
    note = {"type": "text", "text": CUT_NOTE}
    question = {"role": "user", "content": [note, {"type": "text", "text": "two"}]}
    assert conversation.messages == [user("one"), assistant("Hel"), question, assistant("Hello.")]


def test_the_last_question_can_be_asked_again(talk: Talk) -> None:
    conversation = talk(CUT, HELLO)
    with pytest.raises(StreamTruncatedError), conversation.stream("one") as reply:
        list(reply.text_stream)
    with conversation.retry() as reply:
        reply.until_done()
    assert conversation.messages == [user("one"), assistant("Hello.")]


def test_a_reply_that_is_left_early_is_cut(talk: Talk) -> None:
    waiting = unending("Hel")
    conversation = talk(waiting, HELLO)
    with conversation.stream("one") as reply:
        assert next(reply.text_stream) == "Hel"
    assert (conversation.turns[0].state, conversation.turns[0].stopped_by) == ("cut", "closed")
    assert waiting.is_aborted
    assert conversation.ask("two").text == "Hello."


def test_any_thread_may_close_a_reply(talk: Talk) -> None:
    conversation = talk(unending("Hel"))
    with conversation.stream("one") as reply:
        texts = reply.text_stream
        assert next(texts) == "Hel"

        def close() -> None:
            until(is_waiting)
            reply.close()

        closing = threading.Thread(target=close)
        closing.start()
        with pytest.raises(StreamCancelledError, match="closed"):
            next(texts)
        closing.join(PATIENCE)
    assert conversation.messages == [user("one"), assistant("Hel"), user(CUT_NOTE)]


def test_a_client_that_is_closed_meanwhile_ends_the_reply_and_the_history_keeps_what_came() -> None:
    client = client_of(unending("Hel"))
    conversation = client.conversation(model="m", max_tokens=9)
    with conversation.stream("one") as reply:
        assert next(reply.text_stream) == "Hel"
        client.close()
    assert conversation.messages == [user("one"), assistant("Hel"), user(CUT_NOTE)]
    with pytest.raises(RuntimeError, match=r"^the client is closed$"):
        conversation.ask("two")


@needs_signals
def test_an_interrupt_stops_the_tools_and_the_next_question_can_be_asked(talk: Talk) -> None:
    may_end = threading.Event()

    @tool(name="weather")
    def interrupt(city: str) -> str:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        may_end.wait(PATIENCE)
        return city

    conversation = talk(LOOK, HELLO, tools=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        conversation.ask("one")
    may_end.set()
    assert (conversation.turns[0].state, conversation.turns[0].stopped_by) == ("stopped", "KeyboardInterrupt")
    assert conversation.ask("two").text == "Hello."


# --- Misuse --------------------------------------------------------------------------------------------------------


def test_a_reply_must_be_opened_before_it_is_read(talk: Talk) -> None:
    with pytest.raises(RuntimeError, match=r"^the reply is not open: enter its `with` block first$"):
        talk().stream("one").get_final_text()


def test_one_question_at_a_time(talk: Talk) -> None:
    conversation = talk(HELLO)
    with conversation.stream("one") as reply:
        with pytest.raises(RuntimeError, match=r"^the conversation is still waiting for an answer$"):
            conversation.ask("two")
        assert reply.get_final_text() == "Hello."


def test_a_reply_comes_once(talk: Talk) -> None:
    conversation = talk(HELLO)
    with conversation.stream("one") as reply:
        reply.until_done()
    with pytest.raises(RuntimeError, match="a reply can be read once"):
        reply.__enter__()
    assert conversation.messages == [user("one"), assistant("Hello.")]


def test_a_question_of_nothing_is_refused_at_once(talk: Talk) -> None:
    with pytest.raises(ConfigurationError, match=r"^the question is empty$"):
        talk().stream(" ")


def test_there_must_be_a_question_to_ask_again(talk: Talk) -> None:
    with pytest.raises(RuntimeError, match=r"^there is no question to ask again$"):
        talk().retry()
