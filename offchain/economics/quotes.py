"""What an order may be worth before one stakes on it, and what comparable orders paid.

Odds are in basis points and amounts in wei: integers throughout, rounded down. The rules, all of them simple
enough to be done by hand:

- A provider's rivals are the other claims that stand, or the average of other claims on comparable orders,
  rounded up, if that is more.
- Its odds of the reward are ``(wins + 1) / (claims + 1 + rivals)`` of its own settled claims: one in all of
  them for a newcomer, its own record for an old hand.
- An order is won by somebody with odds ``(won + 1) / (orders + 2)`` of the comparable ones (Laplace's rule).
- A validator's share is its stake's part of what validators staked on winning models, on average.

Source: issue 4, "Expected value before staking"; PoT 5.2 (linear staking impact).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from offchain.economics.history import Offer, Past
from protocol.parameters import BPS
from protocol.rewards import bps_of, reward_shares

HOUR_S: Final = 3_600
LIKE: Final = 4
"""Orders whose training window is up to so many times as long or as short are comparable."""
ENOUGH: Final = 3
"""With fewer comparable orders than this, all of the kind count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderQuote:
    """What training an order may bring; amounts in wei."""

    reward_if_best_wei: int
    odds_bps: int
    rivals: int
    consolation_wei: int
    """If it beats the baseline but is not the best, as one of the expected losers."""
    cost_wei: int
    """Of the time that is left for training, at the cost per hour that was given."""
    expected_wei: int
    """Odds times rewards, less the cost; may be negative."""
    break_even_wei_per_hour: int
    """Cost per hour at which nothing is expected to be gained."""
    locked_wei: int
    """From the claim until the order is sealed."""
    at_risk_wei: int
    """Lost if the claim is not revealed."""
    irretrievable_wei: int
    """Lost if a verdict finds that the model cannot be fetched."""
    orders_seen: int
    own_claims: int
    own_wins: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorQuote:
    """What validating an order may bring; amounts in wei."""

    models: int
    """Expected to be revealed."""
    share_if_won_wei: int
    odds_bps: int
    """That some model wins, of which this validator has scored all."""
    expected_wei: int
    locked_wei: int
    """On all models together, until the order is sealed."""
    at_risk_wei: int
    """Lost if no score is revealed."""
    wrong_wei: int
    """Lost if a verdict finds every score wrong."""
    orders_seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEstimate:
    """What comparable orders paid and drew; amounts in wei."""

    orders_seen: int
    rate_low_wei: int
    """Lower quartile of the reward per second of training."""
    rate_median_wei: int
    rate_high_wei: int
    suggested_wei: int
    """The median rate for the window that is asked about, at least the smallest reward allowed."""
    claims_milli: int
    """Claims per order on average, in thousandths."""
    won_bps: int
    """Share of orders that somebody won."""


def comparable(history: Sequence[Past], kind: str, train_s: int) -> list[Past]:
    """Orders of the same kind whose window is alike; all of the kind where those are too few."""
    same = [past for past in history if past.kind == kind]
    alike = [past for past in same if train_s <= LIKE * past.train_s and past.train_s <= LIKE * train_s]
    return alike if len(alike) >= ENOUGH else same


def quote_provider(
    offer: Offer,
    history: Sequence[Past],
    account: str,
    *,
    left_s: int,
    cost_wei_per_hour: int,
) -> ProviderQuote:
    """What ``account`` may expect of training the order.

    Args:
        left_s: for training, from now on.
        cost_wei_per_hour: of the machine; what it costs the operator, in token base units.
    """
    alike = comparable(history, offer.kind, offer.train_s)
    standing = sum(provider != account for provider in offer.claimants)
    others = [sum(each.provider != account for each in past.claims) for past in alike]
    rivals = max(standing, -(-sum(others) // len(others)) if others else 0)
    own = [past for past in history if any(each.provider == account for each in past.claims)]
    wins = sum(past.winner == account for past in own)
    odds_bps = BPS * (wins + 1) // (len(own) + 1 + rivals)
    shares = reward_shares(offer.reward_wei, offer.parameters, consoled=rivals)
    consolation = shares.consolation // rivals if rivals else 0
    gained = bps_of(shares.winner, odds_bps) + bps_of(consolation, BPS - odds_bps)
    cost = cost_wei_per_hour * max(0, left_s) // HOUR_S
    locked = offer.parameters["claim_stake_wei"]
    return ProviderQuote(
        reward_if_best_wei=shares.winner,
        odds_bps=odds_bps,
        rivals=rivals,
        consolation_wei=consolation,
        cost_wei=cost,
        expected_wei=gained - cost,
        break_even_wei_per_hour=gained * HOUR_S // max(1, left_s),
        locked_wei=locked,
        at_risk_wei=bps_of(locked, offer.parameters["missed_reveal_bps"]),
        irretrievable_wei=bps_of(locked, offer.parameters["irretrievable_bps"]),
        orders_seen=len(alike),
        own_claims=len(own),
        own_wins=wins,
    )


def quote_validator(offer: Offer, history: Sequence[Past], account: str, v_stake_wei: int) -> ValidatorQuote:
    """What ``account`` may expect of validating every model of an order with ``v_stake_wei`` each."""
    alike = comparable(history, offer.kind, offer.train_s)
    standing = len(offer.claimants)
    average = -(-sum(len(past.claims) for past in alike) // len(alike)) if alike else 1
    models = standing if offer.phase != "training" else max(standing, average, 1)
    won = [past for past in alike if past.winner is not None]
    staked = [
        sum(
            each.v_stake_wei
            for each in past.validations
            if each.of_winner and each.revealed and each.validator != account
        )
        for past in won
    ]
    others = sum(staked) // len(staked) if staked else 0
    validators = reward_shares(offer.reward_wei, offer.parameters, consoled=max(0, models - 1)).validators
    share = validators * v_stake_wei // (v_stake_wei + others)
    odds_bps = BPS * (len(won) + 1) // (len(alike) + 2) if models else 0
    locked = models * v_stake_wei
    return ValidatorQuote(
        models=models,
        share_if_won_wei=share,
        odds_bps=odds_bps,
        expected_wei=bps_of(share, odds_bps),
        locked_wei=locked,
        at_risk_wei=bps_of(locked, offer.parameters["missed_reveal_bps"]),
        wrong_wei=bps_of(locked, offer.parameters["slash_bps"]),
        orders_seen=len(alike),
    )


def estimate_order(history: Sequence[Past], kind: str, train_s: int, least_wei: int) -> OrderEstimate:
    """What orders of this kind with about this training window paid and drew.

    Args:
        least_wei: the smallest reward that the network takes.
    """
    alike = comparable(history, kind, train_s)
    rates = sorted(past.rate_wei for past in alike)
    count = len(alike)
    low, median, high = (rates[count * part // 4] if count else 0 for part in (1, 2, 3))
    return OrderEstimate(
        orders_seen=count,
        rate_low_wei=low,
        rate_median_wei=median,
        rate_high_wei=high,
        suggested_wei=max(least_wei, median * train_s),
        claims_milli=1_000 * sum(len(past.claims) for past in alike) // max(1, count),
        won_bps=BPS * sum(past.winner is not None for past in alike) // max(1, count),
    )
