"""Who may use the relay: users, their limits, the token or login that identifies them, and the choices of their requests.

    tokens = UserFile(Path("users.toml"))                       # raises ConfigurationError
    guard = Guard(tokens=tokens)                                # 401 without one of its tokens
    user = await identify(scope, headers, tokens=guard.tokens)  # User(id='ada')
    request = choose(request, defaults, (everyone, user.limits), is_browser=True)   # raises InvalidRequest
    tokens.reload()                                             # on SIGHUP

The file is TOML. A field that is left out means no limit.

    [all]                                  # what all users together may use
    tokens_per_day = 5_000_000

    [[user]]
    id = "ada"
    token_sha256 = "2c26b46b68ffc68f…"     # or token = "…"
    requests_per_minute = 60               # up to 60 at once, one more each second: in the first minute up to 119
    open_runs = 4
    tokens_per_day = 200_000
    ends_open_runs = true                  # runs in progress are stopped when the day's tokens are used up
    models = ["claude-haiku-4-5"]
    max_tokens = 8192
    operator = true                        # may read /metrics; may list and stop the runs of others: ?user=ada, ?user=*

`printf %s "$TOKEN" | sha256sum` prints the digest of a token; the ` -` after it may be pasted, too. The digest is not salted,
so generate tokens at random: `python -c "import secrets; print(secrets.token_urlsafe())"`.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from rawsse.errors import ConfigurationError
from rawsse.messages.lens import object_at
from rawsse.relay.dialects import Answer, InvalidRequest
from rawsse.server import Scope

MAX_USER_ID_CHARS = 256
"""The longest user id, which is a key in memory, a column of the ledger, and part of log lines."""

MAX_LIMIT = 999_999_999_999_999
"""The largest limit: a structured field has integers of at most 15 digits (RFC 9651, 3.3.1)."""

log = logging.getLogger("rawsse.relay")


@dataclass(frozen=True, slots=True)
class UserLimits:
    """The limits of one user, or of all users together. None means no limit. Raises `ConfigurationError`. To lock a user out,
    remove the entry from the file, or return None from `authenticate`.

    `requests_per_minute` may be sent in one burst, and are refilled evenly, so the first minute may have nearly twice as many.
    `open_runs` is how many runs may be in progress. `tokens_per_day` counts all kinds of tokens when a run ends, for the UTC
    day on which it began; the output of a stopped or truncated answer is estimated, and the prompt of one that had not begun
    (`RunRecord.estimated_tokens`). Runs of a process that was killed (`kill -9`) do not count; with a store they count for what
    it has: of an answer's content four fifths at least, but for 64 bytes. A request may name only `models`, and at most
    `max_tokens`. `ends_open_runs`: runs in progress are stopped when the day's tokens are used up.
    """

    requests_per_minute: int | None = None
    open_runs: int | None = None
    tokens_per_day: int | None = None
    models: tuple[str, ...] | None = None
    max_tokens: int | None = None
    ends_open_runs: bool = False

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.type == "int | None"):  # annotations are text
            value = getattr(self, name)
            # 0 would be ambiguous: "none" or "no limit".
            if value is not None and (type(value) is not int or not 1 <= value <= MAX_LIMIT):
                how = "; to lock a user out, remove the user" if value == 0 else ""
                raise ConfigurationError(f"{name} must be a whole number from 1 to {MAX_LIMIT}, or left out{how}")
        models: object = self.models
        if models is not None:
            if not isinstance(models, tuple | list) or not models or not all(isinstance(m, str) and m for m in models):
                raise ConfigurationError("models must be a non-empty list of names")
            object.__setattr__(self, "models", tuple(models))
        if type(self.ends_open_runs) is not bool:
            raise ConfigurationError("ends_open_runs must be true or false")


@dataclass(frozen=True, slots=True)
class User:
    """A user of the relay. Runs and quotas belong to an `id`. Without `limits` the relay's defaults apply.

    An operator may list and stop the runs of others, and read `/metrics`. Raises `ConfigurationError` for an id that is empty,
    too long, or not printable.
    """

    id: str
    limits: UserLimits | None = None
    is_operator: bool = False

    def __post_init__(self) -> None:
        id: object = self.id
        if not isinstance(id, str) or not id.strip() or len(id) > MAX_USER_ID_CHARS or not id.isprintable():
            raise ConfigurationError(f"id must be 1 to {MAX_USER_ID_CHARS} printable characters")
        if not isinstance(self.is_operator, bool):
            raise ConfigurationError("operator must be true or false")


# --- Tokens --------------------------------------------------------------------------------------------------------


class Tokens:
    """Tokens and the users that they identify; iterating yields the users.

    Each of `tokens` identifies one user, whose id contains the first digits of the token's digest. Only digests are kept.
    Raises `ConfigurationError` for a token that a header field cannot carry.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._users = {digest: User(f"token-{digest.hex()[:8]}") for digest in map(_digest, tokens)}

    def __iter__(self) -> Iterator[User]:
        return iter(self._users.values())

    def find_token(self, headers: Mapping[str, str]) -> User | None:
        """The user whose token is in these fields (lower-case names): `Authorization: Bearer …`, or `x-api-key`."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = (bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
        # A client cannot choose the digest of its token, so the timing of this lookup reveals nothing about other tokens.
        found = (self._users.get(hashlib.sha256(token.encode()).digest()) for token in given if token)
        return next(filter(None, found), None)


class UserFile(Tokens):
    """The users of a TOML file, in the form shown at the top of this module, and those of `tokens`.

    `everyone` has the limits of all users together. A `ConfigurationError` names the file, the entry and the field, never a
    token.
    """

    def __init__(self, path: Path, tokens: Iterable[str] = ()) -> None:
        super().__init__(tokens)
        self.path = path
        self._own = self._users
        self.reload()

    def reload(self) -> None:
        """Read the file again. If that fails, the users stay as they were, and `ConfigurationError` is raised.

        100,000 users take seconds, so it may be called in another thread while users are looked up.
        """
        import tomllib

        where = str(self.path)
        try:
            data = tomllib.loads(self.path.read_text(encoding="utf-8"))
            entries = data.get("user")
            # A file that is being written may be empty for a moment; that must not lock out all users.
            if not isinstance(entries, list) or not entries:
                raise ConfigurationError("user is missing; expected a table [[user]] for each user")
            _check_fields(data, {"user", "all"})
            users, ids = dict(self._own), {user.id for user in self._own.values()}
            for number, entry in enumerate(entries, 1):
                table = dict(entry) if isinstance(entry, dict) else {}
                where = f"{self.path}: user {number} ({table.get('id')!r})"
                digest, user = _read_user(table)
                if user.id in ids or digest in users:
                    raise ConfigurationError(f"{'id' if user.id in ids else 'token'} is that of another user")
                ids.add(user.id)
                users[digest] = user
            where = f"{self.path}: [all]"
            everyone = _read_limits(data.get("all", {}))
            is_public = self.path.stat().st_mode & 0o004
        except ConfigurationError as exc:
            raise ConfigurationError(f"{where}: {exc}") from None
        except (OSError, ValueError, RecursionError) as exc:
            raise ConfigurationError(f"cannot read {self.path}: {exc}") from None
        if is_public and any("token" in entry for entry in entries):
            log.warning("%s has tokens in plain text, and other users of this machine can read it", self.path)
        self.everyone, self._users = everyone, users


def _read_user(entry: dict[str, Any]) -> tuple[bytes, User]:
    """(digest of the token, user) of a table."""
    token, hashed = entry.pop("token", None), entry.pop("token_sha256", None)
    id, is_operator = entry.pop("id", ""), entry.pop("operator", False)
    user = User(id, _read_limits(entry) if entry else None, is_operator)
    if (token is None) == (hashed is None):
        raise ConfigurationError("expected either token_sha256 or token")
    if hashed is None:
        return _digest(token), user
    if not isinstance(hashed, str) or not re.fullmatch(r"[0-9A-Fa-f]{64}(\s+\*?-)?", hashed):
        raise ConfigurationError("token_sha256 must be 64 hexadecimal digits")
    return bytes.fromhex(hashed[:64]), user  # `sha256sum` adds `  -`, and in its binary mode ` *-`


def _read_limits(table: dict[str, Any]) -> UserLimits:
    _check_fields(table, {field.name for field in fields(UserLimits)})
    return UserLimits(**table)


def _check_fields(table: object, known: set[str]) -> None:
    if not isinstance(table, dict):
        raise ConfigurationError("must be a table")
    if unknown := table.keys() - known:
        raise ConfigurationError(f"unknown field {min(unknown)!r}")


def _digest(token: object) -> bytes:
    # An empty token would admit every client that sends none.
    if not isinstance(token, str) or not re.fullmatch("[!-~]+", token):
        raise ConfigurationError("a token must be printable ASCII without spaces, and not empty")
    return hashlib.sha256(token.encode()).digest()


# --- Who sent a request --------------------------------------------------------------------------------------------

Authenticate = Callable[[Scope], Awaitable[User | str | None]]
"""The embedder's function: an `async def` that gets the ASGI scope of a request. It returns the user's id, a string; or
`User(id, UserLimits(…))` for a user with individual limits; or None for an unknown user, who gets a 401. It may raise
`Answer`."""


async def identify(
    scope: Scope, headers: Mapping[str, str], tokens: Tokens, authenticate: Authenticate | None = None
) -> User | None:
    """The user who sent a request; None if the relay has no users. Raises `Answer`: 401.

    If `authenticate` is given, it alone decides; else a login of the host application (`scope["user"]`), else a token. The
    401 names the accepted credentials.
    """
    if authenticate is not None:
        found = await authenticate(scope)
        user = found if found is None or isinstance(found, User) else User(found)
    else:
        user = user_of_scope(scope) or tokens.find_token(headers)
        if user is None and "user" not in scope and not any(tokens):
            return None
    if user is None:
        takes_tokens = authenticate is None and any(tokens)
        takes_logins = authenticate is not None or "user" in scope
        ways = ["a login"] * takes_logins + ["a valid token: Authorization: Bearer …, or x-api-key"] * takes_tokens
        # RFC 9110, 15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header field". No registered
        # scheme stands for a login of the host.
        challenge = {"www-authenticate": "Bearer" if takes_tokens else "Login"}
        raise Answer(401, "authentication_error", f"you need {', or '.join(ways)}", headers=challenge)
    return user


def user_of_scope(scope: Scope) -> User | None:
    """The user that the host application put into `scope["user"]`, as Starlette's `AuthenticationMiddleware` does.

    It may be an object, a mapping or the id itself. None if its `is_authenticated` is not True. The id is the first of
    `identity`, `username`, `id`, `sub` and `display_name` that it has: two users may have the same name, so names are last.
    Raises `ConfigurationError` if it has none of these.
    """
    found = scope.get("user")
    if isinstance(found, str):
        return User(found) if found else None
    if found is None or isinstance(found, User):
        return found
    read = found.get if isinstance(found, Mapping) else partial(getattr, found)
    if read("is_authenticated", True) is not True:
        return None
    for name in ("identity", "username", "id", "sub", "display_name"):
        with suppress(NotImplementedError):  # Starlette's `BaseUser` leaves it to the application
            value = read(name, None)
            if value != "" and isinstance(value, str | int | UUID):
                return User(str(value))
    raise ConfigurationError("scope['user'] has no identity, username, id, sub or display_name that can be an id")


# --- Choices of a request ---------------------------------------------------------------------------------------


def models_of(limits: Sequence[UserLimits]) -> list[str] | None:
    """The models that are on every list, in the order of the first list; None if there is no list and any model is allowed."""
    lists = [limit.models for limit in limits if limit.models is not None]
    return [name for name in lists[0] if all(name in names for names in lists)] if lists else None


def choose(
    request: Mapping[str, Any], defaults: Mapping[str, Any], limits: Sequence[UserLimits], *, is_browser: bool
) -> dict[str, Any]:
    """The request, completed with the relay's choices. Raises `InvalidRequest` for a choice that is not allowed.

    The request may name models that are on the lists of all `limits`, and at most the lowest of their `max_tokens`.
    `defaults` are the relay's `model` and `max_tokens`, for a request without them, and its `system`.

    Any visitor of the page can send a browser's request (every dialect but `messages`). So it gets that `system`, may not
    exceed that `max_tokens`, and without a list may name no other model. A request of `/v1/messages` comes from a program
    with its own system prompt.
    """
    if is_browser:
        _check_system(request)
        alone = (defaults["model"],) if models_of(limits) is None else None
        limits = (*limits, UserLimits(models=alone, max_tokens=defaults["max_tokens"]))
    models, cap = models_of(limits), min((limit.max_tokens or MAX_LIMIT for limit in limits), default=MAX_LIMIT)
    chosen = {name: value for name, value in defaults.items() if is_browser or name != "system"}
    if models is not None and chosen["model"] not in models:
        chosen["model"] = next(iter(models), None)
    if "max_tokens" in chosen:
        chosen["max_tokens"] = min(chosen["max_tokens"], cap)
    chosen |= request
    for place, part in _parts(chosen) if models is not None or cap < MAX_LIMIT else ():
        if models is not None and "model" in part and part["model"] not in models:
            words = f"must be one of {', '.join(models)}" if models else "none is allowed"
            raise InvalidRequest(f"{place}model", words)
        if not isinstance(asked := part.get("max_tokens") or 0, int) or asked > cap:
            raise InvalidRequest(f"{place}max_tokens", f"must be a whole number, at most {cap}")
    if models is not None and isinstance(chosen.get("fallbacks"), str):
        raise InvalidRequest("fallbacks", "must be a list that names the models")
    return chosen


def changed_request(given: object) -> dict[str, Any]:
    """The request that the embedder's function returned. Raises `ConfigurationError` if it is not a whole request."""
    kinds = {"model": str, "max_tokens": int, "messages": list}
    if not isinstance(given, dict):
        raise ConfigurationError(f"on_request must return None or a whole request, not {type(given).__name__}")
    if wrong := [name for name, kind in kinds.items() if not isinstance(given.get(name), kind)]:
        raise ConfigurationError(f"on_request returned a request without a usable {' and '.join(wrong)}")
    return given


def _check_system(request: Mapping[str, Any]) -> None:
    if "system" in request:
        raise InvalidRequest("system", "is set by the relay")
    for index, message in _objects(request["messages"]):
        if message.get("role") == "system":
            raise InvalidRequest(f"messages.{index}.role", "must be user or assistant")


def _parts(request: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, object) of everything that may name a model: the request, its fallbacks and tools, tools that a message adds."""
    yield "", request
    for name in ("fallbacks", "tools"):
        yield from ((f"{name}.{index}.", item) for index, item in _objects(request.get(name)))
    for index, message in _objects(request.get("messages")):
        for number, block in _objects(message.get("content")):
            for _, change in [(0, block), *_objects(block.get("tool_changes"))]:
                yield f"messages.{index}.content.{number}.", object_at(object_at(change, "tool"), "definition")


def _objects(items: object) -> list[tuple[int, dict[str, Any]]]:
    """The objects in a list, with their indexes."""
    return [(n, item) for n, item in enumerate(items) if isinstance(item, dict)] if isinstance(items, list) else []
