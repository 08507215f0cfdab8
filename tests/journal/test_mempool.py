"""The pool of waiting transactions: bounded, fair in order of arrival, each sender's in order of nonce."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.member.mempool import MAX_BATCH_BYTES, MAX_PER_SENDER, Mempool, PoolFull, Waiting
from protocol.crypto import keccak256
from protocol.transactions import Cancel, SignedTransaction


def waiting(sender: int, nonce: int, size: int = 300) -> Waiting:
    """A transaction of one of a few senders; the pool does not look at signatures."""
    body = Cancel(sender=bytes([sender]) * 20, nonce=nonce, oid=bytes(32))
    return Waiting(
        tx_id=keccak256(bytes([sender]) + nonce.to_bytes(8, "big")),
        content=keccak256(nonce.to_bytes(8, "big") + bytes([sender])),
        data=bytes(size),
        signed=SignedTransaction(body, bytes(65)),
        arrived_ms=nonce,
    )


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=40))
def test_a_batch_takes_arrivals_in_turn_and_each_senders_nonces_in_order(
    arrivals: list[tuple[int, int]],
) -> None:
    pool = Mempool()
    for sender, nonce in arrivals:
        pool.add(waiting(sender, nonce))
    chosen = pool.select(set(), 10)
    unique = list(dict.fromkeys(arrivals))
    assert {(c.signed.body.sender[0], c.signed.body.nonce) for c in chosen} == set(unique[:10])
    for sender in range(4):
        nonces = [c.signed.body.nonce for c in chosen if c.signed.body.sender[0] == sender]
        assert nonces == sorted(nonces)


def test_what_is_under_way_is_not_chosen_again_and_what_was_ordered_is_gone() -> None:
    pool = Mempool()
    items = [waiting(1, nonce) for nonce in range(5)]
    for item in items:
        pool.add(item)
    assert [c.tx_id for c in pool.select({items[0].tx_id}, 2)] == [items[1].tx_id, items[2].tx_id]
    pool.forget([items[0].tx_id], {bytes([1]) * 20: 2})
    assert [c.tx_id for c in pool.select(set(), 9)] == [items[3].tx_id, items[4].tx_id]
    assert items[0].tx_id not in pool and items[3].tx_id in pool and len(pool) == 2
    assert pool.oldest_ms == 3


def test_one_sender_cannot_fill_the_pool_and_room_comes_back() -> None:
    pool = Mempool()
    for nonce in range(MAX_PER_SENDER):
        pool.add(waiting(1, nonce))
    pool.add(waiting(1, 0))
    with pytest.raises(PoolFull):
        pool.add(waiting(1, 10_000))
    pool.add(waiting(2, 0))
    pool.forget([waiting(1, 0).tx_id], {})
    pool.add(waiting(1, 10_000))


def test_the_pool_as_a_whole_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.member.mempool.MAX_TRANSACTIONS", 3)
    pool = Mempool()
    for sender in range(3):
        pool.add(waiting(sender, 0))
    with pytest.raises(PoolFull):
        pool.add(waiting(9, 0))


def test_a_batch_has_a_bound_in_bytes() -> None:
    pool = Mempool()
    for nonce in range(100):
        pool.add(waiting(1, nonce, size=60_000))
    assert sum(len(c.data) for c in pool.select(set(), 1000)) <= MAX_BATCH_BYTES


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, 30)),
            st.tuples(st.just("drop"), st.integers(0, 2), st.integers(0, 30)),
            st.tuples(st.just("use"), st.integers(0, 2), st.integers(0, 30)),
        ),
        max_size=60,
    )
)
def test_whatever_comes_and_goes_none_waits_whose_nonce_is_used_up(steps: list[tuple[str, int, int]]) -> None:
    """As if every transaction were looked at each time, which is what this spares."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aggregator.member.mempool.MAX_PER_SENDER", 5)
        pool, expected = Mempool(), dict[bytes, Waiting]()
        for step, sender, nonce in steps:
            item = waiting(sender, nonce)
            if step == "add" and sum(w.signed.body.sender[0] == sender for w in expected.values()) < 5:
                pool.add(item)
                expected.setdefault(item.tx_id, item)
            elif step == "drop":
                pool.forget([item.tx_id], {})
                expected.pop(item.tx_id, None)
            elif step == "use":
                pool.forget([], {bytes([sender]) * 20: nonce})
                expected = {
                    tx_id: w
                    for tx_id, w in expected.items()
                    if w.signed.body.sender[0] != sender or w.signed.body.nonce > nonce
                }
            assert [w.tx_id for w in pool.oldest(1_000, 1_000)] == list(expected)
            assert len(pool._by_sender) == len({w.signed.body.sender for w in expected.values()})
