"""The committee as the chain names it: how many members it has, and where each one's public API is.

Guarantees: each API stands for one member, so that as many equal answers as `Committee.enough` include an
honest member's, whoever wrote the network file.

Source: PoT algorithm 1, phase 6 (f + 1 identical replies); design section 6 (n >= 3f + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.chain.client import ChainClient
from protocol.endpoint import api_address


@dataclass(frozen=True, slots=True)
class Committee:
    """Size and reachable members of the committee in force."""

    size: int
    apis: tuple[str, ...]
    """URLs of the members that registered one; no URL twice."""

    @property
    def enough(self) -> int:
        """f + 1: at most f of n = 3f + 1 members lie."""
        return (self.size - 1) // 3 + 1


def read_committee(chain: ChainClient) -> Committee:
    """The committee as the chain has it now; raises `ChainError` when the chain does not answer."""
    members = chain.members()
    apis = (api_address(chain.endpoint_of(member)[0]) for member in members)
    # A URL that two members name is one machine: it counts once.
    return Committee(len(members), tuple(dict.fromkeys(api for api in apis if api is not None)))
