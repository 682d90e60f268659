"""Who may use the relay: users, their limits, and the token or login that identifies the sender of a request.

    tokens = UserFile(Path("users.toml"))                       # raises ConfigurationError
    guard = Guard(tokens=tokens)                                # 401 without one of its tokens
    user = await identify(scope, headers, tokens=guard.tokens)  # User(id='ada')
    tokens.reload()                                             # on SIGHUP

The file is TOML. A field that is left out is without a limit.

    [all]                                  # what all users together may use
    tokens_per_day = 5_000_000

    [[user]]
    id = "ada"
    token_sha256 = "2c26b46b68ffc68f…"     # or token = "…"
    requests_per_minute = 60
    open_runs = 4
    tokens_per_day = 200_000
    ends_open_runs = true                  # a run in progress is cut when the day's tokens are used up
    models = ["claude-haiku-4-5"]
    max_tokens = 8192
    operator = true                        # may list and end the runs of others

`printf %s "$TOKEN" | sha256sum` prints the digest of a token. The digest is not salted, so a token should be made by a machine:
`python -c "import secrets; print(secrets.token_urlsafe())"`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from rawsse.errors import ConfigurationError
from rawsse.relay.dialects import Answer
from rawsse.server import Scope

MAX_USER_ID_CHARS = 256
"""The length of a user's id: it is a key in memory, a column of the ledger, and a part of log lines."""

MAX_LIMIT = 999_999_999_999_999
"""The largest limit: a structured field has integers of at most 15 digits (RFC 9651, 3.3.1)."""

log = logging.getLogger("rawsse.relay")


@dataclass(frozen=True, slots=True)
class UserLimits:
    """How much one user may use, or all users together. None is without a limit. Raises `ConfigurationError`.

    `requests_per_minute` may come at once, and come back evenly. `open_runs` is how many runs may be in progress,
    `tokens_per_day` the tokens of all kinds of the runs that began on one UTC day, `models` those that may be named, and
    `max_tokens` how many a request may ask for. `ends_open_runs`: a run in progress is cut when the day's tokens are used up.
    """

    requests_per_minute: int | None = None
    open_runs: int | None = None
    tokens_per_day: int | None = None
    models: tuple[str, ...] | None = None
    max_tokens: int | None = None
    ends_open_runs: bool = False

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "open_runs", "tokens_per_day", "max_tokens"):
            value = getattr(self, name)
            # 0 could be meant as "none" or as "no limit".
            if value is not None and (type(value) is not int or not 1 <= value <= MAX_LIMIT):
                raise ConfigurationError(f"{name} must be a whole number from 1 to {MAX_LIMIT}, or left out")
        models: object = self.models
        if models is not None:
            if not isinstance(models, tuple | list) or not models or not all(isinstance(m, str) and m for m in models):
                raise ConfigurationError("models must be a list of names, and not empty")
            object.__setattr__(self, "models", tuple(models))
        if type(self.ends_open_runs) is not bool:
            raise ConfigurationError("ends_open_runs must be true or false")


