"""Shares add up to the last wei, whatever the weights; parameters stay within their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.parameters import BPS, DEFAULTS, PARAMETERS, Parameters
from protocol.rewards import apportion, reward_shares, slash_shares

WEI = st.integers(0, 2**96 - 1)
PARAMETER_SETS = st.fixed_dictionaries(
    {name: st.integers(rule.low, rule.high) for name, rule in PARAMETERS.items() if name.endswith("_bps")}
)


def with_values(values: dict[str, int]) -> Parameters:
    """The defaults with some values voted otherwise."""
    parameters = DEFAULTS
    for name, value in values.items():
        parameters = parameters.with_value(name, value)
    return parameters


@given(total=WEI, weights=st.lists(WEI, min_size=1, max_size=30).filter(any))
def test_a_total_is_split_exactly_fairly_and_only_among_positive_weights(
    total: int, weights: list[int]
) -> None:
    shares = apportion(total, weights)
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        exact = total * weight
        assert share * sum(weights) - exact + sum(weights) >= 0 and share * sum(weights) <= exact + sum(
            weights
        )
        assert weight or not share


@pytest.mark.parametrize("weights", [[], [0], [0, 0], [1, -1], [-1]], ids=str)
def test_there_must_be_somebody_to_pay(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        apportion(1, weights)


@given(reward=WEI, values=PARAMETER_SETS, consoled=st.integers(0, 3))
def test_the_four_shares_of_a_reward_sum_to_it_and_none_is_a_debt(
    reward: int, values: dict[str, int], consoled: int
) -> None:
    shares = reward_shares(reward, with_values(values), consoled=consoled)
    parts = (shares.winner, shares.validators, shares.consolation, shares.tax)
    assert sum(parts) == reward
    assert min(parts) >= 0
    assert consoled or not shares.consolation


@given(amount=WEI, values=PARAMETER_SETS, accuser=st.booleans(), jurors=st.booleans())
def test_a_slash_is_divided_exactly_and_the_accuser_gets_at_most_half(
    amount: int, values: dict[str, int], accuser: bool, jurors: bool
) -> None:
    shares = slash_shares(amount, with_values(values), accuser=accuser, jurors=jurors)
    parts = (shares.accuser, shares.jurors, shares.treasury)
    assert sum(parts) == amount
    assert min(parts) >= 0
    assert 2 * shares.accuser <= amount
    assert accuser or not shares.accuser
    assert jurors or not shares.jurors


def test_every_default_lies_within_its_bounds_and_a_quorum_is_a_majority() -> None:
    for name, rule in PARAMETERS.items():
        assert rule.low <= rule.default <= rule.high, name
        assert rule.meaning
    assert PARAMETERS["verdict_quorum_bps"].low > BPS // 2


@pytest.mark.parametrize(
    ("name", "value"), [("nonsense", 1), ("tax_bps", 10_001), ("tax_bps", -1), ("reveal_s", 0)]
)
def test_a_parameter_out_of_bounds_or_unknown_cannot_exist(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        DEFAULTS.with_value(name, value)


def test_parameters_are_exactly_the_known_ones() -> None:
    with pytest.raises(ValueError, match="exactly the known ones"):
        Parameters(DEFAULTS.values[1:])
