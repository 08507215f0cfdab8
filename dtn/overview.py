"""The network at a glance: what `dtn status` and `dtn top` show, read from the API and drawn for a terminal.

Guarantees: one look asks each aggregator once for its status and one of them for orders and settlements; an
aggregator that does not answer costs at most the network's own time limit and is shown as down. Strings of
strangers are drawn as plain text without control characters.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dtn.output import percent, short, tokens
from offchain.network import LedgerRefused, Network, NetworkError, NetworkFile, NotFound

MOST_ROWS: Final = 200
LATEST: Final = 5
"""Settlements that are shown."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment; orders and settlements are empty when nobody answers."""

    at_s: float
    aggregators: tuple[Json, ...]
    """Per aggregator its URL, whether it ``answers``, and its status or the ``reason``."""
    orders: tuple[Json, ...]
    settlements: tuple[Json, ...]

    @property
    def answers(self) -> bool:
        """Whether anybody does."""
        return any(each["answers"] for each in self.aggregators)

    def as_json(self) -> Json:
        """One JSON value."""
        return {
            "aggregators": list(self.aggregators),
            "orders": list(self.orders),
            "settlements": list(self.settlements),
        }


class Overview:
    """The aggregators of one network file, looked at again and again."""

    def __init__(self, file: NetworkFile) -> None:
        self._all = Network(file)
        self._each = [
            (url, Network(file.model_copy(update={"aggregators": (url,)}))) for url in file.aggregators
        ]

    def close(self) -> None:
        """Close connections."""
        for network in (self._all, *(network for _, network in self._each)):
            network.close()

    def statuses(self) -> tuple[Json, ...]:
        """Where every aggregator stands, as each says itself."""
        found: list[Json] = []
        for url, network in self._each:
            try:
                found.append({"url": url, "answers": True, **network.get("/v1/status")})
            except (NetworkError, NotFound, LedgerRefused) as reason:
                found.append({"url": url, "answers": False, "reason": str(reason)})
        return tuple(found)

    def look(self, rows: int = MOST_ROWS) -> Look:
        """Everything once; at most ``rows`` orders."""
        aggregators = self.statuses()
        orders: list[Json] = []
        settlements: list[Json] = []
        if any(each["answers"] for each in aggregators):
            try:
                orders = self._all.get("/v1/orders", limit=max(1, min(rows, MOST_ROWS)))["orders"]
                settlements = self._all.get("/v1/settlements", limit=LATEST)["settlements"]
            except (NetworkError, NotFound, LedgerRefused):
                pass  # whoever answered is gone again: the next look tells
        return Look(time.time(), aggregators, tuple(orders), tuple(settlements))


def draw(look: Look, rows: int = MOST_ROWS) -> RenderableType:
    """One look as tables, with at most ``rows`` orders."""
    return Group(_aggregators(look), Text(), _orders(look, rows), Text(), _settlements(look))


def plain(text: object) -> Text:
    """A string from outside: no markup, no control characters."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)))


def _table(title: str, *columns: str) -> Table:
    grid = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=False)
    for column in columns:
        grid.add_column(column.removesuffix(">"), justify="right" if column.endswith(">") else "left")
    return grid


def _aggregators(look: Look) -> Table:
    executed = [each["executed"] for each in look.aggregators if each["answers"]]
    top = max(executed, default=0)
    up = len(executed)
    grid = _table(
        f"committee: {up} of {len(look.aggregators)} aggregators answer",
        *("API", "view>", "sequence>", "lag>", "checkpoint>", "origin>", "waiting>", "health"),
    )
    for each in look.aggregators:
        if not each["answers"]:
            grid.add_row(plain(each["url"]), *["–"] * 6, Text("down", style="red"))
            continue
        primary = " *" * (each["member"] is not None and each["member"] == each["primary"])
        alarms = "; ".join(map(str, each["alarms"]))
        health = plain(alarms) if alarms else Text("well" if each["active"] else "changing view", "green")
        if alarms:
            health.stylize("red")
        figures = (each["view"], each["executed"], top - each["executed"], each["stable"])
        grid.add_row(
            plain(each["url"] + primary),
            *map(str, figures),
            str(each["origin"] if each["origin"] is not None else "–"),
            str(each["waiting"]),
            health,
        )
    return grid


def _orders(look: Look, rows: int) -> Table:
    ahead_ms = next((e["clockMs"] for e in look.aggregators if e["answers"]), look.at_s * 1000)
    grid = _table("orders", "order", "phase", "left>", "reward>", "claims>", "score>", "result")
    for order in look.orders[:rows]:
        left = "–"
        if order["deadlineMs"] is not None:
            left = f"{max(0, order['deadlineMs'] - ahead_ms) // 1000} s"
        grid.add_row(
            plain(short(order["oid"], 16)),
            plain(order["phase"]),
            left,
            tokens(order["rewardWei"]),
            str(order["claimCount"] if order["claimCount"] is not None else "–"),
            percent(order["score"]),
            plain(str(order["result"] or "")[:60]),
        )
    return grid


def _settlements(look: Look) -> Table:
    grid = _table("latest settlements", "epoch>", "orders>", "accounts>", "paid>", "gas>", "transaction")
    for each in look.settlements:
        paid = sum(int(credit["amountWei"]) for credit in each["credits"])
        figures = (each["epoch"], len(each["orders"]), len(each["credits"]))
        grid.add_row(*map(str, figures), tokens(paid), str(each["gasUsed"]), plain(short(each["tx"], 16)))
    return grid