@dataclass(frozen=True, slots=True)
class User:
    """Someone who may use the relay. Runs and quotas go by `id`. Without `limits` those of the relay hold.

    An operator may list and end the runs of others. Raises `ConfigurationError` for an id that is empty, too long, or not
    printable.
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
    """Tokens and the users that they stand for; iterating gives the users.

    Each of `tokens` stands for one user, whose id has the first digits of the token's digest. Only digests are kept. Raises
    `ConfigurationError` for a token that no header field can bring.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        digests = map(_digest, tokens)
        self._users = {digest[:8]: (digest, User(f"token-{digest.hex()[:8]}")) for digest in digests}

    def __iter__(self) -> Iterator[User]:
        return (user for _, user in self._users.values())

    def find_token(self, headers: Mapping[str, str]) -> User | None:
        """The user whose token these fields (lower-case names) bring: `Authorization: Bearer …`, or `x-api-key`."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = (bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
        found = [self._find(token) for token in given if token]
        return next((user for user in found if user is not None), None)

    def _find(self, token: str) -> User | None:
        # The time that this takes tells neither how much of a token was right nor whose it is: a caller cannot choose the
        # digest of what it sends, all users are found in the same time, and digests are compared in constant time.
        digest = hashlib.sha256(token.encode()).digest()
        known, user = self._users.get(digest[:8], (b"", None))
        return user if hmac.compare_digest(known, digest) else None


class UserFile(Tokens):
    """The users of a TOML file, in the form that the head of this module shows, and those of `tokens`.

    `everyone` are the limits of all users together. Raises `ConfigurationError` with the file, the entry and the field, never
    with a token.
    """

    def __init__(self, path: Path, tokens: Iterable[str] = ()) -> None:
        super().__init__(tokens)
        self.path = path
        self._own = self._users
        self.reload()

    def reload(self) -> None:
        """Read the file again. If it cannot be used, the users stay as they were, and `ConfigurationError` is raised.

        100,000 users take seconds. It may be called in another thread than those that look for users.
        """
        import tomllib

        where = str(self.path)
        try:
            data = tomllib.loads(self.path.read_text(encoding="utf-8"))
            entries = data.get("user")
            # A file that is being written may be empty for a moment; then no user could use the relay.
            if not isinstance(entries, list) or not entries:
                raise ConfigurationError("user is missing; expected a table [[user]] for each user")
            _check_fields(data, {"user", "all"})
            users, ids = dict(self._own), {user.id for _, user in self._own.values()}
            for number, entry in enumerate(entries, 1):
                table = dict(entry) if isinstance(entry, dict) else {}
                where = f"{self.path}: user {number} ({table.get('id')!r})"
                digest, user = _read_user(table)
                if user.id in ids or digest[:8] in users:
                    raise ConfigurationError(f"{'id' if user.id in ids else 'token'} is that of another user")
                ids.add(user.id)
                users[digest[:8]] = digest, user
            where = f"{self.path}: [all]"
            everyone = _read_limits(data.get("all", {}))
            is_public = self.path.stat().st_mode & 0o004
        except ConfigurationError as exc:
            raise ConfigurationError(f"{where}: {exc}") from None
        except RecursionError:
            raise ConfigurationError(f"cannot read {self.path}: it is nested too deeply") from None
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"cannot read {self.path}: {exc}") from None
        if is_public and any("token" in entry for entry in entries):
            log.warning("%s has tokens in plain text, and other users of this machine can read it", self.path)
        self.everyone, self._users = everyone, users


def _read_user(entry: dict[str, Any]) -> tuple[bytes, User]:
    """(digest of the token, user) of a table."""
    token, hashed = entry.pop("token", None), entry.pop("token_sha256", None)
    user = User(entry.pop("id", ""), is_operator=entry.pop("operator", False))
    if entry:
        user = replace(user, limits=_read_limits(entry))
    if (token is None) == (hashed is None):
        raise ConfigurationError("expected either token_sha256 or token")
    if hashed is None:
        return _digest(token), user
    if not isinstance(hashed, str) or not re.fullmatch("[0-9A-Fa-f]{64}", hashed):
        raise ConfigurationError("token_sha256 must be 64 hexadecimal digits")
    return bytes.fromhex(hashed), user


def _read_limits(table: dict[str, Any]) -> UserLimits:
    _check_fields(table, {field.name for field in fields(UserLimits)})
    return UserLimits(**table)


def _check_fields(table: object, known: set[str]) -> None:
    if not isinstance(table, dict):
        raise ConfigurationError("must be a table")
    if unknown := table.keys() - known:
        raise ConfigurationError(f"unknown field {min(unknown)!r}")


def _digest(token: object) -> bytes:
    # An empty token would admit every caller without one.
    if not isinstance(token, str) or not re.fullmatch("[!-~]+", token):
        raise ConfigurationError("a token must be printable ASCII without spaces, and not empty")
    return hashlib.sha256(token.encode()).digest()


# --- Who sent a request --------------------------------------------------------------------------------------------

Authenticate = Callable[[Scope], Awaitable[User | str | None]]
"""The embedder's function: the user of a request, or the user's id; None for a request to be refused."""


async def identify(
    scope: Scope, headers: Mapping[str, str], tokens: Tokens, authenticate: Authenticate | None = None
) -> User | None:
    """The user who sent a request; None where the relay has no users. Raises `Answer`: 401.

    `authenticate` decides, if there is one; else a login of the host application (`scope["user"]`), else a token.
    """
    if authenticate is not None:
        found = await authenticate(scope)
        user = found if found is None or isinstance(found, User) else User(found)
    else:
        user = user_of_scope(scope) or tokens.find_token(headers)
        if user is None and "user" not in scope and not any(tokens):
            return None
    if user is None:
        # RFC 9110, 15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header field".
        text = "the relay asks who sent this: Authorization: Bearer …, or x-api-key, or a login of the host"
        raise Answer(401, "authentication_error", text, headers={"www-authenticate": "Bearer"})
    return user


def user_of_scope(scope: Scope) -> User | None:
    """The user that the host application has left in `scope["user"]`, as Starlette's `AuthenticationMiddleware` does.

    It may be an object, a mapping or the id itself. None if its `is_authenticated` is not True. The id is the first that is
    there of `identity`, `username`, `id`, `sub` and `display_name`: two users may have the same name, so names come last.
    Raises `ConfigurationError` if there is none.
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
