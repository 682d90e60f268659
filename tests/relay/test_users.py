"""rawsse.relay.users: limits, tokens, the file of users, and who sent a request."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from rawsse.errors import ConfigurationError
from rawsse.relay.dialects import Answer
from rawsse.relay.guard import Guard, check_bind
from rawsse.relay.users import (
    MAX_LIMIT,
    MAX_USER_ID_CHARS,
    Authenticate,
    Tokens,
    User,
    UserFile,
    UserLimits,
    identify,
    user_of_scope,
)
from rawsse.server import Scope

ADA, BOB = "ada-secret-9f2", "bob-secret-77c"


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# --- Limits --------------------------------------------------------------------------------------------------------


def test_a_user_is_without_limits_unless_told_otherwise() -> None:
    assert UserLimits() == UserLimits(None, None, None, None, None, False)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "60", MAX_LIMIT + 1, float("nan")], ids=repr)
@pytest.mark.parametrize("name", ["requests_per_minute", "open_runs", "tokens_per_day", "max_tokens"])
def test_a_limit_that_is_no_count_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} must be a whole number from 1 to {MAX_LIMIT}") as raised:
        UserLimits(**{name: value})  # type: ignore[arg-type]
    assert str(raised.value).endswith("left out; to lock a user out, remove the user" if value == 0 else "left out")


@pytest.mark.parametrize("name", ["requests_per_minute", "open_runs", "tokens_per_day", "max_tokens"])
def test_the_least_and_the_largest_limit_are_taken(name: str) -> None:
    for value in (1, MAX_LIMIT):
        limits: dict[str, Any] = {name: value}
        assert getattr(UserLimits(**limits), name) == value


@pytest.mark.parametrize("models", ["claude-opus-5", [], (), [""], [1], {"a": 1}, 1], ids=repr)
def test_models_are_a_list_of_names(models: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^models must be a non-empty list of names"):
        UserLimits(models=models)


def test_a_list_of_models_is_taken_as_a_tuple() -> None:
    assert UserLimits(models=["a", "b"]).models == ("a", "b")  # type: ignore[arg-type]


def test_whether_open_runs_end_is_yes_or_no() -> None:
    with pytest.raises(ConfigurationError, match=r"^ends_open_runs must be true or false$"):
        UserLimits(ends_open_runs=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "id", ["", " ", "a\nb", "a\x00", "\ud800", "x" * (MAX_USER_ID_CHARS + 1), None, 7], ids=lambda id: repr(id)[:20]
)
def test_an_id_that_cannot_be_kept_or_logged_is_refused(id: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^id must be 1 to {MAX_USER_ID_CHARS} printable characters$"):
        User(id)


@pytest.mark.parametrize("id", ["ada", "Ada Lovelace", "ада", "7", "x" * MAX_USER_ID_CHARS, "a@b.example"])
def test_other_ids_are_taken(id: str) -> None:
    assert User(id).id == id


def test_an_operator_is_one_or_not() -> None:
    with pytest.raises(ConfigurationError, match=r"^operator must be true or false$"):
        User("ada", is_operator="no")  # type: ignore[arg-type]


# --- Tokens --------------------------------------------------------------------------------------------------------


def test_each_token_is_a_user_of_its_own_whose_id_does_not_give_it_away() -> None:
    tokens = Tokens([ADA, BOB])
    ids = [f"token-{sha256(token)[:8]}" for token in (ADA, BOB)]
    assert [user.id for user in tokens] == ids
    assert tokens.find_token({"x-api-key": BOB}) == User(ids[1])
    assert tokens.find_token({"authorization": f"Bearer {ADA}"}) == User(ids[0])


def test_no_token_opens_nothing() -> None:
    assert not any(Tokens())
    assert Tokens().find_token({"x-api-key": ADA}) is None


def test_a_digest_that_only_begins_as_one_that_is_known_is_another(tmp_path: Path) -> None:
    nearly = sha256(ADA)[:62] + ("00" if sha256(ADA)[62:] != "00" else "11")
    users = UserFile(write(tmp_path, f'[[user]]\nid = "ada"\ntoken_sha256 = "{nearly}"'))
    assert users.find_token({"x-api-key": ADA}) is None


@pytest.mark.parametrize("tail", ["  -", " *-"])
def test_what_sha256sum_prints_may_be_pasted_whole(tmp_path: Path, tail: str) -> None:
    # https://www.gnu.org/software/coreutils/manual/html_node/cksum-output-modes.html
    users = UserFile(write(tmp_path, f'[[user]]\nid = "ada"\ntoken_sha256 = "{sha256(ADA)}{tail}"'))
    assert users.find_token({"x-api-key": ADA}) == User("ada")


def test_the_digest_of_nothing_lets_nobody_in_who_brings_nothing(tmp_path: Path) -> None:
    users = UserFile(write(tmp_path, f'[[user]]\nid = "ada"\ntoken_sha256 = "{sha256("")}"'))
    for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Bearer"}, {"x-api-key": ""}):
        assert users.find_token(headers) is None


def test_nothing_shows_a_token() -> None:
    tokens = Tokens([ADA])
    assert ADA not in repr(tokens) + repr(vars(tokens)) + repr(list(tokens))


# --- The file ------------------------------------------------------------------------------------------------------

FILE = f"""
[all]
tokens_per_day = 5_000_000

