"""The command line: `rawsse COMMAND`, also `python -m rawsse COMMAND`. Read in this order:

    terminal.py    text to and from the user; one-line errors with advice
    options.py     options that several commands share, the `.env` file, the client with its key
    ask.py         `rawsse ask` and `chat`: one question, or several in turn
    inspect.py     `rawsse check`, `explain`, `doctor` and `conform`: whether a stream is correct; how proxies change it
    servers.py     `rawsse demo`, `serve`, `record` and `replay`
    usage.py       `rawsse usage`: the tokens of each user, and their cost

This file has the parser, and turns a failure into one line and an exit code: 0 done, 1 the work failed, 2 wrong usage,
130 interrupted. Answers go to standard output, everything else to standard error. Each command imports only what it
needs, so that `rawsse ask` does not load a server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rawsse.cli.ask import add_ask, add_chat
from rawsse.cli.inspect import add_check, add_conform, add_doctor, add_explain
from rawsse.cli.options import asked_of, load_env_file
from rawsse.cli.servers import add_demo, add_record, add_replay, add_serve
from rawsse.cli.terminal import complain, drop_output, prepare_streams, show, write
from rawsse.cli.usage import add_usage
from rawsse.errors import ConfigurationError, RawsseError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. An error is one line on standard error."""
    prepare_streams()
    parser, arguments = _parser(), argparse.Namespace()
    try:
        _, unknown = parser.parse_known_args(argv, arguments)
        if unknown:
            hint = "; write -- before the command" if hasattr(arguments, "line") else ""
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        if arguments.command is None:
            parser.print_help(sys.stderr)
            return WRONG_USAGE
        if hasattr(arguments, "env_file"):
            load_env_file(arguments.env_file)
        if not hasattr(arguments, "port"):
            write("")  # fail now, not after paying for an answer that cannot be shown
        return FAILED if arguments.command(arguments) is False else DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        drop_output()  # the reader has exited (`rawsse ask … | head`)
        return FAILED
    except ConfigurationError as exc:
        complain(exc)
        return FAILED if isinstance(exc.__cause__, OSError) else WRONG_USAGE  # a port in use is not wrong usage
    except (RawsseError, OSError) as exc:
        drop_output()
        complain(exc, asked_of(arguments))
    except Exception as exc:
        if sys.flags.dev_mode:
            raise
        complain(f"{type(exc).__name__}: {exc}. This is a bug in rawsse; `python -X dev -m rawsse …` shows where")
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rawsse",
        description="Stream Claude's answers over raw HTTP and server-sent events.",
        epilog="To begin: `rawsse demo`, and open the address that it prints; it needs no key. "
        "`rawsse COMMAND --help` has the options. Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.",
    )
    parser.set_defaults(command=None, parser=parser)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    to_talk = (add_demo, add_serve, add_usage, add_ask, add_chat)
    for add in (*to_talk, add_record, add_replay, add_check, add_explain, add_doctor, add_conform):
        add(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version and exits. Loads `importlib.metadata` only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            show(f"rawsse {version('rawsse')}")
        except PackageNotFoundError:
            show("rawsse, not installed: a checkout")
        parser.exit()
