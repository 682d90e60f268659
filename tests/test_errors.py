"""`rawsse.errors`: the tree as it is drawn, the tables from the wire to the class, and messages that give nothing away."""

from __future__ import annotations

import inspect
import json
import pickle
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest

import rawsse
from rawsse import errors
from rawsse.client.network.route import Origin, Proxy, refusal
from rawsse.errors import (
    MAX_SAID_CHARS,
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    CertificateError,
    Ending,
    EndingKind,
    EventOrderError,
    EventTooLargeError,
    Hidden,
    HTTPProtocolError,
    InternalServerError,
    LimitExceededError,
    OverloadedError,
    ProtocolError,
    ProxyError,
    RateLimitError,
    RawsseError,
    StreamCancelledError,
    UsageError,
    as_error,
    error_type,
    is_error,
    quote,
    status_error,
    stream_error,
)
from rawsse.http1 import Headers

CLASSES = {
    name: thing for name, thing in vars(errors).items() if inspect.isclass(thing) and issubclass(thing, Exception)
}
ALIASES = {"AnthropicError": "RawsseError", "APIResponseValidationError": "ProtocolError"}


def drawn() -> list[tuple[int, str]]:
    """Depth and name of each class, as the module's docstring draws them."""
    lines = re.findall(r"^ {4}((?:[│├└─ ] {0,2}[─ ]*)*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    return [(len(indent) // 4, name) for indent, name in lines]


def parents() -> dict[str, str]:
    """For each class of the drawing, the class that it hangs from."""
    path: list[str] = []
    found = {}
    for depth, name in drawn():
        del path[depth:]
        found[name] = path[-1] if path else "Exception"
        path.append(name)
    return found


def an_error(name: str) -> RawsseError:
    """One of that class, with all that it takes."""
    cls: Any = CLASSES[name]
    values = {"status_code": 500, "headers": {"a": "b"}, "limit": 5, "rule": "r", "position": 1, "seconds": 2.0}
    takes = inspect.signature(cls.__init__).parameters
    return cls("words", **{key: value for key, value in values.items() if key in takes})  # type: ignore[no-any-return]


# --- The tree ------------------------------------------------------------------------------------------------------


def test_the_drawing_holds_every_class_once() -> None:
    names = [name for _, name in drawn()]
    assert sorted(names) == sorted(set(CLASSES) - set(ALIASES))


@pytest.mark.parametrize("name", sorted(set(CLASSES) - set(ALIASES)))
def test_a_class_hangs_where_it_is_drawn(name: str) -> None:
    assert CLASSES[name].__bases__[0].__name__ == parents()[name]


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_the_class_that_the_drawing_says(alias: str, name: str) -> None:
    assert CLASSES[alias] is CLASSES[name]
    assert re.search(rf"\b{name}\b.*; alias {alias}$", errors.__doc__ or "", re.MULTILINE)


@pytest.mark.parametrize(("name", "type"), re.findall(r"(\w+Error) +(\d{3}.*)$", errors.__doc__ or "", re.MULTILINE))
def test_the_drawing_tells_the_status_and_type_that_lead_to_a_class(name: str, type: str) -> None:
    status, kind = re.fullmatch(r"(\d{3})(?: (\w+_\w+))?.*", type).groups()  # type: ignore[union-attr]
    assert status_error(int(status), None, {}).__class__.__name__ == name
    assert kind is None or stream_error({"error": {"type": kind}}, {}).__class__.__name__ == name


def test_all_that_a_call_may_raise_can_be_imported_from_rawsse() -> None:
    raised = [name for name, cls in CLASSES.items() if issubclass(cls, APIError)]
    assert [name for name in raised if name not in rawsse.__all__ or getattr(rawsse, name) is not CLASSES[name]] == []


def test_misuse_is_also_a_value_error_and_nothing_else_is() -> None:
    misuse = {name for name, cls in CLASSES.items() if issubclass(cls, ValueError)}
    assert misuse == {name for name, cls in CLASSES.items() if issubclass(cls, UsageError)}


def test_what_may_heal_by_itself_is_the_network_and_the_clocks() -> None:
    healing = {cls for cls in CLASSES.values() if issubclass(cls, APIError) and cls.may_heal}
    network = {cls for cls in CLASSES.values() if issubclass(cls, APIConnectionError)}
    assert healing == network - {StreamCancelledError, CertificateError}


def asked_through_a_proxy(status: int) -> APIError:
    return refusal(Proxy(Origin("http", "proxy.example", 3128)), Origin("https", "api.example", 443), status, Headers())


@pytest.mark.parametrize("error_of", [lambda status: status_error(status, None, {}), asked_through_a_proxy])
def test_the_statuses_that_may_heal_are_those_of_the_official_sdks(error_of: Callable[[int], APIError]) -> None:
    assert {status for status in range(300, 600) if error_of(status).may_heal} == {408, 409, 429, *range(500, 600)}


@pytest.mark.parametrize("error_of", [lambda status: status_error(status, None, {}), asked_through_a_proxy])
def test_the_set_of_statuses_holds_for_those_with_a_class_and_those_without(
    error_of: Callable[[int], APIError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "HEALING_STATUSES", {403, 418})
    assert [status for status in range(300, 600) if error_of(status).may_heal] == [403, 418]


# --- What an error carries -----------------------------------------------------------------------------------------


def test_each_phase_is_explained_where_help_shows_it() -> None:
    explained = re.findall(r"^ {4}(\w+) {2,}\S", inspect.getdoc(APIError) or "", re.MULTILINE)
    assert explained == list(get_args(errors.Phase))


def test_each_attribute_of_an_api_error_is_explained_where_help_shows_it() -> None:
    attributes = {name for name in dir(APIError("words")) if not name.startswith("_")}
    explained = re.findall(r"`(\w+)`", inspect.getdoc(APIError) or "")
    assert attributes - {*explained, *dir(Exception)} == set()


@pytest.mark.parametrize(
    ("status", "wish", "may_help"),
    [(529, None, True), (400, None, False), (529, "false", False), (400, "true", True)],
)
def test_a_repeat_may_help_if_the_server_says_so_and_else_if_the_failure_may_heal(
    status: int, wish: str | None, may_help: bool
) -> None:
    error = APIStatusError("a", status_code=status, headers={"x-should-retry": wish} if wish else {})
    assert error.repeat_may_help is may_help


def test_before_a_stream_fills_it_in_an_error_knows_nothing() -> None:
    error = APIError("words")
    assert (str(error), error.message) == ("words", "words")
    assert (error.partial, error.phase, error.request_id, error.ending) == (None, None, None, None)
    assert (error.bytes_received, error.safe_to_retry) == (0, False)
    assert (error.retries_taken, error.retry_after) == (0, None)


def test_a_clock_says_what_it_was_set_to() -> None:
    assert APITimeoutError("words", seconds=1.5).seconds == 1.5
    assert APITimeoutError("words").seconds is None


def test_each_further_attribute_is_kept() -> None:
    assert (HTTPProtocolError("a").status_hint, HTTPProtocolError("a").by_close) == (400, False)
    assert (HTTPProtocolError("a", status_hint=501, by_close=True).status_hint) == 501
    assert EventOrderError("a", rule="r").rule == "r"
    assert LimitExceededError("a", limit=5).limit == 5
    assert EventTooLargeError("a", limit=5, events=["e"]).events == ["e"]
    assert (ProxyError("a").status_code, ProxyError("a").may_heal) == (None, True)
    assert (ProxyError("a", status_code=407, may_heal=False).status_code) == 407


def test_whether_another_try_may_help_is_a_proxy_s_own_affair() -> None:
    error = pickle.loads(pickle.dumps(ProxyError("a", may_heal=False)))
    assert (error.may_heal, ProxyError.may_heal) == (False, True)


# --- How a stream ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.StreamTruncatedError("cut"), "truncated"),
        (errors.APIConnectionError("refused"), "truncated"),
        (errors.OverloadedError("full", status_code=529), "error"),
        (errors.EventOrderError("order", rule="r"), "error"),
        (errors.HTTPProtocolError("not HTTP"), "error"),
        (errors.SilenceTimeoutError("silent"), "timeout"),
        (errors.ConnectTimeoutError("slow"), "timeout"),
        (errors.StreamCancelledError("closed"), "cancelled"),
        (errors.MessageTooLargeError("large", limit=1), "limit"),
        (errors.EventTooLargeError("large", limit=1), "limit"),
    ],
)
def test_the_error_says_which_ending_it_is(error: APIError, kind: EndingKind) -> None:
    assert error.ending_kind == kind