[[user]]
id = "ada"
token_sha256 = "{sha256(ADA).upper()}"
requests_per_minute = 60
open_runs = 4
tokens_per_day = 200_000
ends_open_runs = true
models = ["claude-haiku-4-5"]
max_tokens = 8192
operator = true

[[user]]
id = "bob"
token = "{BOB}"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "users.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def test_the_file_says_who_a_token_is_and_what_all_may_use(tmp_path: Path) -> None:
    users = UserFile(write(tmp_path, FILE))
    limits = UserLimits(60, 4, 200_000, ("claude-haiku-4-5",), 8192, ends_open_runs=True)
    assert users.find_token({"x-api-key": ADA}) == User("ada", limits, is_operator=True)
    assert users.find_token({"x-api-key": BOB}) == User("bob")
    assert users.everyone == UserLimits(tokens_per_day=5_000_000)


def test_without_a_table_for_all_there_is_no_limit_for_all(tmp_path: Path) -> None:
    assert UserFile(write(tmp_path, f'[[user]]\nid = "a"\ntoken = "{ADA}"')).everyone == UserLimits()


def test_tokens_of_the_command_line_stay_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, f'[[user]]\nid = "ada"\ntoken = "{ADA}"')
    users = UserFile(path, ["command-line"])
    users.reload()
    assert users.find_token({"x-api-key": "command-line"}) == User(f"token-{sha256('command-line')[:8]}")
    assert users.find_token({"x-api-key": ADA}) == User("ada")


