"""Transactions on their way in: from the public, from other members, and from this member itself.

Source: design section 6 (bodies are spread by whoever receives them), section 11 (what is refused, and how).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from aggregator.ledger.refusals import Refused
from aggregator.ledger.transition import (
    ACCEPTED,
    TransactionResult,
    authenticated,
)
from aggregator.member.admission import knock
from aggregator.member.execution import Execution, OrderedResult
from aggregator.member.mempool import PoolFull, Waiting
from aggregator.pbft.messages import (
    MAX_FORWARDED,
    Forward,
)
from protocol.crypto import keccak256
from protocol.errors import ProtocolError
from protocol.transactions import Transaction, decode_transaction
from protocol.typed_data import digest_of

log = logging.getLogger(__name__)

FORWARD_AGAIN_MS: Final = 1_000
"""A transaction that waits longer is sent to the others again: they may have lost it."""
MAX_FORWARDED_AGAIN: Final = 64
Submitted = tuple[bytes, TransactionResult | None] | ProtocolError | PoolFull
"""What became of one of many transactions: as `Member.submit` returns it, or what it would raise."""


class Pooling(Execution):
    """`Execution` that takes transactions in."""

    def submit(self, data: bytes, now_ms: int, *, forward: bool) -> tuple[bytes, TransactionResult | None]:
        """Take a transaction from the public into the pool; ``forward`` tells the other members.

        Returns its id and, if the ledger would refuse it as things stand, that refusal (it is not pooled).

        Raises:
            ProtocolError: malformed or badly signed.
            PoolFull: no room.
        """
        pooled = len(self.mempool)
        answer = self._take_in(data, now_ms, ask=True)
        if forward and len(self.mempool) > pooled:
            self._send(None, Forward((data,)))
        return answer

    def submit_all(self, items: Sequence[bytes], now_ms: int) -> list[Submitted]:
        """Take transactions from the public into the pool, and tell the other members in few messages.

        The answers stand in the order of ``items``; see `submit` for what each is.
        """
        answers: list[Submitted] = []
        taken: list[bytes] = []
        for data in items:
            try:
                pooled = len(self.mempool)
                answers.append(self._take_in(data, now_ms, ask=True))
                if len(self.mempool) > pooled:
                    taken.append(data)
            except (ProtocolError, PoolFull) as reason:
                answers.append(reason)
        for start in range(0, len(taken), MAX_FORWARDED):
            self._send(None, Forward(tuple(taken[start : start + MAX_FORWARDED])))
        return answers

    def _take_in(self, data: bytes, now_ms: int, *, ask: bool) -> tuple[bytes, TransactionResult | None]:
        """Into the pool; ``ask`` the ledger first what it would say.

        It is not asked about what members forward, for they have asked theirs. Whoever forwards what the
        ledger refuses gains nothing: it is refused when ordered, its sender has bounded room in the pool,
        and what waits too long is asked about again (`_forward_again`).
        """
        body = decode_transaction(data).body
        refusal = knock(self.state, body, now_ms)
        if refusal is not None:
            return self._turn_away(body, refusal)
        try:
            self.mempool.require_room(body.sender, len(data))
        except PoolFull:
            if digest_of(self.members.domain, body) not in self.mempool:
                raise
        signed, tx_id = authenticated(self.members.domain, data)
        known = self.results.get(tx_id)
        if known is not None and known.result.code == ACCEPTED:
            return tx_id, known.result
        if tx_id not in self.mempool:
            outlook = self.rules.check(self.state, data) if ask else None
            if outlook is not None and outlook.code != ACCEPTED:
                return tx_id, outlook
            self.results.pop(tx_id, None)  # an earlier refusal no longer says anything
            self.mempool.add(
                Waiting(tx_id=tx_id, content=keccak256(data), data=data, signed=signed, arrived_ms=now_ms)
            )
        return tx_id, None

    def _turn_away(self, body: Transaction, refusal: Refused) -> tuple[bytes, TransactionResult]:
        """The refusal; or what became of the transaction, if this is one sent again."""
        tx_id = digest_of(self.members.domain, body)
        known = self.results.get(tx_id)
        if known is not None and known.result.code == ACCEPTED:
            return tx_id, known.result
        return tx_id, TransactionResult(tx_id=tx_id, code=refusal.code, reason=str(refusal))

    def _queue_forwarded(self, sender: int, items: tuple[bytes, ...]) -> None:
        """Keep what a member forwarded until `look_at_forwarded` has a moment for it."""
        if self.outdated or self._forwarders.muted(sender, self.now_ms):
            self.counters.events["forwards_ignored"] += len(items)
            return
        dropped = self.intake.put(sender, items)
        if dropped:
            self.counters.events["forwards_dropped"] += dropped

    def look_at_forwarded(self, limit: int) -> bool:
        """Take up to ``limit`` transactions that one member forwarded into the pool; whether there were any.

        The members have their turns. Whoever runs a member calls this between its rounds, so that votes do
        not wait behind transactions.
        """
        turn = self.intake.take(limit)
        if turn is None:
            return False
        self._pool_forwarded(*turn)
        return True

    def _pool_forwarded(self, sender: int, items: Sequence[bytes]) -> None:
        if self.outdated or self._forwarders.muted(sender, self.now_ms):
            self.counters.events["forwards_ignored"] += len(items)
            return
        for data in items:
            try:
                self._take_in(data, self.now_ms, ask=False)
            except PoolFull:
                self.counters.events["pool_full"] += 1
            except ProtocolError as reason:
                self._forwarders.blame(sender)
                self.counters.misbehaviour[sender] += 1
                log.warning("member %d forwarded a bad transaction: %s", sender, reason)
                return  # no honest member forwards one: do not pay for the rest

    def _forward_again(self) -> None:
        """Let all members know what waits here; one that alone waited would ask for views in vain."""
        if self.now_ms - self._forwarded_ms < FORWARD_AGAIN_MS:
            return
        self._forwarded_ms = self.now_ms
        self._accuse()
        again = []
        for item in self.mempool.oldest(self.now_ms - FORWARD_AGAIN_MS, MAX_FORWARDED_AGAIN):
            outlook = self.rules.check(self.state, item.data)
            if outlook.code == ACCEPTED:
                again.append(item.data)
            else:
                # Its time has passed while it waited: nobody will order it, so nobody should wait for it.
                self.mempool.forget([item.tx_id], {})
                self._record(OrderedResult(sequence=self.state.sequence, result=outlook))
        if again:
            self._send(None, Forward(tuple(again)))

    def _accuse(self) -> None:
        """Offer what proves that another member lied; a refusal is tried again later."""
        for data in self.accusations.due(self.state, self.now_ms):
            try:
                self.submit(data, self.now_ms, forward=True)
            except PoolFull:
                self.counters.events["pool_full"] += 1
