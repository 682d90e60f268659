"""A command-line program: it prints the answer as it comes, and its exit code says whether the answer is whole.

export ANTHROPIC_API_KEY=sk-ant-…
python command_line.py "What is a server-sent event?"
git diff | python command_line.py "Review this."
"""

from __future__ import annotations

import sys

from rawsse import APIError, Client, ConfigurationError

MODEL = "claude-sonnet-5"


def main() -> int:
    question = " ".join(sys.argv[1:])
    if not sys.stdin.isatty():
        question = f"{question}\n\n{sys.stdin.read()}".strip()
    if not question:
        print("usage: command_line.py QUESTION", file=sys.stderr)
        return 2
    messages = [{"role": "user", "content": question}]
    try:
        with Client() as client, client.messages.stream(model=MODEL, max_tokens=2048, messages=messages) as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
            print()
            stop_reason = stream.get_final_message().stop_reason
    except ConfigurationError as error:  # no key
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except APIError as error:  # refused, cut, timed out: what had come is on the screen
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # `with` has closed the stream, so the model writes no more
        return 130
    if stop_reason != "end_turn":  # "max_tokens", "refusal" …
        print(f"the answer ended early: {stop_reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
