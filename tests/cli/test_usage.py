"""`rawsse usage`: the table, the JSON, and the money."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.terminal import Terminal

from rawsse.cli import main
from rawsse.cli import usage as module
from rawsse.errors import ConfigurationError
from rawsse.relay import ledger
from rawsse.relay.ledger import Ledger
from rawsse.relay.record import RunRecord

SONNET, HAIKU = "claude-sonnet-5", "claude-haiku-4-5"

# https://docs.anthropic.com/en/docs/about-claude/pricing, in the form of the command's help.
PRICES = f"""
currency = "USD"

["{SONNET}"]
input = 3.0
output = 15.0
cache_write = 3.75
cache_read = 0.3
"""

Out = Callable[..., tuple[int, str, str]]


def run(number: int, user: str, model: str, tokens: tuple[int, int, int, int], **changes: Any) -> RunRecord:
    """A run of the first of November, or of `day`."""
    day = changes.pop("day", 1)
    begin = (datetime(2026, 11, day, 12, tzinfo=UTC).timestamp() + number, f"run-{number}", user, "text", model)
    end = {"ending": "complete", "stop_reason": "end_turn", "error": None, "seconds": 1.0, "first_token_seconds": None}
    counts = dict(zip(ledger.COUNTS, tokens, strict=True))
    rest = {"exact": True, "on_disconnect": None, "request_id": None, "words": ""}
    return RunRecord(*begin, **{**end, **counts, **rest, **changes})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RAWSSE_LEDGER", raising=False)
    return tmp_path / "ledger.db"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    file = tmp_path / "prices.toml"
    file.write_text(PRICES)
    return file


@pytest.fixture
def usage(path: Path, capsys: pytest.CaptureFixture[str]) -> Out:
    """Run the command: the exit code, standard output and standard error."""

    def usage(*arguments: str | Path) -> tuple[int, str, str]:
        try:
            code = main(["usage", *map(str, arguments)])
        except SystemExit as exc:
            code = int(exc.code or 0)
        return (code, *capsys.readouterr())

    return usage


def write(path: Path, *records: RunRecord) -> Path:
    with closing(Ledger(path)) as ledger:
        for record in records:
            ledger.ended(record)
    return path


TWO_USERS = (
    run(0, "ada", SONNET, (1000, 200, 30, 4)),
    run(1, "ada", HAIKU, (5, 6, 7, 8)),
    run(2, "ada", SONNET, (500, 100, 0, 0), day=2),
    run(3, "bob", SONNET, (1, 1, 1, 1), exact=False, ending="truncated"),
)


def test_its_help_says_of_which_model_a_price_is(usage: Out) -> None:
    assert "a table for each model that answered" in " ".join(usage("--help")[1].split())


# --- The table -------------------------------------------------------------------------------------------------------


def test_the_table_has_aligned_columns_thousands_separators_and_a_total(path: Path, usage: Out) -> None:
    code, out, err = usage(write(path, *TWO_USERS), "--by", "user")
    why = (
        "Counts with ~ are estimates: an answer was cut before the API's final count, is open, or ended a second ago.\n"
    )
    assert (code, err) == (0, why)
    assert out.splitlines() == [
        "user   runs  input  output  cache write  cache read",
        "ada       3  1,505     306           37          12",
        "bob       1      1      ~1            1           1",
        "total     4  1,506    ~307           38          13",
    ]


@pytest.mark.parametrize(
    ("ending", "counts", "shown"),
    [
        ("truncated", (1, 1, 0, 0), ["1", "~1", "0", "0"]),
        ("cancelled", (0, 1, 0, 1), ["0", "~1", "0", "1"]),  # the whole prompt was in the cache
        ("cancelled", (0, 0, 0, 0), ["~0", "~0", "~0", "~0"]),  # stopped before the answer began
        ("complete", (1, 1, 0, 0), ["~1", "~1", "~0", "~0"]),  # with counts that are not understood
    ],
)
def test_only_what_an_answer_that_was_cut_leaves_open_is_not_exact(
    path: Path, usage: Out, ending: str, counts: tuple[int, int, int, int], shown: list[str]
) -> None:
    cut = run(3, "bob", SONNET, counts, exact=False, ending=ending)
    _, out, _ = usage(write(path, *TWO_USERS[:3], cut), "--by", "user")
    assert [line.split()[2:] for line in out.splitlines()[1:3]] == [["1,505", "306", "37", "12"], shown]


def test_by_default_it_is_by_user_model_and_day(path: Path, usage: Out) -> None:
    _, out, _ = usage(write(path, *TWO_USERS))
    assert [line.split()[:4] for line in out.splitlines()] == [
        ["user", "model", "day", "runs"],
        ["ada", HAIKU, "2026-11-01", "1"],
        ["ada", SONNET, "2026-11-01", "1"],
        ["ada", SONNET, "2026-11-02", "1"],
        ["bob", SONNET, "2026-11-01", "1"],
        ["total", "4", "1,506", "~307"],
    ]


def test_groups_come_in_the_order_in_which_they_are_named(path: Path, usage: Out) -> None:
    _, out, _ = usage(write(path, *TWO_USERS), "--by", "day,user")
    assert [line.split()[:2] for line in out.splitlines()[:-1]] == [
        ["day", "user"],
        ["2026-11-01", "ada"],
        ["2026-11-01", "bob"],
        ["2026-11-02", "ada"],
    ]


def test_exact_counts_have_no_sign(path: Path, usage: Out) -> None:
    assert "~" not in "".join(usage(write(path, *TWO_USERS[:3]))[1:])


def test_a_relay_without_users_has_a_line_all_the_same(path: Path, usage: Out) -> None:
    _, out, _ = usage(write(path, run(0, "", SONNET, (1, 2, 3, 4))), "--by", "user")
    assert out.splitlines()[1].split() == ["-", "1", "1", "2", "3", "4"]


def test_an_empty_ledger_says_so(path: Path, usage: Out) -> None:
    assert usage(write(path)) == (0, f"no runs in {path}\n", "")
    assert usage(path, "--json") == (0, "[]\n", "")


def test_names_cannot_break_the_table_or_the_terminal(path: Path, usage: Out) -> None:
    write(path, run(0, "eve\n\x1b[2Jtotal\t\u202e", "m" * 500, (1, 1, 1, 1)))
    _, out, _ = usage(path, "--by", "user,model")
    assert len(out.splitlines()) == 3
    assert out.isascii() is False
    assert all(line.isprintable() for line in out.splitlines())
    assert "eve\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2Jtotal" in out
    assert "m" * 59 + "…" in out
    assert "m" * 60 not in out


def test_a_terminal_shows_the_table(path: Path) -> None:
    write(path, *TWO_USERS, run(4, "eve\x1b[2J", SONNET, (1, 1, 1, 1)))
    with Terminal("usage", path, "--by", "user") as terminal:
        shown = terminal.wait_for("total")
        assert terminal.wait() == 0
    assert "ada" in shown
    assert "\x1b" not in shown


# --- What is counted -------------------------------------------------------------------------------------------------


def test_days_and_several_ledgers(path: Path, tmp_path: Path, usage: Out) -> None:
    other = write(tmp_path / "other.db", TWO_USERS[0], run(9, "ada", SONNET, (1, 0, 0, 0), day=3))
    paths = (write(path, *TWO_USERS), other)
    rows = json.loads(usage(*paths, "--by", "day", "--since", "2026-11-02", "--json")[1])
    assert [(row["day"], row["runs"], row["input_tokens"]) for row in rows] == [
        ("2026-11-02", 1, 500),
        ("2026-11-03", 1, 1),
    ]
    one_day = ("--since", "2026-11-02", "--until", "2026-11-02")
    assert json.loads(usage(*paths, "--by", "day", *one_day, "--json")[1]) == rows[:1]
    (day,) = json.loads(usage(*paths, "--by", "day", "--until", "2026-11-01", "--json")[1])
    assert (day["runs"], day["input_tokens"]) == (3, 1000 + 5 + 1)  # the run that both have counts once


def test_the_json_is_a_list_of_the_groups(path: Path, usage: Out) -> None:
    code, out, err = usage(write(path, *TWO_USERS), "--json")
    assert (code, err) == (0, "")
    counts = {
        "input_tokens": 1000,
        "output_tokens": 200,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 4,
    }
    assert json.loads(out)[1] == {
        "user": "ada",
        "model": SONNET,
        "day": "2026-11-01",
        "runs": 1,
        **counts,
        "exact": True,
        "input_exact": True,
    }
    (bob,) = [row for row in json.loads(usage(path, "--by", "user", "--json")[1]) if row["user"] == "bob"]
    assert (bob["exact"], bob["input_exact"]) == (False, True)
    assert "model" not in bob


def test_the_ledger_comes_from_the_environment_unless_it_is_named(
    path: Path, tmp_path: Path, usage: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAWSSE_LEDGER", str(write(path, TWO_USERS[0])))
    assert json.loads(usage("--json")[1])[0]["runs"] == 1
    other = write(tmp_path / "other.db", *TWO_USERS)
    assert len(json.loads(usage(other, "--json")[1])) == 4


# --- Money -----------------------------------------------------------------------------------------------------------


def test_the_money_is_that_of_each_kind_of_token(path: Path, prices: Path, usage: Out) -> None:
    # 1000 * 3 + 200 * 15 + 30 * 3.75 + 4 * 0.3 and 500 * 3 + 100 * 15, for a million
    write(path, TWO_USERS[0], TWO_USERS[2])
    (row,) = json.loads(usage(path, "--by", "user", "--prices", prices, "--json")[1], parse_float=Decimal)
    assert (row["cost"], row["cost_exact"]) == (Decimal("0.0061137") + Decimal("0.003"), True)
    assert usage(path, "--by", "user", "--prices", prices)[1].splitlines() == [
        "user   runs  input  output  cache write  cache read  cost USD",
        "ada       2  1,500     300           30           4    0.0091",
        "total     2  1,500     300           30           4    0.0091",
    ]


def test_money_is_exact_where_floats_are_not(path: Path, prices: Path, usage: Out) -> None:
    """0.1 + 0.2 is 0.30000000000000004 with floats."""
    prices.write_text('["a"]\ninput = 0.1\n["b"]\ninput = 0.2\n')
    write(path, run(0, "ada", "a", (1_000_000, 0, 0, 0)), run(1, "ada", "b", (1_000_000, 0, 0, 0)))
    assert '"cost": 0.3,' in usage(path, "--by", "user", "--prices", prices, "--json")[1]


def test_money_for_tokens_that_are_estimated_is_not_exact(path: Path, prices: Path, usage: Out) -> None:
    out = usage(write(path, TWO_USERS[3]), "--by", "user", "--prices", prices)[1]
    assert out.splitlines()[1].split()[-1] == "~0.0000"


def test_prices_that_are_nested_too_deeply_are_refused_by_name(path: Path, prices: Path, usage: Out) -> None:
    prices.write_text(f"deep = {'[' * 100_000}")
    code, _, err = usage(write(path, *TWO_USERS), "--by", "user", "--prices", prices)
    assert code == 2
    assert f"cannot read the prices in {prices}: " in err


def test_a_model_without_a_price_is_named_and_never_counts_as_nothing(path: Path, prices: Path, usage: Out) -> None:
    code, out, err = usage(write(path, *TWO_USERS), "--by", "user,model", "--prices", prices)
    assert code == 0
    assert err.splitlines()[0] == (
        f"rawsse: {prices} lacks a price of '{HAIKU}', which answered: that cost is left out"
    )
    costs = [line.split()[-1] for line in out.splitlines()[1:]]
    # 1500 * 3 + 300 * 15 + 30 * 3.75 + 4 * 0.3 = 9113.7, and 1 * (3 + 15 + 3.75 + 0.3) = 22.05, for a million
    assert costs == ["-", "0.0091", "~0.0000", "~0.0091"]
    rows = json.loads(usage(path, "--by", "user", "--prices", prices, "--json")[1])
    assert [(row["cost"], row["cost_exact"]) for row in rows] == [(0.0091137, False), (0.00002205, False)]
    by_user = usage(path, "--by", "user", "--prices", prices)[1].splitlines()[1:]
    assert [line.split()[-1] for line in by_user] == [">=0.0091", "~0.0000", "~0.0091"]
    assert usage(path, "--by", "day", "--prices", prices)[1].splitlines()[1].split()[-1] == "~0.0061"


def test_where_no_model_has_a_price_there_is_no_total(path: Path, prices: Path, usage: Out) -> None:
    out = usage(write(path, TWO_USERS[1]), "--by", "user", "--prices", prices)[1]
    assert [line.split()[-1] for line in out.splitlines()[1:]] == ["-", "-"]
    (row,) = json.loads(usage(path, "--by", "user", "--prices", prices, "--json")[1])
    assert (row["cost"], row["cost_exact"]) == (None, False)


def test_a_kind_of_tokens_without_a_price_counts_as_none_only_where_there_are_none(
    path: Path, prices: Path, usage: Out
) -> None:
    prices.write_text(f'["{SONNET}"]\ninput = 3\noutput = 15\n')
    write(path, TWO_USERS[0], TWO_USERS[2])
    rows = json.loads(usage(path, "--by", "day", "--prices", prices, "--json")[1])
    assert [row["cost"] for row in rows] == [None, 0.003]


def test_a_refused_model_that_used_no_tokens_needs_no_price(path: Path, prices: Path, usage: Out) -> None:
    write(path, TWO_USERS[2], run(8, "ada", "no-such-model", (0, 0, 0, 0), ending="error"))
    _, out, err = usage(path, "--by", "user", "--prices", prices, "--json")
    assert (json.loads(out)[0]["cost"], err) == (0.003, "")


def test_a_snapshot_has_the_price_of_its_model_unless_it_has_its_own(path: Path, prices: Path, usage: Out) -> None:
    write(path, run(0, "ada", f"{SONNET}-20250929", (1_000_000, 0, 0, 0)))
    assert json.loads(usage(path, "--prices", prices, "--json")[1])[0]["cost"] == 3
    prices.write_text(f'{PRICES}\n["{SONNET}-20250929"]\ninput = 4\n')
    assert json.loads(usage(path, "--prices", prices, "--json")[1])[0]["cost"] == 4


def test_the_currency_is_that_of_the_file(path: Path, prices: Path, usage: Out) -> None:
    prices.write_text(PRICES.replace("USD", "EUR"))
    assert usage(write(path, *TWO_USERS), "--prices", prices)[1].splitlines()[0].endswith("  cost EUR")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "cannot read the prices in FILE: "),
        ("\udcff", "cannot read the prices in FILE: 'utf-8' codec can't decode byte 0xff"),
        ("currency = 1", "FILE: currency must be a text"),
        ("input = 3", "FILE: 'input' must be a table of input, output, cache_write, cache_read and nothing else"),
        ("[x]\nimput = 3", "FILE: 'x' must be a table of input, output, cache_write, cache_read and nothing else"),
        ("[claude-4.5]\ninput = 3", "FILE: 'claude-4' must be a table of "),
        ("[x]\ninput = '3'", "FILE: input of 'x' must be a number, 0 or more"),
        ("[x]\ninput = true", "FILE: input of 'x' must be a number, 0 or more"),
        ("[x]\noutput = -0.1", "FILE: output of 'x' must be a number, 0 or more"),
        ("[x]\noutput = nan", "FILE: output of 'x' must be a number, 0 or more"),
        ("[x]\noutput = inf", "FILE: output of 'x' must be a number, 0 or more"),
    ],
)
def test_what_is_wrong_with_the_prices_is_said(prices: Path, text: str, complaint: str) -> None:
    prices.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError) as caught:
        module.read_prices(prices)
    assert str(caught.value).startswith(complaint.replace("FILE", str(prices)))


# --- What cannot work ------------------------------------------------------------------------------------------------


def test_without_a_ledger_it_says_how_to_name_one(usage: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usage() == (2, "", "rawsse: no ledger: name its file, or set RAWSSE_LEDGER\n")
    monkeypatch.setenv("RAWSSE_LEDGER", "")
    assert usage()[0] == 2


def test_a_file_that_is_missing_or_not_a_ledger_is_named(path: Path, usage: Out) -> None:
    assert usage(path) == (1, "", f"rawsse: cannot use the ledger {path}: there is no such file\n")
    assert not path.exists()
    path.write_text("")
    assert usage(path) == (2, "", f"rawsse: {path} is not a ledger of rawsse\n")


def test_prices_that_are_missing_are_named(path: Path, usage: Out) -> None:
    code, _, err = usage(write(path), "--prices", "missing.toml")
    assert (code, err) == (1, "rawsse: missing.toml: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--by", "users"), "argument --by: must be some of user, model, day, with commas, not 'users'"),
        (("--by", ""), "argument --by: must be some of user, model, day, with commas, not ''"),
        (("--since", "1.12.2026"), "argument --since: must be a day as 2026-11-30, not '1.12.2026'"),
        (("--since", "2026-12-02", "--until", "2026-12-01"), "--since 2026-12-02 is after --until 2026-12-01"),
    ],
)
def test_wrong_arguments_are_named(path: Path, usage: Out, arguments: tuple[str, ...], complaint: str) -> None:
    code, out, err = usage(write(path), *arguments)
    assert (code, out) == (2, "")
    assert err.endswith(f"{complaint}\n")


def test_the_groups_and_counts_are_those_of_the_ledger() -> None:
    """Written twice, so that the other commands do not load the relay for the help of this one."""
    assert module.GROUPS == ledger.GROUPS
    assert tuple(module.COUNTS.values()) == ledger.COUNTS