def test_the_errors_bring_every_kind_of_ending_but_the_complete_one() -> None:
    kinds = {cls.ending_kind for cls in CLASSES.values() if issubclass(cls, APIError)}
    assert kinds == set(get_args(EndingKind)) - {"complete"}


def test_an_ending_is_plain_json_for_the_browser() -> None:
    ending = Ending("timeout", "silent", "content", request_id="req_1", bytes_received=5)
    assert json.loads(json.dumps(ending.to_dict())) == {
        "kind": "timeout",
        "text": "silent",
        "phase": "content",
        "stop_reason": None,
        "error_type": None,
        "request_id": "req_1",
        "bytes_received": 5,
        "tail_missing": False,
    }


def test_an_ending_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Ending("complete", "", "done").kind = "error"  # type: ignore[misc]


def test_two_endings_with_the_same_fields_are_equal_and_show_them() -> None:
    ending = Ending("complete", "the answer is whole", "done", "end_turn")
    assert ending == Ending("complete", "the answer is whole", "done", stop_reason="end_turn")
    assert ending != Ending("complete", "the answer is whole", "done", "max_tokens")
    assert repr(ending).startswith(
        "Ending(kind='complete', text='the answer is whole', phase='done', stop_reason='end_turn'"
    )


# --- From an HTTP answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "name"),
    [
        (400, "invalid_request_error", "BadRequestError"),
        (401, "authentication_error", "AuthenticationError"),
        (402, "billing_error", "PaymentRequiredError"),
        (403, "permission_error", "PermissionDeniedError"),
        (404, "not_found_error", "NotFoundError"),
        (408, None, "RequestTimeoutError"),
        (409, "conflict_error", "ConflictError"),
        (412, None, "PreconditionFailedError"),
        (413, "request_too_large", "ContentTooLargeError"),
        (418, "invalid_request_error", "APIStatusError"),
        (422, None, "UnprocessableEntityError"),
        (429, "rate_limit_error", "RateLimitError"),
        (431, None, "RequestHeaderFieldsTooLargeError"),
        (499, None, "ClientClosedRequestError"),
        (500, "api_error", "InternalServerError"),
        (501, None, "HTTPNotImplementedError"),
        (502, None, "InternalServerError"),
        (503, None, "ServiceUnavailableError"),
        (504, "timeout_error", "GatewayTimeoutError"),
        (520, None, "InternalServerError"),
        (529, "overloaded_error", "OverloadedError"),
        (302, None, "APIStatusError"),
    ],
)
def test_the_class_of_an_answer_goes_by_its_status(status: int, kind: str | None, name: str) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "Words."}}
    error = status_error(status, body, {"request-id": "req_1"})
    assert type(error).__name__ == name
    assert (error.status_code, error.type, error.body, error.in_stream) == (status, kind, body, False)
    assert str(error) == (f"{status} {kind}: Words." if kind else f"status {status}: Words.")


