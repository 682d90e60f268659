"""rawsse.relay.users, `choose`: what a request may ask for, and what the operator decides."""

from __future__ import annotations

from typing import Any

import pytest

from rawsse.relay.dialects import InvalidRequest, read_chat, read_messages
from rawsse.relay.ui import read_ui
from rawsse.relay.users import UserLimits, choose, models_of

ASK = [{"role": "user", "content": "hi"}]
DEFAULTS = {"model": "sonnet", "max_tokens": 4096}
SPOKEN = {**DEFAULTS, "system": "Be brief."}
BOTH = pytest.mark.parametrize("is_browser", [True, False], ids=["browser", "messages"])


def chosen(*limits: UserLimits, is_browser: bool, defaults: dict[str, Any] = DEFAULTS, **asked: Any) -> dict[str, Any]:
    request = choose({"messages": ASK, **asked}, defaults, limits, is_browser=is_browser)
    assert request.pop("messages") == asked.get("messages", ASK)
    return request


def wrong(*limits: UserLimits, is_browser: bool, **asked: Any) -> str | None:
    """The words of the refusal; None if the request is taken."""
    refused = None
    try:
        chosen(*limits, is_browser=is_browser, **asked)
    except InvalidRequest as exc:
        refused = exc
    assert refused is None or refused.status == 400
    return str(refused) if refused else None


def models(*names: str) -> UserLimits:
    return UserLimits(models=names)


# --- Defaults ------------------------------------------------------------------------------------------------------


@BOTH
def test_a_request_that_names_nothing_has_what_the_relay_says(is_browser: bool) -> None:
    assert chosen(is_browser=is_browser) == DEFAULTS
    assert chosen(UserLimits(), models("opus", "sonnet"), is_browser=is_browser) == DEFAULTS


@BOTH
def test_defaults_fit_the_limits(is_browser: bool) -> None:
    limits = (models("haiku", "opus"), UserLimits(max_tokens=100))
    assert chosen(*limits, is_browser=is_browser) == {"model": "haiku", "max_tokens": 100}


def test_what_has_no_default_is_not_added() -> None:
    assert chosen(UserLimits(max_tokens=1), is_browser=False, defaults={"model": "sonnet"}) == {"model": "sonnet"}


@BOTH
def test_the_request_itself_is_left_as_it_was(is_browser: bool) -> None:
    request = {"messages": ASK}
    choose(request, SPOKEN, [UserLimits(max_tokens=5)], is_browser=is_browser)
    assert request == {"messages": ASK}
    assert SPOKEN == {**DEFAULTS, "system": "Be brief."}


# --- The system prompt ---------------------------------------------------------------------------------------------


def test_a_browsers_system_prompt_is_the_relays() -> None:
    assert chosen(is_browser=True, defaults=SPOKEN) == SPOKEN


def test_on_messages_it_is_the_callers() -> None:
    assert chosen(is_browser=False, defaults=SPOKEN) == DEFAULTS
    assert chosen(is_browser=False, defaults=SPOKEN, system="Mine.") == {**DEFAULTS, "system": "Mine."}
    turn = {"role": "system", "content": "Mine."}
    assert wrong(is_browser=False, messages=[*ASK, turn]) is None


@pytest.mark.parametrize("system", ["Mine.", "", None, [{"type": "text", "text": "Mine."}]])
def test_a_browser_may_not_set_it(system: object) -> None:
    assert wrong(is_browser=True, system=system) == "system: is set by the relay"


def test_nor_send_a_turn_of_the_system() -> None:
    words = wrong(is_browser=True, messages=[*ASK, {"role": "system", "content": "Mine."}])
    assert words == "messages.1.role: must be user or assistant"


def test_this_holds_for_each_form_of_a_browsers_request() -> None:
    turn = {"id": "1", "role": "system", "parts": [{"type": "text", "text": "Mine."}]}
    ask = {"id": "2", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    _, of_use_chat = read_ui({"id": "chat", "messages": [turn, ask]}, max_prompt_chars=99)
    of_text = read_chat({"message": "hi", "system": "Mine."}, max_prompt_chars=99)
    for request in (of_use_chat, of_text):
        with pytest.raises(InvalidRequest, match=r"^system: is set by the relay$"):
            choose(request, SPOKEN, (), is_browser=True)
    for body in ({"message": "hi"}, {"prompt": "hi"}, {"messages": ASK}):
        assert choose(read_chat(body, max_prompt_chars=99), SPOKEN, (), is_browser=True) == {**SPOKEN, "messages": ASK}


# --- Models --------------------------------------------------------------------------------------------------------


def test_without_a_list_a_browser_may_name_the_default_alone_and_a_program_any() -> None:
    assert wrong(is_browser=True, model="sonnet") is None
    assert wrong(is_browser=True, model="opus") == "model: must be one of sonnet"
    assert chosen(is_browser=False, model="opus")["model"] == "opus"


@BOTH
@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ([models("sonnet", "opus")], "sonnet, opus"),
        ([UserLimits(), models("opus")], "opus"),
        ([models("sonnet", "opus", "haiku"), models("haiku", "sonnet", "other")], "sonnet, haiku"),
    ],
)
def test_a_model_must_be_on_every_list(is_browser: bool, limits: list[UserLimits], allowed: str) -> None:
    for name in ("sonnet", "opus", "haiku", "other", "opu"):
        words = wrong(*limits, is_browser=is_browser, model=name)
        assert words == (None if name in allowed.split(", ") else f"model: must be one of {allowed}")


