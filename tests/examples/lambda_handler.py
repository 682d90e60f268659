"""A handler for AWS Lambda behind a function URL: POST {"question": "…"} is answered {"answer": "…"}.

The package is rawsse with h11 and certifi, a few hundred KiB to unzip at a cold start. Set ANTHROPIC_API_KEY in the function's
configuration, and `lambda_handler.handler` as its handler.
"""

from __future__ import annotations

import json
from typing import Any

from rawsse import APIError, Client, ConfigurationError, Timeouts

MODEL = "claude-sonnet-5"
SPARE_SECONDS = 2.0  # to answer before Lambda kills the process

# Made once for each process. The next call finds its connection open; where Lambda froze the process for so long that the
# other side has closed it, the client connects again and nothing is seen of it.
client = Client()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    try:
        question = str(json.loads(event.get("body") or "")["question"])
    except (ValueError, TypeError, KeyError):
        return reply(400, {"error": 'the body must be JSON: {"question": "…"}'})
    seconds = max(context.get_remaining_time_in_millis() / 1000 - SPARE_SECONDS, 0.1)
    try:
        message = client.messages.create(
            model=MODEL,
            max_tokens=1024,
            messages=[{"role": "user", "content": question}],
            timeout=Timeouts(total=seconds),
        )
    except ConfigurationError as error:  # no key: that is for the log, and not for the function's caller
        print(error)
        return reply(500, {"error": type(error).__name__})
    except APIError as error:  # what had come before the end is worth having: the tokens are paid for
        partial = error.partial.text if error.partial else ""
        return reply(502, {"error": type(error).__name__, "partial": partial, "request_id": error.request_id})
    return reply(200, {"answer": message.text, "stop_reason": message.stop_reason})


def reply(status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
