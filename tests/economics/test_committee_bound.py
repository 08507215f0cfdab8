"""What a dishonest majority of the committee must hold, beside what it could take (PoT 5.2)."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.economics import bound_of
from offchain.economics.committee_bound import CommitteeBound, cheapest
from protocol.crypto import Key
from protocol.parameters import BPS, TOKEN_WEI
from protocol.roles import Role
from tests.chain import running_chain
from tests.origin.test_origin import some_order

MEMBERS = [Key((number).to_bytes(32, "big")) for number in (5, 6, 7, 8)]
CLIENT = Key((9).to_bytes(32, "big"))


@given(st.lists(st.integers(0, 10**24), min_size=1, max_size=7), st.data())
def test_no_other_majority_is_cheaper(stakes: list[int], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, len(stakes)))
    assert cheapest(stakes, threshold) == min(map(sum, combinations(stakes, threshold)))


@given(st.integers(1, 50), st.integers(1, 10**24), st.data())
def test_equal_stakes_make_it_linear_as_in_the_paper(count: int, stake: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, count))
    assert cheapest([stake] * count, threshold) == threshold * stake


def test_a_threshold_that_no_committee_has_is_refused() -> None:
    for threshold in (0, 3):
        with pytest.raises(ValueError, match="among 2 members"):
            cheapest([1, 1], threshold)
    assert CommitteeBound(members=1, threshold=1, stake_wei=0, reach_wei=0).cover_bps is None


def test_it_is_read_from_the_chain() -> None:
    with running_chain([member.address for member in MEMBERS]) as chain:
        for number, member in enumerate(MEMBERS):
            amount = (1_000 + 100 * number) * TOKEN_WEI
            chain.fund(member, 2_000 * TOKEN_WEI).register(Role.AGGREGATOR, amount, "", bytes(32))
        order = some_order(CLIENT)
        client = chain.fund(CLIENT, 1_000 * TOKEN_WEI)
        client.put(order)
        found = bound_of(client)
    assert (found.members, found.threshold) == (4, 3)
    assert found.stake_wei == 3_300 * TOKEN_WEI, "the fourth, with the largest stake, is not needed"
    assert found.reach_wei == 4_600 * TOKEN_WEI + order.reward + order.deposit
    assert found.cover_bps == found.stake_wei * BPS // found.reach_wei < BPS
