"""The paths on which a browser begins a run: a row for each, with the dialects of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from rawsse.relay.dialects import Dialect, EventsDialect, TextDialect
from rawsse.relay.ui import UIDialect

DIALECTS: Mapping[str, Sequence[type[Dialect]]] = {
    **dict.fromkeys(("/chat/stream", "/api/chat/stream", "/stream"), (TextDialect,)),
    "/api/chat": (UIDialect, EventsDialect),
}
"""The paths for a POST that begins a run, and the dialects of the answer. Of two, the first one that can read the body is
used. Errors before that use the first, or the last if the client accepts `text/event-stream`: `useChat` accepts `*/*`."""

RESUMABLE: Mapping[str, type[Dialect]] = {kind.name: kind for kind in chain(*DIALECTS.values()) if kind.is_resumable}
"""The dialects whose runs clients can come back to, by name."""