USER = f'[[user]]\nid = "ada"\ntoken = "{ADA}"\n'
BAD_FILES: Mapping[str, tuple[str, str]] = {
    "empty": ("", "user is missing; expected a table [[user]] for each user"),
    "no users": ("[all]\nopen_runs = 1", "user is missing; expected a table [[user]] for each user"),
    "no tables": ("user = []", "user is missing; expected a table [[user]] for each user"),
    "one table": ('[user]\nid = "ada"', "user is missing; expected a table [[user]] for each user"),
    "unknown table": (f"{USER}[limits]\n", "users.toml: unknown field 'limits'"),
    "no table": ("user = [1]", "user 1 (None): id must be 1 to 256 printable characters"),
    "no id": (f'[[user]]\ntoken = "{ADA}"', "user 1 (None): id must be 1 to 256 printable characters"),
    "no token": ('[[user]]\nid = "ada"', "user 1 ('ada'): expected either token_sha256 or token"),
    "two tokens": (f'{USER}token_sha256 = "{sha256(BOB)}"', "user 1 ('ada'): expected either token_sha256 or token"),
    "short hex": (
        f'[[user]]\nid = "ada"\ntoken_sha256 = "{sha256(ADA)[:-1]}"',
        "user 1 ('ada'): token_sha256 must be 64 hexadecimal digits",
    ),
    "bad hex": (
        f'[[user]]\nid = "ada"\ntoken_sha256 = "{sha256(ADA)[:-1]}g"',
        "user 1 ('ada'): token_sha256 must be 64 hexadecimal digits",
    ),
    "hex with spaces": (
        f'[[user]]\nid = "ada"\ntoken_sha256 = "{sha256(ADA)[:-1]} "',
        "user 1 ('ada'): token_sha256 must be 64 hexadecimal digits",
    ),
    "hex and more": (
        f'[[user]]\nid = "ada"\ntoken_sha256 = "{sha256(ADA)}0  -"',
        "user 1 ('ada'): token_sha256 must be 64 hexadecimal digits",
    ),
    "hex as a number": ('[[user]]\nid = "ada"\ntoken_sha256 = 7', "token_sha256 must be 64 hexadecimal digits"),
    "empty token": ('[[user]]\nid = "ada"\ntoken = ""', "user 1 ('ada'): a token must be printable ASCII"),
    "token of two words": (
        f'[[user]]\nid = "ada"\ntoken = "{ADA} x"',
        "user 1 ('ada'): a token must be printable ASCII",
    ),
    "token as a number": ('[[user]]\nid = "ada"\ntoken = 7', "user 1 ('ada'): a token must be printable ASCII"),
    "same id": (f'{USER}[[user]]\nid = "ada"\ntoken = "{BOB}"', "user 2 ('ada'): id is that of another user"),
    "same token": (
        f'{USER}[[user]]\nid = "bob"\ntoken_sha256 = "{sha256(ADA)}"',
        "user 2 ('bob'): token is that of another user",
    ),
    "same token as an argument": (
        '[[user]]\nid = "bob"\ntoken = "argument"',
        "user 1 ('bob'): token is that of another user",
    ),
    "same id as an argument": (
        f'[[user]]\nid = "token-{sha256("argument")[:8]}"\ntoken = "{ADA}"',
        "id is that of another user",
    ),
    "unknown field": (f"{USER}request_per_minute = 5", "user 1 ('ada'): unknown field 'request_per_minute'"),
    "bad limit": (f"{USER}open_runs = 0", "user 1 ('ada'): open_runs must be a whole number from 1"),
    "bad models": (f'{USER}models = "opus"', "user 1 ('ada'): models must be a non-empty list of names"),
    "bad operator": (f'{USER}operator = "yes"', "user 1 ('ada'): operator must be true or false"),
    "bad limit for all": (f"{USER}[all]\nopen_runs = -1", "[all]: open_runs must be a whole number from 1"),
    "unknown field for all": (f'{USER}[all]\nid = "x"', "[all]: unknown field 'id'"),
    "a list for all": (f"all = []\n{USER}", "[all]: must be a table"),
    "no TOML": (f"{USER}token_sha256 = {ADA}", "(at line 4, column 16)"),
    "a deep list": (f"deep = {'[' * 100_000}", "users.toml: maximum recursion depth exceeded"),
    "deep tables": (f"deep = {'{a=' * 100_000}", "users.toml: maximum recursion depth exceeded"),
    "two values": (f'{USER}token = "{BOB}"', "users.toml: Cannot overwrite a value"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_name_the_entry_and_the_field_but_no_token(tmp_path: Path, name: str) -> None:
    text, words = BAD_FILES[name]
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        UserFile(path, ["argument"])
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_file_that_is_not_there_or_no_text_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^cannot read .*users\.toml: .*No such file"):
        UserFile(tmp_path / "users.toml")
    path = write(tmp_path, USER)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"^cannot read .*users\.toml: .*decode"):
        UserFile(path)


def test_a_file_that_is_read_again_brings_and_takes_users_and_limits(tmp_path: Path) -> None:
    users = UserFile(write(tmp_path, FILE))
    write(tmp_path, '[all]\nopen_runs = 9\n[[user]]\nid = "ada"\ntoken = "new-secret"\nopen_runs = 1')
    users.reload()
    assert users.find_token({"x-api-key": "new-secret"}) == User("ada", UserLimits(open_runs=1))
    assert users.find_token({"x-api-key": ADA}) is users.find_token({"x-api-key": BOB}) is None
    assert users.everyone == UserLimits(open_runs=9)


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_that_is_read_again_leaves_all_as_it_was(tmp_path: Path, name: str) -> None:
    users = UserFile(write(tmp_path, FILE), ["argument"])
    write(tmp_path, BAD_FILES[name][0])
    with pytest.raises(ConfigurationError):
        users.reload()
    assert [user.id for user in users][1:] == ["ada", "bob"]
    assert users.everyone == UserLimits(tokens_per_day=5_000_000)


def test_a_file_that_is_gone_leaves_all_as_it_was(tmp_path: Path) -> None:
    users = UserFile(write(tmp_path, FILE))
    (tmp_path / "users.toml").unlink()
    with pytest.raises(ConfigurationError):
        users.reload()
    assert users.find_token({"x-api-key": BOB}) == User("bob")


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize(
    ("mode", "token", "warns"),
    [
        (0o644, f'token = "{ADA}"', True),
        (0o604, f'token = "{ADA}"', True),
        (0o640, f'token = "{ADA}"', False),
        (0o600, f'token = "{ADA}"', False),
        (0o644, f'token_sha256 = "{sha256(ADA)}"', False),
    ],
)
def test_plain_tokens_that_others_can_read_are_worth_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, token: str, warns: bool
) -> None:
    path = write(tmp_path, f'[[user]]\nid = "ada"\n{token}')
    path.chmod(mode)
    with caplog.at_level(logging.WARNING, "rawsse.relay"):
        UserFile(path)
    words = f"{path} has tokens in plain text, and other users of this machine can read it"
    assert caplog.messages == ([words] if warns else [])