def test_the_status_counts_where_the_type_says_something_else() -> None:
    assert type(status_error(429, {"error": {"type": "overloaded_error"}}, {})) is RateLimitError


def test_the_request_id_is_that_of_the_header_or_else_of_the_body() -> None:
    body = {"error": {}, "request_id": "req_body"}
    assert status_error(500, body, {"request-id": "req_head"}).request_id == "req_head"
    assert status_error(500, body, {}).request_id == "req_body"
    assert status_error(500, {}, {}).request_id is None


@pytest.mark.parametrize("body", [None, "", " \n", [], {}])
def test_a_body_that_says_nothing_is_no_obstacle(body: object) -> None:
    error = status_error(500, body, {})
    assert str(error) == "status 500: no message in the body"
    assert (error.type, error.request_id, dict(error.details), error.error_code) == (None, None, {}, None)


@pytest.mark.parametrize(
    "body",
    [
        {"Message": "User is not authorized"},  # AWS API Gateway
        {"errorMessage": "Task timed out"},  # AWS Lambda
        {"fault": {"faultstring": "Invalid ApiKey"}},  # Apigee
        {"errors": {"model": ["is invalid"]}},  # Rails
        {"error_msg": "Schlüssel fehlt"},
        {"data": {"message": "inner"}},
        {"error": {"message": {"text": "hello"}}},
        {"foo": {"bar": "baz words"}},
        {"detail": 42},
        {"error": None},
        {"error": {"type": 5, "message": None}},
        [1],
        42,
    ],
)
def test_a_body_of_json_without_a_known_message_is_quoted(body: object) -> None:
    error = status_error(500, body, {})
    assert str(error) == f"status 500: the body is '{json.dumps(body, ensure_ascii=False)}'"
    assert (error.type, error.api_message, error.error_code) == (None, None, None)


