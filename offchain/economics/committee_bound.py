"""What it takes to own a committee, beside what its owner could take.

``threshold`` members sign whatever they like: they can pay themselves the escrow of open orders, and slash
any stake in their favour. PoT 5.2 calls the tokens that this takes *linear staking impact*: with n members
that staked d each, B(k) = k * d. Here stakes differ, so it is the sum of the k smallest; and it is what such
members must hold, not what they lose, since nobody is left to slash them.

Amounts are wei of the token, as the chain has them now.

Source: PoT 5.2; docs/economics.md, "A committee's price".
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.chain.client import ChainClient
from protocol.parameters import BPS
from protocol.roles import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitteeBound:
    """The stake of the cheapest majority, and what it can reach."""

    members: int
    threshold: int
    stake_wei: int
    """Bonded by the ``threshold`` members that staked least: B(k)."""
    reach_wei: int
    """All tokens in escrow and at stake: a bound from above, since settled credits are out of their reach."""

    @property
    def cover_bps(self) -> int | None:
        """B(k) in basis points of what it could take; None where there is nothing to take."""
        return self.stake_wei * BPS // self.reach_wei if self.reach_wei else None


def cheapest(stakes_wei: list[int], threshold: int) -> int:
    """The least that ``threshold`` of these members have at stake together."""
    if not 0 < threshold <= len(stakes_wei):
        raise ValueError(f"a threshold of {threshold} among {len(stakes_wei)} members")
    return sum(sorted(stakes_wei)[:threshold])


def bound_of(chain: ChainClient) -> CommitteeBound:
    """The bound of the committee in force.

    Raises:
        ChainError: the chain node does not answer.
    """
    members, threshold = chain.members(), chain.threshold()
    stakes = [chain.stake_of(member, Role.AGGREGATOR)[0] for member in members]
    holders = (chain.book.settlement, chain.book.registry)
    return CommitteeBound(
        members=len(members),
        threshold=threshold,
        stake_wei=cheapest(stakes, threshold),
        reach_wei=sum(chain.balance_of(bytes.fromhex(holder[2:])) for holder in holders),
    )