def test_a_guard_takes_the_users_of_a_file(tmp_path: Path) -> None:
    users = UserFile(write(tmp_path, FILE))
    guard = Guard(tokens=users)
    assert guard.tokens is users
    assert guard.refuse({"host": "localhost"}) is None
    check_bind("0.0.0.0", users)


# --- The login of the host application -------------------------------------------------------------------------------


@dataclass
class Account:
    id: int
    display_name: str
    is_authenticated: bool = True


class Unfinished:
    """As Starlette's `BaseUser`, of which the application has written only a part."""

    is_authenticated = True
    display_name = "Ada"

    @property
    def identity(self) -> str:
        raise NotImplementedError


class Callable:
    username = "ada"

    def is_authenticated(self) -> bool:
        return False


LOGINS: list[tuple[object, str | None]] = [
    (SimpleNamespace(is_authenticated=True, identity="ada", username="x", id=1, display_name="y"), "ada"),
    (SimpleNamespace(is_authenticated=True, identity="", username="ada", display_name="y"), "ada"),
    (SimpleNamespace(is_authenticated=True, identity=None, display_name="ada"), "ada"),
    (SimpleNamespace(is_authenticated=True, identity=UUID(int=7)), "00000000-0000-0000-0000-000000000007"),
    (SimpleNamespace(username="ada"), "ada"),
    (Account(0, "Ada"), "0"),
    (Account(7, "Ada"), "7"),
    (Account(7, "Ada", is_authenticated=False), None),
    (Unfinished(), "Ada"),
    (Callable(), None),
    (SimpleNamespace(is_authenticated=None, identity="ada"), None),
    (SimpleNamespace(is_authenticated=1, identity="ada"), None),
    ({"username": "ada"}, "ada"),
    ({"sub": "ada", "name": "Ada"}, "ada"),
    ({"id": 7, "is_authenticated": True}, "7"),
    ({"id": 7, "is_authenticated": False}, None),
    ("ada", "ada"),
    ("", None),
    (None, None),
    (User("ada"), "ada"),
]


@pytest.mark.parametrize(("login", "id"), LOGINS, ids=[str(n) for n in range(len(LOGINS))])
def test_a_login_is_who_it_says_it_is(login: object, id: str | None) -> None:
    user = user_of_scope({"type": "http", "user": login})
    assert (user.id if user else None) == id


def test_without_a_login_there_is_no_user() -> None:
    assert user_of_scope({"type": "http"}) is None


def test_a_user_whom_the_host_made_keeps_its_limits() -> None:
    user = User("ada", UserLimits(open_runs=1), is_operator=True)
    assert user_of_scope({"user": user}) is user


@pytest.mark.parametrize("login", [object(), {"name": "Ada"}, SimpleNamespace(identity=object()), {}])
def test_a_login_without_an_id_is_a_fault_of_the_set_up(login: object) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^scope\['user'\] has no identity, username, id, sub or display_name"
    ):
        user_of_scope({"user": login})


# --- Who sent a request --------------------------------------------------------------------------------------------


def who(
    headers: Mapping[str, str] | None = None,
    *,
    tokens: Tokens | None = None,
    authenticate: Authenticate | None = None,
    **scope: Any,
) -> str | None:
    """The id of the user; "401" if the request is refused as it should be."""
    try:
        user = asyncio.run(identify(scope, headers or {}, tokens or Tokens(), authenticate))
    except Answer as answer:
        refused = answer
    else:
        return user.id if user is not None else None
    takes_tokens = authenticate is None and any(tokens or ())
    assert refused.headers == (("www-authenticate", "Bearer" if takes_tokens else "Login"),)
    assert b'"authentication_error"' in refused.body
    assert ADA.encode() not in refused.body
    return str(refused.status)


