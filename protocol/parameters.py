"""Protocol parameters: their names, defaults and bounds, one list for contracts, ledger and people.

On the chain a parameter is ``bytes32(name) -> uint256`` in ``Parameters.sol``; the ledger learns of
values from its events and binds an order to the values in force when the order was taken in, so a
vote never changes an order that already runs. Durations are seconds, amounts are token base units,
shares are basis points (1/10,000).

Source: PoT 2.5 (stakes per role), 3.3.4 (update cycle decided by vote), 3.4 "Flexibility".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from protocol.version import FIRST_VERSION, MAX_VERSION, SUPPORTED

TOKEN_WEI: Final = 10**18
DAY_S: Final = 86_400
BPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """Default and inclusive bounds of one parameter."""

    default: int
    low: int
    high: int
    meaning: str


def _wei(default: int, meaning: str, low: int = 0) -> ParameterRule:
    return ParameterRule(default * TOKEN_WEI, low, 10**9 * TOKEN_WEI, meaning)


def _seconds(default: int, meaning: str, low: int = 1) -> ParameterRule:
    return ParameterRule(default, low, 365 * DAY_S, meaning)


def _bps(default: int, meaning: str) -> ParameterRule:
    return ParameterRule(default, 0, BPS, meaning)


PARAMETERS: Final[dict[str, ParameterRule]] = {
    # What an order must look like; checked by OrderBook.put.
    # At least a wei: the contract cannot consume an empty escrow, and no report could settle such an order.
    "min_reward_wei": _wei(10, "smallest reward of an order", low=1),
    "min_deposit_bps": _bps(500, "smallest client deposit, as a share of the reward"),
    "min_train_s": _seconds(10, "shortest training window"),
    "max_train_s": _seconds(30 * DAY_S, "longest training window"),
    "min_validate_s": _seconds(4, "shortest validation window"),
    "max_validate_s": _seconds(7 * DAY_S, "longest validation window"),
    "min_challenge_s": _seconds(4, "shortest challenge window"),
    "max_challenge_s": _seconds(7 * DAY_S, "longest challenge window"),
    "reclaim_s": _seconds(
        30 * DAY_S,
        "client may reclaim an order nobody settled, counted from its last window",
        low=300,
    ),
    "abandon_s": _seconds(
        90 * DAY_S,
        "silence of the committee, from when a release was due, after which all may leave without it",
        # Longer than any order that the defaults allow: a committee that waits for one is not gone.
        low=60 * DAY_S,
    ),
    # Phases whose length the network sets.
    "reveal_s": _seconds(3600, "window for model reveals and the client's test release"),
    "validation_reveal_s": _seconds(600, "window for opening validation commitments"),
    "challenge_reveal_s": _seconds(600, "window for opening challenge commitments"),
    "verdict_s": _seconds(3600, "window for verdict commitments"),
    "verdict_reveal_s": _seconds(600, "window for opening verdict commitments"),
    "appeal_s": _seconds(3600, "window for appeals once a verdict stands"),
    "update_s": _seconds(3600, "length of the update cycle (one settlement per cycle)"),
    "confirmations": ParameterRule(12, 0, 1000, "blocks an origin lies behind the chain's head"),
    "protocol_version": ParameterRule(
        SUPPORTED.high,
        FIRST_VERSION,
        MAX_VERSION,
        "rules of the ledger; a higher one takes over 257 batches after the ledger learns of it",
    ),
    # Stakes.
    "min_stake_provider_wei": _wei(100, "smallest stake of a provider"),
    "min_stake_validator_wei": _wei(200, "smallest stake of a validator"),
    "min_stake_verifier_wei": _wei(50, "smallest stake of a verifier"),
    "min_stake_aggregator_wei": _wei(1000, "smallest stake of an aggregator"),
    "claim_stake_wei": _wei(5, "locked per claim until the order is sealed"),
    "min_validation_stake_wei": _wei(5, "smallest vStake"),
    "min_challenge_stake_wei": _wei(5, "smallest cStake"),
    "report_stake_wei": _wei(5, "locked per irretrievable report until the order is sealed"),
    "appeal_bond_wei": _wei(10, "bond of an appeal, lost unless it changes the verdict"),
    "unbonding_s": _seconds(7 * DAY_S, "from asking to unstake to the release of the stake"),
    # Shares of an order's reward; the winner gets the rest.
    "tax_bps": _bps(500, "aggregators' tax r"),
    "validator_bps": _bps(1000, "validators of the winning model"),
    "consolation_bps": _bps(500, "revealed claims that did not win"),
    # Slashing.
    "slash_bps": _bps(10_000, "share of a wrong vStake or cStake that a verdict slashes"),
    "missed_reveal_bps": _bps(1000, "share of a locked stake slashed for a commitment never opened"),
    "irretrievable_bps": _bps(
        10_000, "share of the claim stake slashed for a model that a jury cannot fetch"
    ),
    # Not all of it: a member that was started from an old disk signs twice as well. Never nothing: the ledger
    # remembers each offence for ever.
    "equivocation_slash_bps": ParameterRule(
        5000, 100, BPS, "share of an aggregator's stake slashed for two contradicting votes"
    ),
    "accuser_bps": ParameterRule(4000, 0, 5000, "accuser's share of a slash, at most half"),
    "juror_bps": ParameterRule(1000, 0, 5000, "share of a slash for the jurors whose verdict stood"),
    "verdict_quorum_bps": ParameterRule(5001, 5001, BPS, "stake that must agree, of all eligible stake"),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """All parameter values in force, by name; unknown names and values out of bounds cannot exist."""

    values: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if [name for name, _ in self.values] != sorted(PARAMETERS):
            raise ValueError("parameters must be exactly the known ones, in sorted order")

    def __getitem__(self, name: str) -> int:
        return dict(self.values)[name]

    @classmethod
    def of(cls, values: Mapping[str, int]) -> Parameters:
        """The parameters with these values; raises ``ValueError`` unless they are exactly the known ones."""
        return cls(tuple(sorted(values.items())))

    def with_value(self, name: str, value: int) -> Parameters:
        """A copy with one value changed; an unknown name or a value out of bounds raises ``ValueError``."""
        rule = PARAMETERS.get(name)
        if rule is None:
            raise ValueError(f"no parameter is called {name!r}")
        if not rule.low <= value <= rule.high:
            raise ValueError(f"{name} must lie in [{rule.low}, {rule.high}], not {value}")
        return Parameters(tuple((key, value if key == name else old) for key, old in self.values))


DEFAULTS: Final = Parameters(tuple(sorted((name, rule.default) for name, rule in PARAMETERS.items())))
"""The values a fresh deployment starts from."""
