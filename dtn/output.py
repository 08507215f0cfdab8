"""How commands speak: tables for people, one JSON value for machines, amounts in tokens or wei."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from offchain.files import write_whole
from protocol.errors import ProtocolError
from protocol.parameters import TOKEN_WEI
from protocol.text import printable
from protocol.transactions import INVALID_SCORE, IRRETRIEVABLE_SCORE

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of tables.")]

# A terminal has its own width; what a pipe carries must not be folded, or ids cannot be copied.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)


class BadAmount(ProtocolError):
    """An amount that cannot be read."""


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, indent=2))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output; says so when there is nothing in it."""
    if not rows:
        console.print(f"{title}: none")
        return
    grid = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(cell) if cell is not None else "–" for cell in row))
    console.print(grid)


def _cell(value: object) -> Text:
    """A cell may have several lines: in a table none of them looks like anything else."""
    return Text("\n").join(map(plain, str(value).split("\n")))


def plain(text: object) -> Text:
    """A string from outside: no markup, no control characters."""
    return Text(printable(str(text)))


def line(text: str) -> None:
    """One line on standard output that may hold strings from outside."""
    console.print(plain(text), soft_wrap=True)


def tokens(wei: int | str) -> str:
    """An amount in tokens, exact, without trailing zeros."""
    text = f"{Decimal(int(wei)) / TOKEN_WEI:.18f}".rstrip("0").rstrip(".")
    return text or "0"


def wei(amount: str) -> int:
    """An amount of tokens as wei; raises `BadAmount` for what is no amount."""
    try:
        value = Decimal(amount) * TOKEN_WEI
    except InvalidOperation as reason:
        raise BadAmount(f"{amount!r} is no amount of tokens; write it like 100 or 0.5") from reason
    if not value.is_finite() or value <= 0 or value != value.to_integral_value() or value >= 2**96:
        raise BadAmount(
            f"{amount} is not an amount of tokens between 0 and 2^96 wei with at most 18 decimals"
        )
    return int(value)


def write_output(path: Path, data: bytes | str) -> None:
    """Write what a command was asked for, whole or not; raises `NotWritten` with the system's reason."""
    write_whole(path, data, advice="choose another file with -o")


@contextmanager
def transfer(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal's standard error; gives what is to be told the bytes so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        running = bar.add_task(what, total=total)
        yield lambda done: bar.update(running, completed=done)


def percent(score: str | int | None) -> str:
    """A score in millionths for people; a model that has none says why."""
    if score is None:
        return "–"
    value = int(score)
    said = {INVALID_SCORE: "invalid", IRRETRIEVABLE_SCORE: "irretrievable"}.get(value)
    return said or f"{Decimal(value) / 1_000_000:.6f}"


def short(identifier: str | None, size: int = 10) -> str:
    """The start of a hex id, enough for people to tell apart."""
    return (
        "–"
        if identifier is None
        else identifier
        if len(identifier) <= size + 2
        else identifier[: size + 2] + "…"
    )


def parse_id(text: str, size: int, what: str) -> bytes:
    """Bytes of a hex id given on the command line."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != size:
        raise BadAmount(f"{what} is 0x and {2 * size} hex digits, not {text!r}")
    return value
