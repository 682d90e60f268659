"""The command line: `rawsse COMMAND`, also `python -m rawsse COMMAND`. Read in this order:

    advice.py      an error in one line, and what to do about it
    terminal.py    showing text to a person, and reading what the person types
    envfile.py     variables from a `.env` file
    ask.py         `rawsse ask`: one question, one answer
    chat.py        `rawsse chat`: questions and answers in turn
    inspect.py     `rawsse check` and `rawsse explain`
    arguments.py   arguments that several commands have, and exit codes
    servers.py     `rawsse demo`, `serve`, `record` and `replay`
    usage.py       `rawsse usage`: the tokens of each user, and what they cost
    doctor.py      `rawsse doctor`: is it the network that holds events back?

Here are the parser, and how a command's failure is told. Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.
Answers go to standard output, everything else to standard error. Rooms are imported by the command that needs them, so that
`rawsse ask` does not pay for a server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rawsse.cli.advice import Asked
from rawsse.cli.arguments import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    Command,
    ListTable,
    add_command,
    add_paths,
    add_scrub,
    add_system,
    add_upstream,
)
from rawsse.cli.ask import DEFAULT_MODEL, ask, new_client, read_prompt
from rawsse.cli.envfile import load_env_file
from rawsse.cli.servers import add_demo, add_record, add_replay, add_serve
from rawsse.cli.terminal import (
    complain,
    drop_output,
    fill_closed_descriptors,
    is_typed,
    let_every_character_be_printed,
    show,
    write,
)
from rawsse.cli.usage import add_usage
from rawsse.errors import ConfigurationError, RawsseError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Errors are said in one line."""
    fill_closed_descriptors()
    let_every_character_be_printed()
    parser = _parser()
    arguments = argparse.Namespace()
    try:
        _, unknown = parser.parse_known_args(argv, arguments)
        if unknown:
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        command: Command | None = arguments.command
        if command is None:
            parser.print_help(sys.stderr)
            return WRONG_USAGE
        if hasattr(arguments, "env_file"):
            load_env_file(arguments.env_file)
        if not hasattr(arguments, "port"):
            write("")  # fails now, and not when an answer has been paid for that cannot be shown
        return command(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        drop_output()  # the reader has gone (`rawsse ask … | head`)
        return FAILED
    except ConfigurationError as exc:
        # What the system refuses (a port that is taken) was no wrong usage.
        return _complain(exc, FAILED if isinstance(exc.__cause__, OSError) else WRONG_USAGE)
    except (RawsseError, OSError) as exc:
        drop_output()
        return _complain(exc, FAILED, _asked(arguments))
    except Exception as exc:
        if sys.flags.dev_mode:
            raise
        text = f"{type(exc).__name__}: {exc}. This is a bug in rawsse; `python -X dev -m rawsse …` shows where"
        return _complain(text, FAILED)


def _complain(problem: Exception | str, code: int, asked: Asked | None = None) -> int:
    complain(problem, asked)
    return code


def _asked(arguments: argparse.Namespace) -> Asked:
    base_url = getattr(arguments, "base_url", None) or os.environ.get("ANTHROPIC_BASE_URL", "")
    return Asked(getattr(arguments, "model", None) or "", base_url, environ=os.environ)


# --- Arguments -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rawsse",
        description="Stream Claude's answers over raw HTTP and server-sent events.",
        epilog="To begin: `rawsse demo`, and open the address that it prints; it needs no key. "
        "`rawsse COMMAND --help` has the options. Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.",
    )
    parser.set_defaults(command=None, parser=parser)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and leave")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_demo(commands)
    add_serve(commands)
    add_usage(commands)
    _add_ask(commands)
    _add_chat(commands)
    add_record(commands)
    add_replay(commands)
    _add_check(commands)
    _add_explain(commands)
    _add_doctor(commands)
    return parser