def test_a_body_of_json_without_a_known_message_is_quoted_in_part() -> None:
    message = str(status_error(500, {"foo": "x" * 100_000}, {}))
    assert message == f"""status 500: the body is '{{"foo": "{"x" * (MAX_SAID_CHARS - 9)}'… (100011 in all)"""


def test_a_body_that_is_no_json_is_quoted_in_part() -> None:
    page = "<html><h1>502 Bad Gateway</h1>" + "x" * 1000
    assert (
        str(status_error(502, f"\n{page}\n", {})) == f"status 502: the body is not JSON: '{page[:80]}'… (1030 in all)"
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "Invalid token"}, "Invalid token"),
        ({"message": "Invalid token"}, "Invalid token"),
        ({"error": "Invalid token"}, "Invalid token"),
        ({"error": {"detail": "Invalid token"}}, "Invalid token"),
        ({"error": ["No key", "no model"]}, "No key; no model"),
        ({"errors": [{"message": "No key"}, {"message": "no model"}]}, "No key; no model"),
        ([{"error": {"code": 401, "message": "Invalid token", "status": "UNAUTHENTICATED"}}], "Invalid token"),
        (["Invalid token"], "Invalid token"),
        # FastAPI: https://fastapi.tiangolo.com/tutorial/handling-errors/
        ({"detail": [{"loc": ["body", "model"], "msg": "Field required", "type": "missing"}]}, "Field required"),
        # RFC 6749, 5.2; RFC 9457, 3; Spring
        ({"error": "invalid_client", "error_description": "The token expired"}, "The token expired"),
        ({"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "Not yours"}, "Not yours"),
        ({"type": "about:blank", "title": "Forbidden", "status": 403}, "Forbidden"),
        ({"status": 401, "error": "Unauthorized", "message": "Invalid token", "path": "/v1"}, "Invalid token"),
        ("<html><head>\n<TITLE>502: Bad\n gateway &amp; co</TITLE></head><body>x", "502: Bad gateway & co"),
        ("upstream reset " * 9, f"the body is not JSON: '{'upstream reset ' * 8}upstream reset'"),
    ],
)
def test_the_words_of_an_error_are_shown_whatever_its_form(body: object, words: str) -> None:
    error = status_error(401, body, {})
    assert str(error) == f"status 401: {words}"
    assert error.api_message == (None if isinstance(body, str) else words)


OTHER_TITLES = [
    "<script>document.write('<title>Wrong</title>')</script>",
    '<SCRIPT type="module">"<script>" + "<title>Wrong</title>"</Script >',
    "<style>/* <title>Wrong</title> */</style>",
    "<svg><title>Wrong</title></svg>",
    "<!-- <title>Wrong</title> -->",
]


@pytest.mark.parametrize("other", OTHER_TITLES)
def test_the_title_of_a_page_is_not_one_in_a_script_a_picture_or_a_comment(other: str) -> None:
    said = str(status_error(502, f"<html><head>{other}<title>Bad gateway</title></head>", {}))
    assert said == "status 502: Bad gateway"
    assert str(status_error(502, f"<p>{other}", {})).startswith("status 502: the body is not JSON: ")


@pytest.mark.parametrize("opening", ["<script>", "<svg>", "<!--"])
def test_a_page_of_openings_without_end_is_read_once(opening: str) -> None:
    assert str(status_error(502, opening * 200_000, {})).startswith("status 502: the body is not JSON: ")