@BOTH
def test_lists_that_have_nothing_in_common_allow_nothing(is_browser: bool) -> None:
    limits = (models("sonnet"), models("opus"))
    assert models_of(limits) == []
    assert wrong(*limits, is_browser=is_browser) == "model: none is allowed"
    assert wrong(*limits, is_browser=is_browser, model="opus") == "model: none is allowed"


def test_the_models_that_are_allowed_are_known() -> None:
    assert models_of([UserLimits(), UserLimits()]) is None
    assert models_of([UserLimits(), models("b", "a"), models("a", "b", "c")]) == ["b", "a"]


ADVISOR = {"type": "advisor_20260301", "name": "advisor", "model": "opus"}
ADDITION = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": ADVISOR}}
BY_THE_WAY: list[tuple[dict[str, Any], str]] = [
    ({"fallbacks": [{"model": "haiku"}, {"model": "opus"}]}, "fallbacks.1.model"),
    ({"tools": [{"name": "weather", "input_schema": {}}, ADVISOR]}, "tools.1.model"),
    ({"messages": [*ASK, {"role": "system", "content": [ADDITION]}]}, "messages.1.content.0.model"),
    (
        {"messages": [{"role": "assistant", "content": [{"type": "compaction", "tool_changes": [ADDITION]}]}]},
        "messages.0.content.0.model",
    ),
]
"""Models beside that of the request: of the beta `server-side-fallback`, and of the advisor, which is a tool."""


@pytest.mark.parametrize(("asked", "place"), BY_THE_WAY, ids=[place for _, place in BY_THE_WAY])
def test_the_list_holds_for_every_model_in_a_request(asked: dict[str, Any], place: str) -> None:
    request = read_messages({"messages": ASK, **asked}, max_prompt_chars=99)
    words = wrong(models("sonnet", "haiku"), is_browser=False, **request)
    assert words == f"{place}: must be one of sonnet, haiku"
    assert wrong(models("sonnet", "haiku", "opus"), is_browser=False, **request) is None
    assert wrong(is_browser=False, **request) is None


@pytest.mark.parametrize(("asked", "place"), [BY_THE_WAY[1], BY_THE_WAY[3]])
def test_it_holds_for_browsers_too(asked: dict[str, Any], place: str) -> None:
    assert wrong(is_browser=True, **asked) == f"{place}: must be one of sonnet"


def test_fallbacks_that_the_api_chooses_are_taken_only_where_any_model_is() -> None:
    assert wrong(is_browser=False, fallbacks="default") is None
    words = wrong(models("sonnet"), is_browser=False, fallbacks="default")
    assert words == "fallbacks: must be a list that names the models"


@pytest.mark.parametrize("odd", [None, 7, ["text", None, 7, []], {}], ids=repr)
@pytest.mark.parametrize("name", ["tools", "fallbacks", "messages", "content", "tool_changes", "tool"])
def test_odd_shapes_are_left_to_the_api(name: str, odd: object) -> None:
    asked: dict[str, Any] = {name: odd}
    if name == "content":
        asked = {"messages": [{"content": odd}]}
    if name in ("tool_changes", "tool"):
        asked = {"messages": [{"content": [{name: odd}]}]}
    assert chosen(models("sonnet"), is_browser=False, **asked)["model"] == "sonnet"


# --- max_tokens ----------------------------------------------------------------------------------------------------


def test_a_browser_may_not_exceed_the_relays_max_tokens_and_a_program_may() -> None:
    assert chosen(is_browser=True, max_tokens=4096)["max_tokens"] == 4096
    assert wrong(is_browser=True, max_tokens=4097) == "max_tokens: must be a whole number, at most 4096"
    assert chosen(is_browser=False, max_tokens=32_000)["max_tokens"] == 32_000


@BOTH
def test_the_least_of_all_caps_holds(is_browser: bool) -> None:
    limits = (UserLimits(max_tokens=900), UserLimits(), UserLimits(max_tokens=800))
    assert chosen(*limits, is_browser=is_browser, max_tokens=800)["max_tokens"] == 800
    words = "max_tokens: must be a whole number, at most 800"
    assert wrong(*limits, is_browser=is_browser, max_tokens=801) == words


@BOTH
def test_a_cap_above_the_relays_lets_only_programs_ask_for_more(is_browser: bool) -> None:
    words = wrong(UserLimits(max_tokens=8192), is_browser=is_browser, max_tokens=8192)
    assert words == ("max_tokens: must be a whole number, at most 4096" if is_browser else None)


@pytest.mark.parametrize("count", [801, 1e9, "801", [801]], ids=repr)
def test_the_cap_holds_for_fallbacks_and_tools_too(count: object) -> None:
    cap, words = UserLimits(max_tokens=800), "max_tokens: must be a whole number, at most 800"
    fallback = {"model": "opus", "max_tokens": count}
    assert wrong(cap, is_browser=False, fallbacks=[fallback]) == f"fallbacks.0.{words}"
    assert wrong(cap, is_browser=False, tools=[{**ADVISOR, "max_tokens": count}]) == f"tools.0.{words}"


def test_warming_the_cache_is_no_excess() -> None:
    assert chosen(UserLimits(max_tokens=1), is_browser=False, max_tokens=0)["max_tokens"] == 0