class _Version(argparse.Action):
    """Shows the version, and leaves. Loads `importlib.metadata` only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            show(f"rawsse {version('rawsse')}")
        except PackageNotFoundError:
            show("rawsse, not installed: a checkout")
        parser.exit()


def _add_ask(commands: Any) -> None:
    more = "The answer goes to standard output; model, tokens and stop reason to standard error. Ctrl-C stops it."
    parser = add_command(commands, _ask, "ask", "stream one answer to the terminal", more)
    parser.add_argument(
        "prompt",
        nargs="*",
        metavar="PROMPT",
        help="the prompt; standard input stands in place of -, or else behind it, unless it is a terminal",
    )
    add_system(parser)
    parser.add_argument("--json", action="store_true", help="print the whole message as JSON instead of its text")
    add_upstream(parser)


def _add_chat(commands: Any) -> None:
    more = "From a pipe, each line is a question. Nothing is kept but by --save and /save."
    parser = add_command(commands, _chat, "chat", "ask, and ask again, in the terminal", more)
    add_system(parser)
    parser.add_argument("--load", type=Path, metavar="FILE", help="go on with a conversation that was saved")
    parser.add_argument("--save", type=Path, metavar="FILE", help="save the conversation there after each answer")
    add_upstream(parser, "as it was saved, or else ")
    parser.set_defaults(model=None, max_tokens=None)


def _add_check(commands: Any) -> None:
    more = "Names each broken rule with its place, in a stream that is still coming as soon as it is seen."
    parser = add_command(
        commands, _check, "check", "is this a correct stream?", f"{more} Exit code 1 if a rule is broken."
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="PATH",
        help="a recording (*.sse.jsonl), a bare *.sse, a folder, - for standard input (curl -N … | rawsse check -), or the "
        "base URL of a Messages API, which is asked a question",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each finding and each stream")
    add_scrub(parser, "report")
    table = "rawsse.replay.check.RULES"
    parser.add_argument("--rules", action=ListTable, nargs=0, const=table, help="list the rules, and leave")
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL, help=f"of the question (default: {DEFAULT_MODEL})")
    parser.add_argument("--prompt", default="Count from one to five.", help="the question (default: %(default)s)")


def _add_explain(commands: Any) -> None:
    parser = add_command(commands, _explain, "explain", "the anatomy of a recording: bytes, lines, events, message")
    add_paths(parser)
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: auto, unless NO_COLOR is set"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="OUT",
        help="write a page with the timeline as a picture instead; of several recordings, one each, into the folder OUT",
    )


def _add_doctor(commands: Any) -> None:
    more = (
        "Asks a relay for timed events, through all proxies before it; no model is called. Exit code 1 if they do not."
    )
    parser = add_command(commands, _doctor, "doctor", "do events arrive as they are sent?", more)
    parser.add_argument("url", metavar="URL", help="the relay as browsers reach it, with the path before /chat/stream")
    parser.add_argument(
        "--token", help="the relay's token (default: RAWSSE_TOKEN in the environment); it is never shown"
    )
    parser.add_argument(
        "--silence",
        type=float,
        default=3.0,
        metavar="SECONDS",
        help="how long nothing is sent (default 3). 35 finds who cuts idle connections after 30 s, 65 after 60 s",
    )
    parser.add_argument("--json", action="store_true", help="print figures (in seconds) and findings as JSON")


def _ask(arguments: argparse.Namespace) -> int:
    client = new_client(arguments.base_url)
    # Before asyncio runs: it would take the first Ctrl-C for itself and leave the reading be.
    prompt = read_prompt(arguments.prompt)
    options = {"model": arguments.model, "max_tokens": arguments.max_tokens, "system": arguments.system}
    ask(client, prompt, as_json=arguments.json, **options)
    return DONE


def _chat(arguments: argparse.Namespace) -> int:
    from rawsse.cli.chat import run_chat

    fields = {"model": arguments.model, "max_tokens": arguments.max_tokens, "system": arguments.system}
    client = new_client(arguments.base_url)
    is_whole = run_chat(client, fields, arguments.load, arguments.save, _asked(arguments))
    # A person has seen what failed, and has asked again or not. A script has not.
    return DONE if is_whole or is_typed() else FAILED


def _check(arguments: argparse.Namespace) -> int:
    from rawsse.cli.inspect import check_all

    options = {"model": arguments.model, "prompt": arguments.prompt, "scrub": arguments.scrub}
    is_good = check_all(arguments.sources, as_json=arguments.json, **options)
    return DONE if is_good else FAILED


def _explain(arguments: argparse.Namespace) -> int:
    from rawsse.cli.inspect import explain_all, explain_to_page

    if arguments.html is not None:
        return DONE if explain_to_page(arguments.paths, arguments.html) else FAILED
    # NO_COLOR: https://no-color.org. What was asked for by an option counts for more.
    is_wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    color = is_wanted if arguments.color == "auto" else arguments.color == "always"
    return DONE if explain_all(arguments.paths, color=color) else FAILED


def _doctor(arguments: argparse.Namespace) -> int:
    from rawsse.cli.doctor import examine
    from rawsse.relay.doctor import Plan

    token = arguments.token or os.environ.get("RAWSSE_TOKEN")
    is_healthy = examine(arguments.url, Plan(silence=arguments.silence), token, as_json=arguments.json)
    return DONE if is_healthy else FAILED