KEY = {"x-api-key": ADA}
ADAS = f"token-{sha256(ADA)[:8]}"
OUT = SimpleNamespace(is_authenticated=False)


async def nobody(scope: Scope) -> None:
    """The host's login knows nobody."""


def test_a_relay_without_users_has_none() -> None:
    assert who() is None
    assert who({"x-api-key": "of-something-else"}) is None


def test_a_token_is_enough() -> None:
    assert who(KEY, tokens=Tokens([ADA])) == ADAS
    assert who(KEY, tokens=Tokens([ADA]), user=OUT) == ADAS


def test_without_the_token_that_is_asked_for_a_request_is_refused() -> None:
    assert who(tokens=Tokens([ADA])) == "401"
    assert who(KEY, tokens=Tokens([BOB])) == "401"


def test_a_login_is_enough_and_comes_before_the_token() -> None:
    assert who(user="bob") == "bob"
    assert who(tokens=Tokens([ADA]), user="bob") == "bob"
    assert who(KEY, tokens=Tokens([ADA]), user="bob") == "bob"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": Tokens([ADA])}, "a valid token: Authorization: Bearer …, or x-api-key"),
        ({"user": OUT}, "a login"),
        ({"tokens": Tokens([ADA]), "user": OUT}, "a login, or a valid token: Authorization: Bearer …, or x-api-key"),
    ],
)
def test_a_refusal_names_only_what_would_be_accepted(options: dict[str, Any], words: str) -> None:
    tokens, scope = options.get("tokens", Tokens()), {name: each for name, each in options.items() if name == "user"}
    with pytest.raises(Answer, match=f"^you need {re.escape(words)}$"):
        asyncio.run(identify(scope, {}, tokens))
    with pytest.raises(Answer, match=r"^you need a login$"):
        asyncio.run(identify(scope, KEY, tokens, nobody))


@pytest.mark.parametrize("login", [OUT, None, ""], ids=repr)
def test_a_host_that_knows_no_login_refuses(login: object) -> None:
    assert who(user=login) == "401"
    assert who(KEY, user=login) == "401"


def answers(found: object) -> Authenticate:
    async def authenticate(scope: Any) -> Any:
        assert scope["user"] == "bob"
        return found

    return authenticate


@pytest.mark.parametrize(("found", "id"), [("ada", "ada"), (User("ada"), "ada"), (None, "401")], ids=repr)
def test_the_embedders_function_decides_alone(found: object, id: str) -> None:
    assert who(KEY, tokens=Tokens([ADA]), authenticate=answers(found), user="bob") == id


@pytest.mark.parametrize("found", ["", 7, False, {"id": "ada"}], ids=repr)
def test_an_embedders_function_that_returns_something_else_is_a_fault_of_the_set_up(found: object) -> None:
    with pytest.raises(ConfigurationError):
        who(KEY, tokens=Tokens([ADA]), authenticate=answers(found), user="bob")


@pytest.mark.real
@pytest.mark.parametrize(("cookie", "id"), [("ada", "ada"), ("nobody", "401"), ("", "401")])
def test_the_login_of_starlettes_middleware_is_honoured(cookie: str, id: str) -> None:
    starlette = pytest.importorskip("starlette.authentication", reason="a login that is not ours")
    middleware = pytest.importorskip("starlette.middleware.authentication", reason="a login that is not ours")

    class Login:
        async def authenticate(self, conn: Any) -> Any:
            user = conn.headers.get("cookie", "")
            return (starlette.AuthCredentials(), starlette.SimpleUser(user)) if user == "ada" else None

    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            user = await identify(scope, {}, Tokens())
            found.append(user.id if user else None)
        except Answer as answer:
            found.append(str(answer.status))

    scope = {"type": "http", "headers": [(b"cookie", cookie.encode())]}
    asyncio.run(middleware.AuthenticationMiddleware(app, Login())(scope, None, None))
    assert found == [id]


@pytest.mark.real
def test_a_user_of_starlettes_who_has_only_a_display_name_is_known_by_it() -> None:
    starlette = pytest.importorskip("starlette.authentication", reason="a login that is not ours")

    class Person(starlette.BaseUser):  # type: ignore[misc, name-defined]
        is_authenticated = True
        display_name = "Ada"

    assert user_of_scope({"user": Person()}) == User("Ada")
