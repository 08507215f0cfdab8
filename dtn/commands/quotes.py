"""``dtn provider|validator quote``, ``put --estimate``, ``node``: what may be earned, who did what."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from dtn.output import console, print_json, table, tokens
from offchain.answers import fetch_stakes
from offchain.client import Client, TaskFile
from offchain.economics import (
    Offer,
    fetch_history,
    offer_of,
    quote_provider,
    quote_validator,
    record_of,
)
from offchain.network import Network
from offchain.uptime import Seen
from protocol.errors import ProtocolError


class NotQuoted(ProtocolError):
    """An order of which nothing can be expected any more."""


def _bps(share: int | None) -> str:
    return "–" if share is None else f"{share / 100:.1f} %"


def _machine(figures: Any) -> dict[str, Any]:
    """Amounts as strings, since they may exceed 53 bits."""
    return {
        name: str(value) if name.endswith(("_wei", "_per_hour")) else value for name, value in figures.items()
    }


def _offer(network: Network, oid: str, phases: tuple[str, ...]) -> Offer:
    offer = offer_of(network.get(f"/v1/orders/{oid}"))
    if offer.phase not in phases:
        raise NotQuoted(f"the order is in phase {offer.phase}: it can be joined in {' or '.join(phases)}")
    return offer


def provider(network: Network, oid: str, account: str, cost_wei_per_hour: int, as_json: bool) -> None:
    """What training an order may bring to an account."""
    offer = _offer(network, oid, ("training",))
    left_s = max(0, offer.deadline_ms // 1_000 - int(time.time()))
    quote = quote_provider(
        offer, fetch_history(network), account, left_s=left_s, cost_wei_per_hour=cost_wei_per_hour
    )
    if as_json:
        print_json({"oid": oid, "account": account, "left_s": left_s} | _machine(asdict(quote)))
        return
    rows = [
        ("reward if yours is the best", f"{tokens(quote.reward_if_best_wei)} tokens"),
        ("odds of that", f"{_bps(quote.odds_bps)} against {quote.rivals} rivals"),
        ("consolation if not", f"{tokens(quote.consolation_wei)} tokens"),
        (f"cost of the {left_s} s left", f"{tokens(quote.cost_wei)} tokens"),
        ("expected", f"{_signed(quote.expected_wei)} tokens"),
        ("breaks even at", f"{tokens(quote.break_even_wei_per_hour)} tokens per hour"),
        ("locked until the order is sealed", f"{tokens(quote.locked_wei)} tokens"),
        ("lost if the claim is never revealed", f"{tokens(quote.at_risk_wei)} tokens"),
        ("lost if your model cannot be fetched", f"{tokens(quote.irretrievable_wei)} tokens"),
        ("out of", f"{quote.orders_seen} orders like it; you won {quote.own_wins} of {quote.own_claims}"),
    ]
    table(f"training {oid}", ("", ""), rows)


def validator(network: Network, oid: str, account: str, v_stake_wei: int | None, as_json: bool) -> None:
    """What validating an order may bring to an account."""
    phases = ("training", "reveal", "validation")
    offer = _offer(network, oid, phases)
    stake = v_stake_wei or offer.parameters["min_validation_stake_wei"]
    quote = quote_validator(offer, fetch_history(network), account, stake)
    if as_json:
        print_json({"oid": oid, "account": account, "v_stake_wei": str(stake)} | _machine(asdict(quote)))
        return
    rows = [
        ("models to score", f"{quote.models}, {tokens(stake)} tokens of stake on each"),
        ("share if one of them wins", f"{tokens(quote.share_if_won_wei)} tokens"),
        ("odds of that", _bps(quote.odds_bps)),
        ("expected", f"{tokens(quote.expected_wei)} tokens"),
        ("locked until the order is sealed", f"{tokens(quote.locked_wei)} tokens"),
        ("lost if no score is revealed", f"{tokens(quote.at_risk_wei)} tokens"),
        ("lost if a verdict finds your scores wrong", f"up to {tokens(quote.wrong_wei)} tokens"),
        ("out of", f"{quote.orders_seen} orders like it"),
    ]
    table(f"validating {oid}", ("", ""), rows)


def client(of: Client, task: TaskFile, as_json: bool) -> None:
    """What comparable orders paid per second of training, and what that makes for this one."""
    least, found = of.chain().parameter("min_reward_wei"), of.estimate(task)
    if as_json:
        print_json({"train_s": task.windows.train_s, "least_wei": str(least)} | _machine(asdict(found)))
        return
    if not found.orders_seen:
        console.print(f"no order has been settled yet; the smallest reward is {tokens(least)} tokens")
        return
    rates = (found.rate_low_wei, found.rate_median_wei, found.rate_high_wei)
    rows = [
        ("paid per minute of training", " – ".join(tokens(60 * rate) for rate in rates) + " tokens"),
        ("claims per order", f"{found.claims_milli / 1_000:.1f}"),
        ("won by somebody", _bps(found.won_bps)),
        (f"for {task.windows.train_s} s of training that makes", f"{tokens(found.suggested_wei)} tokens"),
        ("out of", f"{found.orders_seen} orders like it"),
    ]
    table("what such orders paid (lower quartile – median – upper quartile)", ("", ""), rows)


def node(network: Network, account: str, seen: Seen | None, as_json: bool) -> None:
    """A node's stakes, its record in settled orders, and what a watcher saw of its links if there is one."""
    stakes = fetch_stakes(network, account)
    record = record_of(fetch_history(network), account)
    reliability = record.reliability_bps
    if as_json:
        links = None if seen is None else {"asked": seen.asked, "came": seen.came, "uptime_bps": seen.bps}
        print_json(
            {
                "account": account,
                "stakes": [_machine(asdict(each)) for each in stakes],
                "record": _machine(asdict(record)) | {"reliability_bps": reliability},
                "links": links,
            }
        )
        return
    table(
        account,
        ("role", "bonded", "unbonding", "locked"),
        [
            (each.role, tokens(each.bonded_wei), tokens(each.unbonding_wei), tokens(each.locked_wei))
            for each in stakes
        ],
    )
    rows = [
        ("claims, won", f"{record.claims}, {record.wins}"),
        ("claims never revealed", record.claims_not_revealed),
        ("validations, never revealed", f"{record.validations}, {record.validations_not_revealed}"),
        (
            "scores, challenges, reports found wrong",
            f"{record.wrong_scores}, {record.wrong_challenges}, {record.wrong_reports}",
        ),
        ("models that could not be fetched", record.models_irretrievable),
        ("orders put, tests withheld", f"{record.orders_put}, {record.tests_withheld}"),
        ("slashed", f"{tokens(record.slashed_wei)} tokens"),
        ("kept what it committed to", _bps(reliability)),
    ]
    if seen is not None:
        rows.append(
            ("uptime of its links, as your watcher saw it", f"{_bps(seen.bps)} of {seen.asked} samples")
        )
    table(f"record in the latest {record.orders_seen} settled orders", ("", ""), rows)


def _signed(amount_wei: int) -> str:
    return f"-{tokens(-amount_wei)}" if amount_wei < 0 else tokens(amount_wei)