@pytest.mark.parametrize(
    "form", [str, lambda text: {"detail": text}, lambda text: {"error": {"message": text}}, lambda text: [text] * 9]
)
def test_the_words_of_an_error_are_bounded(form: Any) -> None:
    message = str(status_error(401, form("word " * 100_000), {}))
    assert MAX_SAID_CHARS < len(message) < MAX_SAID_CHARS + 100
    assert message.endswith(" in all)")


def test_a_body_that_is_nested_without_end_has_no_words() -> None:
    body: Any = "words"
    for _ in range(10_000):
        body = {"error": [body]}
    assert str(status_error(500, body, {})) == "status 500: no message in the body"


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}, "overloaded_error", "Busy"),
        ({"error": {"type": "overloaded_error", "message": "Busy"}}, "overloaded_error", "Busy"),
        ({"type": "overloaded_error", "message": "Busy"}, "overloaded_error", "Busy"),
        ({"type": "overloaded_error", "error": {"message": "Busy"}}, "overloaded_error", "Busy"),
        ({"error": "overloaded_error", "message": "Busy"}, "overloaded_error", "Busy"),
        ({"type": "error", "error": "Busy"}, None, "Busy"),
        ({"error": {"message": "Busy"}}, None, "Busy"),
        ({"error": {"error": {"type": "overloaded_error", "message": "Busy"}}}, "overloaded_error", "Busy"),
        ({"error": {"type": "overloaded_error", "error": {"message": "Busy"}}}, "overloaded_error", "Busy"),
        ({"success": False, "message": "Busy"}, None, "Busy"),
        ({"ok": False, "reason": "Busy"}, None, "Busy"),
        ({"status": "fail", "msg": "Busy"}, None, "Busy"),
        ({"code": 7, "msg": "Busy"}, None, "Busy"),
    ],
)
def test_an_error_of_another_form_is_brought_into_the_api_s(raw: Any, kind: str | None, words: str) -> None:
    assert is_error(raw)
    error = stream_error(as_error(raw), {})
    assert (error.type, error.api_message, type(error)) == (
        kind,
        words,
        OverloadedError if kind else InternalServerError,
    )


@pytest.mark.parametrize(
    "raw", [{}, {"input_tokens": 1}, {"type": "message", "error": {}}, {"error": None}, {"type": [1]}]
)
def test_what_is_no_error_is_not_taken_for_one(raw: Any) -> None:
    assert not is_error(raw)


def test_details_and_their_code_are_those_of_the_body() -> None:
    details = {"error_code": "thread_not_found", "unsupported": ["fallbacks"]}
    error = status_error(404, {"error": {"details": details}}, {})
    assert (error.details, error.error_code) == (details, "thread_not_found")


@pytest.mark.parametrize("details", [None, "x", [], {}, {"error_code": 5}])
def test_details_without_a_code_have_none(details: object) -> None:
    error = status_error(404, {"error": {"details": details}}, {})
    assert error.error_code is None


def test_the_words_of_the_api_and_the_workspace_are_at_hand() -> None:
    error = status_error(400, {"error": {"message": "Nope."}}, {"anthropic-workspace-id": "wrk_1"})
    assert (error.api_message, error.workspace_id) == ("Nope.", "wrk_1")


@pytest.mark.parametrize("body", [None, "x", {}, {"error": {"message": 5}}, {"status": "x"}])
def test_a_body_without_words_has_none(body: object) -> None:
    error = status_error(400, body, {})
    assert (error.api_message, error.workspace_id) == (None, None)


def test_a_redirect_says_where_to_and_no_more_of_the_place_than_its_path() -> None:
    error = status_error(307, "", {"location": "https://elsewhere/v1?token=secret"})
    assert str(error) == (
        "status 307: it redirects to 'https://elsewhere/v1'; the key is not sent there by itself, base_url must say so"
    )


