"""`rawsse usage`: tokens by user, model and day, and their cost if prices are given.

    rawsse usage ledger.db --by user,day --since 2026-11-01
    rawsse usage ledger.db --by user --prices prices.toml --json

Prices are a TOML file with one table per model, per million tokens. A snapshot (`claude-sonnet-5-20250929`) without a
table has the prices of its model (`claude-sonnet-5`):

    currency = "USD"

    ["claude-sonnet-5"]
    input = 3.0
    output = 15.0
    cache_write = 3.75
    cache_read = 0.3
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rawsse.cli.options import FILE, add_command
from rawsse.cli.terminal import say, show
from rawsse.errors import ConfigurationError, quote

if TYPE_CHECKING:
    from decimal import Decimal

GROUPS = ("user", "model", "day")
COUNTS: Mapping[str, str] = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_write": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
}
"""The kinds of tokens: their names in the price file and in a row."""

LEGEND = "Counts with ~ are estimates: an answer was cut before the API's final count, is open, or ended a second ago."

MAX_CELL_CHARS = 60
"""The longest name in the table: a client may request a model of any name."""

Row = dict[str, Any]


# --- Arguments -----------------------------------------------------------------------------------------------------


def add_usage(commands: Any) -> None:
    """The arguments of `rawsse usage`."""
    parser = add_command(commands, _usage, "usage", "tokens and cost by user, from the relay's ledger", LEGEND)
    option = parser.add_argument
    ledgers = "a ledger of `rawsse serve` (default: RAWSSE_LEDGER); an answer is in it about a second after its end"
    option("ledgers", nargs="*", type=Path, metavar="LEDGER", help=ledgers)
    option("--by", type=_groups, default=GROUPS, metavar="NAMES", help="some of user,model,day (default: all)")
    option("--since", type=_day, default=date.min, metavar="DAY", help="from this day on, such as 2026-11-30 (UTC)")
    option("--until", type=_day, default=date.max, metavar="DAY", help="until the end of this day (UTC)")
    prices = 'prices per million tokens: TOML with currency = "USD" and a table for each model that answered, such as'
    example = '["claude-sonnet-5"] input = 3.0, output = 15.0, cache_write = 3.75, cache_read = 0.3'
    option("--prices", **FILE, help=f"{prices} {example}")
    option("--json", action="store_true", help="print a JSON list instead of a table")


def _groups(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if set(names) - set(GROUPS):
        raise argparse.ArgumentTypeError(f"must be some of {', '.join(GROUPS)}, with commas, not {quote(text)}")
    return names


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a day as 2026-11-30, not {quote(text)}") from None


# --- Prices --------------------------------------------------------------------------------------------------------


def read_prices(path: Path) -> tuple[str, dict[str, dict[str, Decimal]]]:
    """The currency, and the price of one token of each kind by model.

    Raises `OSError`, and `ConfigurationError` with the place of the error in the file.
    """
    import tomllib  # not loaded for the other commands
    from decimal import Decimal

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (ValueError, RecursionError) as exc:  # not TOML, not UTF-8, or nested too deeply
        raise ConfigurationError(f"cannot read the prices in {path}: {exc}") from None
    currency = tables.pop("currency", "USD")
    if not isinstance(currency, str):
        raise ConfigurationError(f"{path}: currency must be a text")
    for model, prices in tables.items():
        if not isinstance(prices, dict) or prices.keys() - COUNTS.keys():
            raise ConfigurationError(f"{path}: {quote(model)} must be a table of {', '.join(COUNTS)} and nothing else")
        for kind, price in prices.items():
            if type(price) not in (int, Decimal) or not Decimal(price).is_finite() or price < 0:
                raise ConfigurationError(f"{path}: {kind} of {quote(model)} must be a number, 0 or more")
            prices[kind] = Decimal(price).scaleb(-6)  # per million tokens; exact
    return currency, tables


def _cost(row: Row, models: Mapping[str, Mapping[str, Decimal]]) -> Decimal | int | None:
    """The cost of a row of one model; None if a price is missing."""
    prices = models.get(row["model"]) or models.get(re.sub(r"-\d{8}$", "", row["model"]), {})
    used = {kind: row[count] for kind, count in COUNTS.items() if row[count]}
    return None if used.keys() - prices.keys() else sum(prices[kind] * count for kind, count in used.items())


# --- Running it ----------------------------------------------------------------------------------------------------


def _usage(arguments: argparse.Namespace) -> bool:
    from rawsse.relay.ledger import usage

    ledgers = arguments.ledgers or [Path(name) for name in [os.environ.get("RAWSSE_LEDGER")] if name]
    if not ledgers:
        raise ConfigurationError("no ledger: name its file, or set RAWSSE_LEDGER")
    if arguments.since > arguments.until:
        raise ConfigurationError(f"--since {arguments.since} is after --until {arguments.until}")
    currency, models = read_prices(arguments.prices) if arguments.prices else (None, {})
    by = dict.fromkeys((*arguments.by, "model"))  # prices are per model, and a group may have several models
    rows = usage(ledgers, tuple(by), since=arguments.since, until=arguments.until)
    if currency is not None:
        for row in rows:
            row["cost"] = _cost(row, models)
            row["cost_exact"] = row["exact"] and row["cost"] is not None
        for model in sorted({row["model"] for row in rows if row["cost"] is None}):
            say(f"rawsse: {arguments.prices} lacks a price of {quote(model)}, which answered: that cost is left out")
    if arguments.json:
        show(json.dumps(add_up(rows, arguments.by), default=float))
    else:
        show(table(rows, arguments.by, currency) if rows else f"no runs in {', '.join(map(str, ledgers))}")
        if not all(row["exact"] for row in rows):
            say(LEGEND)
    return True


def add_up(rows: Iterable[Row], by: Sequence[str]) -> list[Row]:
    """The sum of each group of rows. Its cost leaves out the rows without a cost, and is None if no row has one."""
    groups: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in by)
        if (group := groups.get(key)) is None:
            groups[key] = {name: value for name, value in row.items() if name in by or name not in GROUPS}
            continue
        for name, value in row.items():
            if isinstance(value, bool):
                group[name] &= value
            elif name not in GROUPS and value is not None:
                group[name] = (group[name] or 0) + value
    return list(groups.values())


def table(rows: Sequence[Row], by: Sequence[str], currency: str | None) -> str:
    """Aligned columns, with `~` before what is not exact, and the total in the last line."""
    heads = [*by, "runs", "input", "output", "cache write", "cache read"]
    if currency is not None:
        heads.append(f"cost {_shown(currency)}")
    (total,) = add_up(rows, ())
    groups = [[*(_shown(row[name]) for name in by), *_figures(row)] for row in add_up(rows, by)]
    lines = [heads, *groups, ["total", *[""] * (len(by) - 1), *_figures(total)]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pads = [str.ljust] * len(by) + [str.rjust] * (len(heads) - len(by))
    padded = ([pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(cells) for cells in padded)


def _figures(row: Row) -> list[str]:
    about = "" if row["exact"] else "~"
    signs = dict.fromkeys(COUNTS.values(), "" if row["input_exact"] else "~") | {"output_tokens": about}
    figures = [f"{row['runs']:,}", *(f"{signs[count]}{row[count]:,}" for count in signs)]
    if "cost" in row:
        sign = about or ("" if row["cost_exact"] else ">=")  # a lower bound: a price is missing
        figures.append("-" if row["cost"] is None else f"{sign}{row['cost']:,.4f}")
    return figures


def _shown(name: str) -> str:
    """A client's name on one line, without control characters."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[: MAX_CELL_CHARS + 1])
    return (text if len(text) <= MAX_CELL_CHARS else f"{text[: MAX_CELL_CHARS - 1]}…") or "-"
