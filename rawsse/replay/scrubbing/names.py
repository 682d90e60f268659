"""Names that say that their value is a secret: of header fields.

This file knows names. It refuses to know what the values look like, and where they are looked for.

    if name.lower() in CREDENTIAL_HEADERS: ...
"""

from __future__ import annotations

__all__ = ["CREDENTIAL_HEADERS"]

CREDENTIAL_HEADERS: frozenset[str] = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
        "x-goog-api-key",
    }
)
"""Header fields, in lower case. Whatever their value is, these are there to carry a secret."""
