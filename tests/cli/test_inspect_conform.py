"""`rawsse conform`: its table in each form, its exit code, and what it says of a command that does not work."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from rawsse.cli import inspect, main
from rawsse.replay import conform
from rawsse.replay.conform import OnRow, Row, client_cases

from .conftest import Play

READER = """
import json, os, socket, sys
host, port = os.environ["ANTHROPIC_BASE_URL"].removeprefix("http://").split(":")
body = '{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": true}'
head = f"POST /v1/messages HTTP/1.0\\r\\nx-api-key: any\\r\\ncontent-length: {len(body)}\\r\\n\\r\\n"
with socket.create_connection((host, int(port))) as server, server.makefile("rw", newline="\\n") as file:
    file.write(head + body)
    file.flush()
    status, text = file.readline(), file.read().partition("\\r\\n\\r\\n")[2]
if " 200 " not in status:
    sys.exit("no answer")
for line in text.split("\\n"):
    if line.startswith("data: ") and "text_delta" in line:
        sys.stdout.write(json.loads(line[6:])["delta"]["text"])
"""
CLIENT = ["conform", "client", "--jobs", "1"]
PROGRAM = ["--", sys.executable, "-S", "-c", READER]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in client_cases() if case.name in ("plain", "status=401", "end@event=5")]
    monkeypatch.setattr(conform, "client_cases", lambda: cases)


@pytest.mark.usefixtures("few")
def test_the_table_of_a_client_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CLIENT, *PROGRAM]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "ok     plain                           whole",
        "⚠      end@event=5                     cut, no error",
        "ok     status=401                      exit 1",
        "ok     the ending that this row allows: some rows allow both the whole answer and an error",
        "⚠      not the whole answer came out, and no error said so",
        "2 right, 0 wrong, 1 ⚠ taken for whole, 0 not judged",
    ]
    assert err == ""


def test_the_table_in_json_and_in_markdown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def two_rows(*_: object, on_row: OnRow, **options: object) -> list[Row]:
        sent = {"recording": "plain", "faults": ["end@event=5"]}
        rows = [Row("plain", "right", "whole", "hangs"), Row("end@event=5", "silent", "cut, no error", "", sent)]
        for row in rows:
            on_row(row, "", 2)
        return rows

    monkeypatch.setattr(conform, "try_client", two_rows)
    assert main([*CLIENT, *PROGRAM]) == 1
    assert capsys.readouterr().out.splitlines()[0].endswith("  whole; the first time hangs")
    assert main([*CLIENT, "--json", *PROGRAM]) == 1
    *rows, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        {"name": "plain", "verdict": "right", "what": "whole", "first": "hangs", "sent": {}},
        {
            "name": "end@event=5",
            "verdict": "silent",
            "what": "cut, no error",
            "first": "",
            "sent": {"recording": "plain", "faults": ["end@event=5"]},
        },
    ]
    legend = last.pop("legend")
    assert last == {"right": 1, "wrong": 0, "silent": 1, "open": 0}
    assert legend["silent"] == "not the whole answer came out, and no error said so"
    assert legend.keys() == last.keys()
    assert main([*CLIENT, "--markdown", *PROGRAM]) == 1
    assert capsys.readouterr().out.splitlines()[3] == "| `end@event=5` | ⚠ | cut, no error |"


def test_a_client_that_is_right_everywhere_is_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = client_cases()[:2]
    monkeypatch.setattr(conform, "client_cases", lambda: cases)
    assert main([*CLIENT, *PROGRAM]) == 0


def test_progress_names_the_row_that_runs_and_is_taken_away_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two_rows(*_: object, on_row: OnRow, **options: object) -> list[Row]:
        rows = [Row("plain", "right", "whole"), Row("\x1b[2J", "right", "whole")]
        for row in rows:
            on_row(None, row.name, 2)
            on_row(row, "", 2)
        return rows

    monkeypatch.setattr(conform, "try_client", two_rows)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main([*CLIENT, *PROGRAM]) == 0
    shown = [line for line in terminal.getvalue().split("\r\x1b[K") if line]
    assert shown == ["1 of 2: plain", "2 of 2: \ufffd[2J"]
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_a_command_that_fails_with_a_whole_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CLIENT, "--", sys.executable, "-S", "-c", "import sys; sys.exit('no such module')"]) == 1
    out, err = capsys.readouterr()
    assert "exit 1: it did not ask ANTHROPIC_BASE_URL: no such module\n" in out
    assert err == NOT_TRIED


NOT_TRIED = "rawsse: no other row was tried: of a complete answer, the command must print the text, and exit with 0\n"


def test_a_command_that_prints_events_is_told_what_it_printed_and_what_was_wanted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prints = READER[: READER.index("for line")] + "sys.stdout.write(text)"
    assert main([*CLIENT, "--", sys.executable, "-S", "-c", prints]) == 1
    out, err = capsys.readouterr()
    assert "  altered, no error: at character 0 it printed 'event: message_start\\ndata: {" in out
    assert ", not 'A server-sent event is " in out
    assert err == NOT_TRIED


def test_the_first_row_alone_is_enough_if_it_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CLIENT, "--only", "plain", *PROGRAM]) == 0
    assert capsys.readouterr().err == ""


def test_the_help_tells_of_a_filter_for_events_and_of_the_fields_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*CLIENT, "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "curl … | sed -n 's/^data: *//p' | jq -j '.delta.text // empty'" in words
    assert words.count("`first`: ") == words.count("`sent`: ") == 1


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What has been shown before each run of a client that is always right."""
    before: list[str] = []

    async def next_run(*_: object) -> conform.Run:
        before.append(capsys.readouterr().out)
        return conform.Run(0, "", "")

    monkeypatch.setattr(conform, "_run", next_run)
    monkeypatch.setattr(conform, "judge_client", lambda case, run: Row(case.name, "right", "x"))
    return before


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_rows_are_shown_as_they_come_and_only_those_that_are_named(form: list[str], shown: list[str]) -> None:
    assert main([*CLIENT, *form, "--only", "status=401", "--only", "end@event=5", "--", "any"]) == 0
    names = r'(?:^{"name": "|^ok +)(plain|end@event=5|status=401)'
    assert [re.findall(names, text) for text in shown] == [[], ["plain"], ["end@event=5"]]


