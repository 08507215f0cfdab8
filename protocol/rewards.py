"""Reward arithmetic: exact integer shares that add up, whoever computes them.

Source: PoT 2.4 "Distributing the Rewards", 5.2 (tax ``r``); design section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.parameters import BPS, Parameters


def bps_of(amount: int, bps: int) -> int:
    """``amount * bps / 10,000``, rounded down."""
    return amount * bps // BPS


def apportion(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Split ``total`` in proportion to ``weights``; the shares sum to ``total`` exactly.

    Each share is rounded down and the wei left over go one each to the first shares with a positive
    weight. With no positive weight there is nobody to pay and ``ValueError`` is raised.
    """
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0:
        raise ValueError("weights must be non-negative and not all zero")
    shares = [total * weight // whole for weight in weights]
    left = total - sum(shares)
    for index, weight in enumerate(weights):
        if left == 0:
            break
        if weight:
            shares[index] += 1
            left -= 1
    return tuple(shares)


@dataclass(frozen=True, slots=True)
class RewardShares:
    """The four parts of an order's reward, in wei; they sum to the reward."""

    winner: int
    validators: int
    consolation: int
    tax: int


def reward_shares(reward: int, parameters: Parameters, *, consoled: int) -> RewardShares:
    """Divide ``reward`` among winner, validators, ``consoled`` other claims and the aggregators.

    Without anyone to console that share stays with the winner. Votes set the shares one by one, so they may
    come to more than the whole: then each gets what those before it (tax, validators, consolation) leave.
    """
    tax = bps_of(reward, parameters["tax_bps"])
    validators = min(bps_of(reward, parameters["validator_bps"]), reward - tax)
    consolation = bps_of(reward, parameters["consolation_bps"]) if consoled else 0
    consolation = min(consolation, reward - tax - validators)
    return RewardShares(reward - tax - validators - consolation, validators, consolation, tax)


@dataclass(frozen=True, slots=True)
class SlashShares:
    """Where slashed stake goes, in wei: the accuser at most half, the treasury the rest."""

    accuser: int
    jurors: int
    treasury: int


def slash_shares(amount: int, parameters: Parameters, *, accuser: bool, jurors: bool) -> SlashShares:
    """Divide a slash; the share of whoever does not exist goes to the treasury."""
    to_accuser = bps_of(amount, parameters["accuser_bps"]) if accuser else 0
    to_jurors = bps_of(amount, parameters["juror_bps"]) if jurors else 0
    return SlashShares(to_accuser, to_jurors, amount - to_accuser - to_jurors)
