"""A program whose answers may call a function: it prints the text as it comes, and what all of it cost.

export ANTHROPIC_API_KEY=sk-ant-…
python tool_loop.py "Do I need an umbrella in Bergen?"

Exit codes: 0 answered, 1 the answer broke off, 2 no key or no question, 3 rate-limited, 4 too slow, 130 interrupted.
"""

from __future__ import annotations

import sys

from rawsse import APIError, APITimeoutError, Client, ConfigurationError, RateLimitError, Timeouts, tool

MODEL = "claude-sonnet-5"
MAX_TURNS = 8  # answers, at most: a model may call functions without end
TIMEOUTS = Timeouts(total=120)  # seconds for each answer; the function has no clock
EXIT_CODES = {ConfigurationError: 2, RateLimitError: 3, APITimeoutError: 4, APIError: 1}  # the first that fits


@tool
def get_weather(place: str, unit: str = "celsius") -> str:
    """The weather at a place, now."""
    return f"rain in {place}, 11 degrees {unit}"  # yours: ask a service


def ask(client: Client, question: str) -> str | None:
    """Print the text of all answers. Returns why the loop ended."""
    with client.messages.tool_runner(
        stream=True,
        model=MODEL,
        max_tokens=1024,
        messages=[{"role": "user", "content": question}],
        tools=[get_weather],
        max_turns=MAX_TURNS,
    ) as runner:
        try:
            for stream in runner:  # the function runs between two answers
                for text in stream.text_stream:
                    print(text, end="", flush=True)
                print()
        finally:  # an answer that broke off is paid for as well, as far as it came
            usage, least = runner.usage, "" if runner.usage.exact else "at least "
            spent = f"{usage.total_input_tokens} tokens read, {usage.output_tokens} written"
            print(f"\n{least}{spent} (answers: {len(usage.turns)})", file=sys.stderr)
        return runner.stopped_by


def main() -> int:
    question = " ".join(sys.argv[1:])
    if not question:
        print("usage: tool_loop.py QUESTION", file=sys.stderr)
        return 2
    try:
        with Client(timeouts=TIMEOUTS) as client:
            stopped_by = ask(client, question)
    except (APIError, ConfigurationError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    except KeyboardInterrupt:  # `with` has closed the stream, so the model writes no more
        return 130
    if stopped_by != "end_turn":  # "max_turns", "max_tokens", "refusal" …
        print(f"the answer ended early: {stopped_by}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
