"""The network at a glance: what `dtn status` and `dtn top` show, read from the API and drawn for a terminal.

Guarantees: one look asks each aggregator once for its status and one of them for orders and settlements; an
aggregator that does not answer, or with something else, costs at most the network's own time limit and is
shown as down. Strings of strangers are drawn as plain text without control characters.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dtn.output import percent, plain, short, tokens
from offchain.answers import OrderRow, Orders, SettlementRow, Settlements, Standing, read
from offchain.network import LedgerRefused, Network, NetworkError, NetworkFile, NotFound

MOST_ROWS: Final = 200
LATEST: Final = 5
"""Settlements that are shown."""
NOBODY: Final = "no aggregator answers; start a local network with `dtn devnet up`"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """One aggregator at one moment: where it stands, or why that is not known."""

    url: str
    standing: Standing | None
    reason: str = ""
    said: Json = field(default_factory=dict)
    """Its answer as it is."""

    def as_json(self) -> Json:
        """One JSON value."""
        if self.standing is None:
            return {"url": self.url, "answers": False, "reason": self.reason}
        return {"url": self.url, "answers": True, **self.said}


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment; orders and settlements are empty where there is a ``problem``."""

    at_s: float
    aggregators: tuple[Seen, ...]
    orders: tuple[OrderRow, ...] = ()
    settlements: tuple[SettlementRow, ...] = ()
    said: Json = field(default_factory=lambda: {"orders": [], "settlements": []})
    """The lists as they were answered."""
    problem: str = ""
    """Why they are not known: nobody answers, or somebody does with something else."""

    @property
    def standing(self) -> list[Standing]:
        """Of everybody who answers."""
        return [seen.standing for seen in self.aggregators if seen.standing is not None]

    def as_json(self) -> Json:
        """One JSON value."""
        return {"aggregators": [seen.as_json() for seen in self.aggregators], **self.said}


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

    def statuses(self) -> tuple[Seen, ...]:
        """Where every aggregator stands, as each says itself."""
        return tuple(self._status(url, network) for url, network in self._each)

    def _status(self, url: str, network: Network) -> Seen:
        try:
            said = network.get("/v1/status")
            return Seen(url, read("itself", Standing, said), said=said)
        except (NetworkError, NotFound, LedgerRefused) as reason:
            return Seen(url, None, str(reason))

    def look(self, rows: int = MOST_ROWS) -> Look:
        """Everything once; at most ``rows`` orders."""
        seen = Look(time.time(), self.statuses())
        if not seen.standing:
            return dataclasses.replace(seen, problem=NOBODY)
        try:
            orders = self._all.get("/v1/orders", limit=max(1, min(rows, MOST_ROWS)))
            settlements = self._all.get("/v1/settlements", limit=LATEST)
            return dataclasses.replace(
                seen,
                orders=read("orders", Orders, orders).orders,
                settlements=read("settlements", Settlements, settlements).settlements,
                said={"orders": orders["orders"], "settlements": settlements["settlements"]},
            )
        except (NetworkError, NotFound, LedgerRefused) as reason:
            return dataclasses.replace(seen, problem=str(reason))


def draw(look: Look, rows: int = MOST_ROWS) -> RenderableType:
    """One look as tables, with at most ``rows`` orders."""
    if look.problem:
        return Group(_aggregators(look), Text(), _alert(look.problem))
    return Group(_aggregators(look), Text(), _orders(look, rows), Text(), _settlements(look))


def _alert(text: str) -> Text:
    alert = plain(text)
    alert.stylize("red")
    return alert


def _table(title: str, *columns: str) -> Table:
    grid = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=False)
    for column in columns:
        grid.add_column(column.removesuffix(">"), justify="right" if column.endswith(">") else "left")
    return grid


def _aggregators(look: Look) -> Table:
    top = max((standing.executed for standing in look.standing), default=0)
    grid = _table(
        f"committee: {len(look.standing)} of {len(look.aggregators)} aggregators answer",
        *("API", "view>", "sequence>", "lag>", "checkpoint>", "origin>", "waiting>", "health"),
    )
    for seen in look.aggregators:
        now = seen.standing
        if now is None:
            grid.add_row(plain(seen.url), *["–"] * 6, Text("down", style="red"))
            continue
        primary = " *" * (now.member is not None and now.member == now.primary)
        figures = (now.view, now.executed, top - now.executed, now.stable)
        grid.add_row(
            plain(seen.url + primary),
            *map(str, figures),
            str(now.origin if now.origin is not None else "–"),
            str(now.waiting),
            _health(now),
        )
    return grid


def _health(standing: Standing) -> Text:
    if not standing.alarms:
        return Text("well" if standing.active else "changing view", "green")
    return _alert("; ".join(standing.alarms))


def _orders(look: Look, rows: int) -> Table:
    now_ms = next((standing.clock_ms for standing in look.standing), int(look.at_s * 1000))
    grid = _table("orders", "order", "phase", "left>", "reward>", "claims>", "score>", "result")
    for order in look.orders[:rows]:
        left = "–"
        if order.deadline_ms is not None:
            left = f"{max(0, order.deadline_ms - now_ms) // 1000} s"
        grid.add_row(
            plain(short(order.oid, 16)),
            plain(order.phase),
            left,
            tokens(order.reward_wei),
            str(order.claim_count if order.claim_count is not None else "–"),
            percent(order.score),
            plain((order.result or "")[:60]),
        )
    return grid


def _settlements(look: Look) -> Table:
    grid = _table("latest settlements", "epoch>", "orders>", "accounts>", "paid>", "gas>", "transaction")
    for each in look.settlements:
        paid = sum(credit.amount_wei for credit in each.credited)
        figures = (each.epoch, len(each.orders), len(each.credited))
        grid.add_row(*map(str, figures), tokens(paid), str(each.gas_used), plain(short(each.tx, 16)))
    return grid
