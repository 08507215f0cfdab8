"""How a reward splits among a pool's members: integers of wei that sum to it exactly. Pure.

The rule: the leader keeps ``fee_bps`` of the reward, rounded down. The rest is split in proportion to what
``split_by`` counts, each share rounded down; the wei left over go one each to the first in this order: the
leader, then the members in the order of the pool's file, then former members by address
(`protocol.rewards.apportion`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offchain.provider.pool.contributions import NO_WORK, Work
from offchain.provider.pool.settings import PoolSettings
from protocol.errors import ProtocolError
from protocol.rewards import apportion, bps_of


class NothingContributed(ProtocolError):
    """A reward for an order on whose record nobody did anything."""


@dataclass(frozen=True, slots=True)
class Payout:
    """What one account gets of a reward."""

    account: str
    work: Work
    fee_wei: int
    """For leading the pool; zero for members."""
    share_wei: int
    """For its work."""

    @property
    def amount_wei(self) -> int:
        """All of it."""
        return self.fee_wei + self.share_wei


def weight(work: Work, settings: PoolSettings) -> int:
    """What counts of an account's work."""
    match settings.split_by:
        case "samples":
            return work.samples
        case "steps":
            return work.steps
        case "time":
            return work.device_ms


def split(reward_wei: int, work: Mapping[str, Work], settings: PoolSettings) -> tuple[Payout, ...]:
    """Who gets what of ``reward_wei``; the amounts sum to it. Everybody is listed who worked, and the leader.

    Raises:
        NothingContributed: there is no work to split by.
    """
    if reward_wei < 0:
        raise ValueError("a reward is not negative")
    known = (settings.leader, *settings.members)
    former = sorted(account for account in work if account not in known)
    accounts = [account for account in (*known, *former) if account in work or account == settings.leader]
    done = [work.get(account, NO_WORK) for account in accounts]
    weights = [weight(each, settings) for each in done]
    if not sum(weights):
        raise NothingContributed("no steps are on record for this order; is this the leader's data_dir?")
    fee = bps_of(reward_wei, settings.fee_bps)
    shares = apportion(reward_wei - fee, weights)
    return tuple(
        Payout(account, each, fee if account == settings.leader else 0, share)
        for account, each, share in zip(accounts, done, shares, strict=True)
    )
