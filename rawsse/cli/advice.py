"""An error as one line for a person at a terminal: the problem, and the option or variable that helps. Pure.

advise(error, Asked(model="claude-x", environ=os.environ))   # "there is no model 'claude-x': name another with …"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    CertificateError,
    InternalServerError,
    NotFoundError,
    OverloadedError,
    ProxyError,
    RateLimitError,
    quote,
)

MAX_ADVICE_CHARS = 600
"""Of one line: what a gateway says of a failure may be a whole page."""

MIN_SECRET_CHARS = 8
"""A shorter key is a word such as "any" or "demo", and found in many texts that do not give it away."""

_FIELDS: Mapping[str, str] = {"x-api-key": "ANTHROPIC_API_KEY", "authorization": "ANTHROPIC_AUTH_TOKEN"}
_SECRETS = (*_FIELDS.values(), "RAWSSE_TOKEN")


class Asked(NamedTuple):
    """The model and address of the request, and the option that changes the model."""

    model: str = ""
    base_url: str = ""
    """The address of the API; empty if it is the default."""
    model_option: str = "--model"
    environ: Mapping[str, str] = {}


def advise(error: Exception, asked: Asked | None = None) -> str:
    """The error in one line. A key never stands in it, even if the other side repeats it."""
    asked = asked or Asked()
    return one_line(_words(error, asked), asked.environ)


def one_line(text: str, environ: Mapping[str, str]) -> str:
    """`text` without line ends and without the keys of the environment, and not too long."""
    for field, name in _FIELDS.items():  # the client has taken the key out, and named the field that it was in
        text = text.replace(f"[{field}]", f"[{name}]") if environ.get(name, "").strip() else text
    for name in _SECRETS:
        secret = environ.get(name, "").strip()
        text = text.replace(secret, f"[{name}]") if len(secret) >= MIN_SECRET_CHARS else text
    line = " ".join(text.split())
    return line if len(line) <= MAX_ADVICE_CHARS else f"{line[:MAX_ADVICE_CHARS]}…"


def _words(error: Exception, asked: Asked) -> str:
    if isinstance(error, OSError):
        words = error.strerror or str(error) or type(error).__name__
        return f"{error.filename}: {words}" if error.filename and error.strerror else words
    if not isinstance(error, APIError):
        return str(error)
    words = _status(error, asked) if isinstance(error, APIStatusError) else _network(error, asked)
    return f"the answer is incomplete: {words}" if error.phase == "content" else words


# --- The API said no -----------------------------------------------------------------------------------------------


def _status(error: APIStatusError, asked: Asked) -> str:
    request = f", request {error.request_id}" if error.request_id else ""
    remedy = _remedy(error, asked)
    return f"{remedy} [{error.message}{request}]" if remedy else f"{error.message}{request and f' [{request[2:]}]'}"


def _remedy(error: APIStatusError, asked: Asked) -> str:
    tried = _attempts(error)
    match error:
        case AuthenticationError():
            return f"the API does not accept the key: set {_key_variable(asked.environ)} to one that it does"
        case NotFoundError():
            return _not_found(error, asked)
        case RateLimitError():
            return f"the rate limit is reached{tried}: try again {_when(error)}"
        case OverloadedError():
            return f"the API is overloaded{tried}: try again {_when(error)}"
        case InternalServerError():
            return f"the API has failed{tried}: try again {_when(error)}"
    return ""


def _key_variable(environ: Mapping[str, str]) -> str:
    # As the client does: the key goes before the token, and a blank one is none.
    names = [name for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN") if environ.get(name, "").strip()]
    return names[0] if names else "ANTHROPIC_API_KEY"


def _not_found(error: NotFoundError, asked: Asked) -> str:
    said = error.api_message or ""
    if error.type == "not_found_error" and asked.model and (asked.model in said or "model" in said.lower()):
        return f"there is no model {quote(asked.model)}: name another with {asked.model_option}"
    where = asked.base_url or "that address"
    return f"there is no Messages API at {where}: is the base URL right (--base-url, ANTHROPIC_BASE_URL)?"


def _when(error: APIError) -> str:
    return f"in {error.retry_after:.0f} s" if error.retry_after and error.retry_after >= 1 else "later"


# --- The network ---------------------------------------------------------------------------------------------------


def _network(error: APIError, asked: Asked) -> str:
    words = f"{_without_number(error)}{_attempts(error)}"
    if isinstance(error, ProxyError):
        return f"{words}; the proxy is named by {_proxy_variable(asked)}"
    if isinstance(error, APIConnectionError) and error.phase == "connect" and not isinstance(error, CertificateError):
        if asked.base_url:
            return f"{words}; check that address (--base-url, ANTHROPIC_BASE_URL), and the network"
        return f"{words}; check the network, and HTTPS_PROXY if there is no way but through a proxy"
    return words


def _without_number(error: APIError) -> str:
    """The message; where it ends with the resolver's words, without "[Errno -2]", which cannot be looked up."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno < 0:
        return error.message.replace(f"[Errno {cause.errno}] ", "")
    return error.message


def _attempts(error: APIError) -> str:
    return f" ({error.retries_taken + 1} attempts)" if error.retries_taken else ""


def _proxy_variable(asked: Asked) -> str:
    scheme = "http" if asked.base_url.lower().startswith("http:") else "https"
    lower = (f"{scheme}_proxy", "all_proxy")
    set_ones = [each for name in lower for each in (name, name.upper()) if asked.environ.get(each, "").strip()]
    return set_ones[0] if set_ones else "the environment"
