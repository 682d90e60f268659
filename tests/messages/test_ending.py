"""rawsse.messages.ending: every stream ends in one of six ways."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from rawsse import errors
from rawsse.errors import APIError
from rawsse.messages.ending import Ending, EndingKind, ending_kind


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
    assert ending_kind(error) == kind


def test_every_api_error_has_an_ending() -> None:
    def below(kind: type[APIError]) -> list[type[APIError]]:
        return [kind, *(deeper for sub in kind.__subclasses__() for deeper in below(sub))]

    kinds = {ending_kind(cls.__new__(cls)) for cls in below(APIError)}
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