def test_a_row_that_does_not_exist_is_told_with_those_that_do(
    shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*CLIENT, "--only", "status=402", "--", "any"])
    names = "; ".join(case.name for case in client_cases())
    assert raised.value.code == 2
    assert f"error: there is no row 'status=402': name one of {names}\n" in capsys.readouterr().err
    assert shown == []


@pytest.mark.usefixtures("shown", "few")
def test_a_reader_of_the_rows_may_go(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(text: str) -> None:
        if "end@event=5" in text:
            raise BrokenPipeError

    monkeypatch.setattr(inspect, "show", broken)
    assert main([*CLIENT, "--", "any"]) == 1
    assert capsys.readouterr().err == ""


def test_a_command_whose_options_are_taken_for_ours_is_told_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*CLIENT, sys.executable, "-c", "pass"])
    assert "unrecognized arguments: -c pass; write -- before the command\n" in capsys.readouterr().err


def test_a_command_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CLIENT, "--", "/nonexistent/client"]) == 1
    assert "/nonexistent/client" in capsys.readouterr().err


def test_a_gateway_that_is_right(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    server = play("plain")
    assert main(["conform", "server", f"{server.base_url}/v1/messages"]) == 0
    assert ", 0 wrong, 0 ⚠ taken for whole, " in capsys.readouterr().out
    assert server.requests[0].body["stream"] is True


def test_a_gateway_that_is_wrong_is_exit_code_1(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    server = play("plain", faults=["drop@event=-2"])
    assert main(["conform", "server", server.base_url, "--json"]) == 1
    *rows, counts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert counts["wrong"] == sum(row["verdict"] == "wrong" for row in rows)
    assert "event: name, data, done, unknown, order, error" in [
        row["name"] for row in rows if row["verdict"] == "wrong"
    ]


def test_without_a_key_one_is_made_up(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert main(["conform", "server", play("plain").base_url]) == 0


BOTH_FORMS = ["client", "--json", "--markdown", "--", "x"]


@pytest.mark.parametrize("line", [[], ["server"], ["client"], BOTH_FORMS, ["server", "u", "--upstream", "0"]])
def test_wrong_usage(line: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["conform", *line])
    assert raised.value.code == 2


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    return " ".join(capsys.readouterr().out.split())


def test_the_help_names_every_verdict_of_the_json_and_those_that_are_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = help_of(capsys, "conform")
    bad = [verdict for verdict in conform.LEGEND if not conform.is_good([Row("plain", verdict, "")])]
    assert f"Exit code 1 if a row is {' or '.join(bad)};" in shown
    *names, last = conform.LEGEND
    assert f"each row's verdict is {', '.join(names)} or {last}." in shown


def test_the_help_says_what_a_gateway_must_do_when_its_upstream_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert "A row that cuts the upstream expects a response that is cut too, or an error." in help_of(
        capsys, "conform", "server"
    )
