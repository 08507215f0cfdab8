"""Quotes are done by hand; whatever the history, they stay within what an order can pay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.answers import SettlementRow, fetch_stakes
from offchain.economics import (
    Offer,
    Past,
    estimate_order,
    fetch_history,
    fetch_settlements,
    margin_of,
    offer_of,
    quote_provider,
    quote_validator,
    record_of,
)
from offchain.economics.history import Debit, PastClaim, PastValidation, past_of
from offchain.economics.quotes import comparable
from offchain.network import NetworkError
from protocol.parameters import BPS, DEFAULTS, TOKEN_WEI
from protocol.rewards import reward_shares
from tests.answers import account, claim, open_order

ME, RIVAL, OTHER, SCORER = map(account, ("me", "rival", "other", "scorer"))
REWARD = 1_000 * TOKEN_WEI


def past(
    *providers: str,
    winner: str | None = None,
    train_s: int = 100,
    rate: int = 5,
    validations: tuple[PastValidation, ...] = (),
    debits: tuple[Debit, ...] = (),
) -> Past:
    return Past(
        oid="0x",
        kind="open",
        client="0xclient",
        reward_wei=rate * train_s,
        train_s=train_s,
        result="won" if winner else "no model beat the baseline",
        winner=winner,
        claims=tuple(PastClaim(provider, True) for provider in providers),
        validations=validations,
        debits=debits,
        tax_wei=rate * train_s // 20,
    )


def order(*providers: str, phase: str = "training", **parameters: int) -> Offer:
    values = dict(DEFAULTS.values) | parameters
    return offer_of(
        open_order(
            phase=phase,
            rewardWei=str(REWARD),
            claims=[claim(provider) for provider in providers],
            parameters={name: str(value) for name, value in values.items()},
        )
    )


def test_a_newcomer_has_one_chance_among_all() -> None:
    quote = quote_provider(order(RIVAL, OTHER), [], ME, left_s=3_600, cost_wei_per_hour=TOKEN_WEI)
    assert (quote.rivals, quote.odds_bps) == (2, BPS // 3)
    shares = reward_shares(REWARD, DEFAULTS, consoled=2)
    assert quote.reward_if_best_wei == shares.winner and quote.consolation_wei == shares.consolation // 2
    assert quote.cost_wei == TOKEN_WEI
    gained = shares.winner * 3_333 // BPS + shares.consolation // 2 * 6_667 // BPS
    assert quote.expected_wei == gained - TOKEN_WEI and quote.break_even_wei_per_hour == gained
    assert quote.locked_wei == DEFAULTS["claim_stake_wei"]


def test_comparable_orders_say_how_many_rivals_will_come_and_the_own_record_counts() -> None:
    history = [past(ME, RIVAL, OTHER, winner=ME), past(ME, RIVAL, winner=ME), past(ME, winner=ME)]
    quote = quote_provider(order(), history, ME, left_s=1, cost_wei_per_hour=0)
    assert (quote.rivals, quote.own_claims, quote.own_wins) == (1, 3, 3)
    assert quote.odds_bps == BPS * 4 // 5
    loser = quote_provider(order(), history, OTHER, left_s=1, cost_wei_per_hour=0)
    assert loser.own_wins == 0 and loser.odds_bps < quote.odds_bps


def test_what_may_be_lost_follows_from_the_orders_own_parameters() -> None:
    of_order = {
        "claim_stake_wei": 40,
        "missed_reveal_bps": 1_000,
        "irretrievable_bps": 7_500,
        "slash_bps": 5_000,
    }
    offer = order(RIVAL, OTHER, **of_order)
    provider = quote_provider(offer, [], ME, left_s=1, cost_wei_per_hour=0)
    assert (provider.locked_wei, provider.at_risk_wei, provider.irretrievable_wei) == (40, 4, 30)
    validator = quote_validator(offer, [], ME, 100)
    assert (validator.locked_wei, validator.at_risk_wei, validator.wrong_wei) == (200, 20, 100)


def test_a_long_order_says_little_about_a_short_one_unless_there_is_nothing_else() -> None:
    long, short = past(train_s=10_000), past(train_s=120)
    assert comparable([long, short], "open", 100) == [long, short]
    assert comparable([long, short, short, short], "open", 100) == [short] * 3
    assert comparable([long], "search", 100) == []


def test_a_validator_shares_by_stake_and_only_in_orders_that_are_won() -> None:
    stake = DEFAULTS["min_validation_stake_wei"]
    won = past(RIVAL, winner=RIVAL, validations=(PastValidation(SCORER, 3 * stake, True, True),))
    lost = past(RIVAL)
    quote = quote_validator(order(RIVAL, OTHER), [won, lost], ME, stake)
    validators = reward_shares(REWARD, DEFAULTS, consoled=1).validators
    assert (quote.models, quote.share_if_won_wei, quote.odds_bps) == (2, validators // 4, BPS // 2)
    assert quote.expected_wei == validators // 4 // 2 and quote.locked_wei == 2 * stake
    nobody = quote_validator(order(phase="validation"), [won], ME, stake)
    assert (nobody.models, nobody.expected_wei, nobody.locked_wei) == (0, 0, 0)


def test_an_estimate_is_the_median_rate_and_never_less_than_the_least() -> None:
    history = [past(RIVAL, rate=rate, winner=RIVAL if rate > 4 else None) for rate in (1, 3, 5, 7, 9)]
    found = estimate_order(history, "open", 100, 10)
    assert (found.rate_low_wei, found.rate_median_wei, found.rate_high_wei) == (3, 5, 7)
    assert (found.suggested_wei, found.claims_milli, found.won_bps) == (500, 1_000, 6_000)
    assert estimate_order(history, "open", 100, 10_000).suggested_wei == 10_000
    assert estimate_order([], "open", 100, 10).suggested_wei == 10


def test_a_record_counts_what_was_kept_and_what_was_broken() -> None:
    wrong = past(
        RIVAL,
        validations=(PastValidation(ME, 1, True, True), PastValidation(ME, 1, False, False)),
        debits=(Debit(ME, "wrong score", 5), Debit(ME, "validation never revealed", 2)),
    )
    record = record_of([wrong, past(ME, winner=ME)], ME)
    assert (record.claims, record.wins, record.validations) == (1, 1, 2)
    assert (record.kept, record.broken, record.slashed_wei) == (1, 2, 7)
    assert record.reliability_bps == BPS // 3
    assert record_of([wrong], OTHER).reliability_bps is None
    assert record_of([wrong], "0xclient").orders_put == 1


@pytest.mark.parametrize(
    "damage", [{"order": None}, {"rewardWei": "much"}, {"claims": [{}]}, {"receipts": 5}]
)
def test_an_answer_that_is_none_is_refused(damage: dict[str, Any]) -> None:
    fine = open_order(phase="settled", deadlineMs=None, result="won", rewardWei="500")
    assert past_of(fine).rate_wei == 5
    with pytest.raises(NetworkError, match="cannot be read"):
        past_of(fine | damage)


def settlement(gas: int, *oids: str) -> SettlementRow:
    return SettlementRow(epoch=1, tx="0x", gas_used=gas, at_ms=1, orders=oids, credited=())


def test_the_margin_counts_settlements_whose_orders_are_all_known() -> None:
    known, other = past(RIVAL, rate=1_000), replace(past(RIVAL, rate=3_000), oid="0xother")
    settlements = [
        settlement(100, "0x"),
        settlement(7, "0x", "0xgone"),
        settlement(300, "0xother"),
        settlement(50),
    ]
    found = margin_of(settlements, [known, other], gas_price_wei=2, coin_price_wei=5 * 10**18)
    assert (found.settlements, found.orders, found.gas, found.gas_per_order) == (3, 2, 450, 225)
    assert (found.tax_wei, found.gas_wei, found.margin_wei) == (20_000, 4_500, 15_500)
    assert found.margin_bps == 7_750
    assert margin_of([], [], 1, 1).margin_bps is None


class Saying:
    """A network whose aggregators give one answer to everything."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get(self, path: str, **query: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        None,
        {"orders": 5, "settlements": [{"orders": []}], "nodes": [5]},
        {"orders": [{}], "nodes": None},
    ],
)
def test_answers_that_are_none_are_refused(answer: Any) -> None:
    network: Any = Saying(answer)
    for ask, what in (
        (lambda: fetch_history(network), "settled orders"),
        (lambda: fetch_settlements(network), "settlements"),
        (lambda: fetch_stakes(network, ME), "stakes"),
        (lambda: offer_of(answer), "an order"),
    ):
        with pytest.raises(NetworkError, match=f"about {what} cannot be read"):
            ask()


SOMEBODY = st.sampled_from([ME, RIVAL, OTHER])


def _past(names: set[str], wins: bool, train_s: int) -> Past:
    return past(*sorted(names), winner=min(names) if names and wins else None, train_s=train_s)


HISTORIES = st.lists(st.builds(_past, st.sets(SOMEBODY), st.booleans(), st.integers(1, 1_000)), max_size=12)


@given(HISTORIES, st.sets(SOMEBODY), st.integers(0, 10**6), st.integers(0, 10**21), st.integers(1, 10**24))
def test_nobody_is_promised_more_than_the_order_pays(
    history: list[Past], names: set[str], left_s: int, cost: int, stake: int
) -> None:
    offer = order(*sorted(names))
    provider = quote_provider(offer, history, ME, left_s=left_s, cost_wei_per_hour=cost)
    assert 0 < provider.odds_bps <= BPS and provider.expected_wei <= REWARD
    assert provider.rivals >= len(names - {ME})
    validator = quote_validator(offer, history, ME, stake)
    assert 0 <= validator.expected_wei <= validator.share_if_won_wei <= REWARD
    assert validator.odds_bps <= BPS and validator.at_risk_wei <= validator.locked_wei