@pytest.mark.parametrize(
    ("wish", "in_stream", "heard"),
    [("true", False, True), ("False", False, False), ("false", True, False), ("true", True, None), ("", False, None)],
)
def test_the_server_may_say_whether_to_try_again(wish: str, in_stream: bool, heard: bool | None) -> None:
    error = APIStatusError("a", status_code=500, headers={"X-Should-Retry": wish}, in_stream=in_stream)
    assert error.should_retry is heard


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (409, "conflict_error"),
        (418, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_status_has_the_type_that_the_api_sends_with_it(status: int, kind: str) -> None:
    assert error_type(status) == kind


def test_a_class_of_the_caller_s_own_changes_neither_table() -> None:
    class MyError(APIStatusError):
        pass

    assert MyError("words", status_code=500).status_code == 500
    assert type(status_error(500, None, {})) is InternalServerError


def test_headers_are_kept_for_who_wants_to_come_back_later() -> None:
    headers = {"retry-after": "7"}
    assert status_error(429, None, headers).headers == headers
    assert APIStatusError("a", status_code=429).headers == {}


# --- From an event in the stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid_request_error", 400),
        ("authentication_error", 401),
        ("billing_error", 402),
        ("permission_error", 403),
        ("not_found_error", 404),
        ("conflict_error", 409),
        ("memory_path_conflict_error", 409),
        ("memory_precondition_failed_error", 409),
        ("request_too_large", 413),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("timeout_error", 504),
        ("overloaded_error", 529),
        ("a_type_of_next_year", 500),
    ],
)
def test_the_class_of_an_error_event_is_that_of_the_status_its_type_has_elsewhere(kind: str, status: int) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "Words."}}
    error = stream_error(body, {"request-id": "req_1"})
    assert type(error) is type(status_error(status, None, {}))
    assert (error.status_code, error.type, error.body, error.in_stream) == (status, kind, body, True)
    assert (str(error), error.request_id) == (f"error event, {kind}: Words.", "req_1")


def test_an_error_event_that_says_nothing_is_an_error_of_the_server() -> None:
    error = stream_error({"error": {}, "request_id": "req_2"}, {})
    assert type(error) is InternalServerError
    assert (str(error), error.request_id) == ("error event, of no type: no message", "req_2")


def test_an_error_event_keeps_its_body_as_it_was() -> None:
    body: dict[str, Any] = {"error": {"type": "overloaded_error"}}
    error = stream_error(body, {})
    body["error"] = None
    assert isinstance(error, OverloadedError)
    assert error.body == {"error": {"type": "overloaded_error"}}


# --- What messages show --------------------------------------------------------------------------------------------


def test_a_short_value_is_quoted_whole_and_a_long_one_in_part() -> None:
    assert quote("a'b\n") == r'''"a'b\n"'''
    assert quote(b"\xff") == r"b'\xff'"
    assert quote("x" * 80) == "'" + "x" * 80 + "'"
    assert quote("x" * 81) == "'" + "x" * 80 + "'… (81 in all)"
    assert quote(b"abcdef", limit=3) == "b'abc'… (6 in all)"


def test_a_hidden_text_is_a_text_that_a_traceback_does_not_show() -> None:
    hidden = Hidden.of("sk-ant-secret")
    assert (hidden, repr(hidden), str([hidden])) == ("sk-ant-secret", "<13 characters>", "[<13 characters>]")
    assert Hidden.of(None) is None


def test_no_error_shows_a_header_or_the_body_when_it_is_printed() -> None:
    headers = {"x-api-key": "sk-ant-secret", "set-cookie": "secret"}
    body = {"error": {"type": "api_error", "message": "Words.", "details": {"a": "secret"}}}
    for error in (status_error(500, body, headers), stream_error(body, headers)):
        assert "secret" not in str(error) + repr(error) + "".join(map(str, error.args))


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_prints_its_message_and_nothing_else(name: str) -> None:
    error = an_error(name)
    assert (str(error), repr(error)) == ("words", f"{type(error).__name__}('words')")


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_survives_the_way_home_from_another_process(name: str) -> None:
    error = an_error(name)
    error.__dict__["bytes_received"] = 7
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == ("words", ("words",), vars(error))


def test_every_error_of_ours_has_one_base() -> None:
    assert {cls for cls in CLASSES.values() if not issubclass(cls, RawsseError)} == set()
    assert issubclass(ProtocolError, APIError)
