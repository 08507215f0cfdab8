"""Live progress of an order: one line per event on a pipe, a moving line on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from rich.console import Console
from rich.status import Status

from dtn.output import percent, plain, short
from offchain.answers import fetch_detail
from offchain.network import LedgerRefused, Network, NetworkError, NotFound
from protocol.errors import ProtocolError

POLL_S: Final = 0.5
ARRIVAL_TIMEOUT_S: Final = 60
GRACE_S: Final = 600

Json = dict[str, Any]


class TookTooLong(ProtocolError):
    """An order that did not move when it should have."""


def follow(network: Network, oid: str, *, quiet: bool, began_s: float | None = None) -> Json:
    """Show an order's progress until it is settled; returns its final detail.

    Progress goes to standard error, so that standard output stays for results.

    Args:
        began_s: the monotonic moment that the shown seconds count from, where the caller's lines have a
            clock already; by default now.

    Raises:
        TookTooLong: the order never arrived, or no settlement came long after it was sealed.
    """
    console = Console(stderr=True, highlight=False, quiet=quiet)
    started = time.monotonic()
    clock_from = started if began_s is None else began_s
    seen: set[str] = set()
    status = Status("waiting for the chain to confirm the order", console=console)
    live = console.is_terminal and not quiet
    if live:
        status.start()
    try:
        sealed_at: float | None = None
        while True:
            detail = _ask(network, oid)
            elapsed = time.monotonic() - started
            if detail is None:
                if elapsed > ARRIVAL_TIMEOUT_S:
                    raise TookTooLong(f"order {oid} did not reach the ledger; see `dtn status`")
            else:
                for line in _news(detail):
                    if line not in seen:
                        seen.add(line)
                        console.print(
                            plain(f"{time.monotonic() - clock_from:7.1f} s  {line}"), soft_wrap=True
                        )
                status.update(plain(_now(detail)))
                if detail["phase"] == "settled":
                    return detail
                if detail["phase"] == "sealed":
                    sealed_at = sealed_at or time.monotonic()
                    if time.monotonic() - sealed_at > GRACE_S:
                        raise TookTooLong(f"order {oid} is sealed but not settled; see `dtn status`")
            time.sleep(POLL_S)
    finally:
        if live:
            status.stop()
        sys.stderr.flush()


def _ask(network: Network, oid: str) -> Json | None:
    try:
        return fetch_detail(network, oid)
    except (NotFound, LedgerRefused):
        return None
    except NetworkError:
        return None  # aggregators come back; the caller's patience is bounded


def _news(detail: Json) -> list[str]:
    """Everything worth a line, in order; the caller prints each once."""
    lines = []
    phases = detail.get("phases") or []
    rounds = 0
    for entered in phases:
        rounds += entered["phase"] == "verdict"
        if entered["phase"] != "sealed":
            again = f" (round {rounds})" * (entered["phase"].startswith("verdict") and rounds > 1)
            lines.append(f"phase {entered['phase']}{again}")
        if entered["phase"] == "training":
            for claim in detail["claims"]:
                lines.append(f"  claim by {short(claim['provider'])} ({short(claim['commitment'])})")
        elif entered["phase"] == "reveal":
            lines += [
                f"  model {short(c['mid'])} revealed by {short(c['provider'])}"
                for c in detail["claims"]
                if c["mid"]
            ]
            if detail["testLinks"] is not None:
                lines.append("  test set released by the client")
        elif entered["phase"] == "validation":
            lines += [
                f"  {short(v['validator'])} commits to a score for {short(v['mid'])}"
                for v in detail["validations"]
            ]
        elif entered["phase"] == "validation_reveal":
            lines += [
                f"  {short(v['validator'])} scored {short(v['mid'])}: {percent(v['score'])}"
                for v in detail["validations"]
                if v["score"] is not None
            ]
        elif entered["phase"] == "challenge":
            lines += [
                f"  {short(c['challenger'])} challenges {short(c['vid'])}" for c in detail["challenges"]
            ]
        elif entered["phase"] == "verdict":
            lines += [
                f"  {r['of']} {short(r['subject'])} is irretrievable, says {short(r['reporter'])}"
                for r in detail["reports"]
            ]
            lines += [
                f"  {d['of']} {short(d['mid'])} goes to {len(d['jurors'])} jurors" for d in detail["disputes"]
            ]
        elif entered["phase"] == "appeal":
            lines += [
                f"  {short(a['appellant'])} appeals about {a['of']} {short(a['subject'])}"
                for a in detail["appeals"]
            ]
    if detail["result"] is not None:
        lines.append(f"sealed: {detail['result']}")
    if detail["settlement"]:
        lines.append(f"settled in epoch {detail['settlement']['epoch']} by {detail['settlement']['tx']}")
    return lines


def _now(detail: Json) -> str:
    deadline = detail["deadlineMs"]
    left = f", {max(0, deadline / 1000 - time.time()):.0f} s left" if deadline else ""
    return f"{detail['phase']}{left}"
