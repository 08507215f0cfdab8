"""Roles a node may stake for. The numbers are those of ``NodeRegistry.sol``.

Source: PoT 2.1 (``N = {A, C, P, V}``), 2.5 "Concurrent Roles": one account may hold several.
"""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """A staking role; clients and the treasury hold none and appear in receipts only."""

    PROVIDER = 1
    VALIDATOR = 2
    VERIFIER = 3
    AGGREGATOR = 4

    @property
    def parameter(self) -> str:
        """Name of the parameter that holds this role's minimum stake."""
        return f"min_stake_{self.name.lower()}_wei"
