"""No attack on the list pays, or only up to its documented bound, and the honest lose nothing to any."""

from __future__ import annotations

import pytest

from protocol.parameters import DEFAULTS
from protocol.rewards import reward_shares
from tests.attacks.collusion import league_profit, split_profit
from tests.attacks.strategies import STRATEGIES, Strategy, attempt
from tests.ledger.world import REWARD

SEEDS, ORDERS = 3, 2
SHARES = reward_shares(REWARD, DEFAULTS, consoled=2)
WINNER_WEI, VALIDATORS_WEI = SHARES.winner, SHARES.validators


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_it_does_not_pay_and_costs_the_honest_nothing(strategy: Strategy) -> None:
    for seed in range(SEEDS):
        tried = attempt(strategy, seed, ORDERS)
        assert tried.profit_wei <= strategy.most_wei
        assert tried.honest_debits_wei == 0
        assert tried.results == strategy.results


def test_honest_work_pays_all_who_do_it_but_verifiers_who_find_nothing() -> None:
    tried = attempt(Strategy(name="nobody attacks"), 0, 4)
    assert tried.profit_wei == tried.honest_debits_wei == 0
    by_name = tried.by_name
    assert all(by_name[f"validator{n}"] > 0 for n in range(3))
    assert by_name["provider0"] + by_name["provider1"] > 0
    assert all(by_name[f"verifier{n}"] < 0 for n in range(2)), "their work is paid only where somebody lied"


@pytest.mark.parametrize("verifiers", [2, 4])
def test_a_false_score_takes_more_stake_on_the_jury_than_the_honest_have_there(verifiers: int) -> None:
    """Validators and the challenger are parties: the jury is the other verifiers, and who kept out."""
    honest_jurors = verifiers - 1
    for jurors in range(honest_jurors):
        profit, honest_debits = league_profit(jurors, verifiers, seed=1, orders=1)
        assert profit < 0 == honest_debits
    # As many: no verdict stands, the lie wins nothing and costs nothing. More: the documented break-even.
    draw, _ = league_profit(honest_jurors, verifiers, seed=1, orders=1)
    profit, _ = league_profit(honest_jurors + 1, verifiers, seed=1, orders=1)
    assert draw < VALIDATORS_WEI < WINNER_WEI <= profit


def test_splitting_stake_over_accounts_brings_nothing() -> None:
    whole = split_profit(1, seed=2, orders=2)
    assert whole > 0
    for parts in (2, 4):
        # Each account scores for itself here; whoever shares that work still gets no more than the whole.
        assert split_profit(parts, seed=2, orders=2) <= whole


def test_an_appeal_takes_what_a_league_gained_unless_it_outweighs_the_larger_jury_too() -> None:
    """Two verifiers of whom one challenges and appeals: the other, and three idle providers, judge again."""
    won, _ = league_profit(2, 2, seed=1, orders=1)
    assert won >= WINNER_WEI, "enough against the first jury"
    for jurors in (2, 3):
        profit, honest_debits = league_profit(jurors, 2, seed=1, orders=1, idle=3)
        assert profit < 0 == honest_debits
    profit, _ = league_profit(5, 2, seed=1, orders=1, idle=3)
    assert profit >= WINNER_WEI, "with more than all of them together the lie stands: the documented bound"
