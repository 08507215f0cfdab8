"""The pool's front door: the cheap questions that come before a signature is checked.

In this order, each cheaper than the next: size and form (`decode_transaction`), the nonce, the sender's
standing, room in the pool; then the signature; then what the ledger would say. So a stranger costs a member
no cryptography, and whoever holds no stake and no order holds no place in the pool.

None of it is consensus: a primary may order what this member would not have pooled, and the ledger decides.

Source: design section 11 ("malformed, oversized, unsigned, replayed, out-of-phase transaction").
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from aggregator.ledger.penalties import is_staked
from aggregator.ledger.refusals import NonceTooFar, NoStanding, Refused, StaleNonce
from aggregator.ledger.state import State
from protocol.transactions import OrderTransaction, Transaction

MAX_NONCE_LEAD_MS: Final = 3_600_000
"""How far a nonce may be ahead of both the clock and the sender's last one.

Clients use milliseconds; a nonce from the far future would lock its account out of everything below it.
"""
MAX_BAD_FORWARDS: Final = 32
"""Transactions without a valid signature that one member may forward in a period; an honest one: none."""
BAD_FORWARDS_PERIOD_MS: Final = 60_000


def knock(state: State, body: Transaction, now_ms: int) -> Refused | None:
    """Why a transaction is not let in, as far as that shows without its signature."""
    last = state.nonces.get(body.sender, -1)
    if body.nonce <= last:
        return StaleNonce(body.nonce, last + 1)
    most = max(last, now_ms) + MAX_NONCE_LEAD_MS
    if body.nonce > most:
        return NonceTooFar(body.nonce, most)
    if not has_standing(state, body):
        return NoStanding(
            "this account has no stake in any role and is not the client of the order; stake first, "
            "for example with `dtn provider register`, or place an order with `dtn put`"
        )
    return None


def has_standing(state: State, body: Transaction) -> bool:
    """Whether the sender has something to lose: a stake in any role, or the order that it sends this for."""
    if is_staked(state, body.sender):
        return True
    entry = state.table.get(body.oid) if isinstance(body, OrderTransaction) else None
    return entry is not None and entry.order.client == body.sender


class Forwarders:
    """Which members' forwarded transactions are listened to.

    A member checks signatures before it forwards, so one that forwards bad ones wants to cost the others
    time. After `MAX_BAD_FORWARDS` it is not listened to for the rest of the period; what it says in consensus
    is.
    """

    def __init__(self) -> None:
        self._bad: Counter[int] = Counter()
        self._since_ms = 0

    def muted(self, member: int, now_ms: int) -> bool:
        """Whether a member has forwarded too much that was no transaction of its sender's."""
        if now_ms - self._since_ms >= BAD_FORWARDS_PERIOD_MS:
            self._bad.clear()
            self._since_ms = now_ms
        return self._bad[member] >= MAX_BAD_FORWARDS

    def blame(self, member: int) -> None:
        """A member forwarded what no honest member forwards."""
        self._bad[member] += 1
