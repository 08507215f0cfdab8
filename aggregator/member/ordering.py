"""What a primary proposes and what the others make of it before they vote.

Source: design section 5 (origins), section 6 (timestamp bounds, the primary orders digests).
"""

from __future__ import annotations

import logging

from aggregator.ledger.transition import (
    next_deadline_ms,
)
from aggregator.member.assembly import by_hash
from aggregator.member.execution import MAX_SERVED_BYTES, Held
from aggregator.member.proposals import fault_in, forgery_in
from aggregator.member.succession import Succession
from aggregator.origin.origin import Proposal
from aggregator.pbft.events import (
    Event,
    Propose,
    Validate,
    Validated,
)
from aggregator.pbft.messages import (
    MAX_BATCH_TRANSACTIONS,
    Batch,
    Bodies,
    FetchBodies,
)

log = logging.getLogger(__name__)


class Ordering(Succession):
    """`Succession` that proposes batches and checks those of others."""

    # Proposing and validating --------------------------------------------------------------------

    def _due_proposal(self) -> Event | None:
        """The next batch, if this member is primary and has work for one."""
        if not self.replica.can_propose:
            return None
        under_way = set().union(*self._proposed_ids.values()) if self._proposed_ids else set()
        chosen = self.mempool.select(under_way, MAX_BATCH_TRANSACTIONS)
        origin = self._origin_ready if not self._origin_in_flight else None
        deadline = next_deadline_ms(self.state)
        overdue = deadline is not None and deadline <= self.now_ms
        # On the way to a hand-over or a version batches may be empty: nobody should have to wait for work.
        passing = self.state.handover is not None or self.state.upgrade is not None
        overdue = (overdue or passing) and not self.replica.in_flight
        if not (chosen or origin or overdue):
            return None
        batch = Batch(
            timestamp_ms=max(self.now_ms, self.state.now_ms),
            origin=origin.origin if origin else None,
            chain_events=origin.chain_events if origin else (),
            transactions=tuple(item.data for item in chosen),
        )
        sequence = self.replica.executed + self.replica.in_flight + 1
        self._proposed_ids[sequence] = {item.tx_id for item in chosen}
        self._assembly.keep(dict(zip(batch.outline.transactions, batch.transactions, strict=True)))
        self._origin_in_flight = sequence if origin else self._origin_in_flight
        return Propose(batch=batch, now_ms=self.now_ms)

    def _waiting_since_ms(self) -> int | None:
        """Since when there is work that the ledger has not done: a stalled primary is measured by it."""
        since = [self.mempool.oldest_ms, self._origin_since_ms, self._passing_since_ms]
        deadline = next_deadline_ms(self.state)
        if deadline is not None and deadline <= self.now_ms:
            since.append(deadline)
        return min((at for at in since if at is not None), default=None)

    def _validate(self, request: Validate) -> Event | None:
        reason = fault_in(request.outline, self.now_ms)
        if reason is not None:
            return self._refuse(request, reason)
        batch, missing = self._assembly.start(request, self.now_ms)
        if batch is not None:
            return self._check_assembled(request, batch)
        if missing:
            self._send(self.members.primary(request.view), FetchBodies(tuple(missing)))
        return None

    def _refuse(self, request: Validate, reason: str) -> Validated:
        log.warning("proposal %d is not valid: %s", request.sequence, reason)
        return _verdict(request, None)

    def _check_assembled(self, request: Validate, batch: Batch) -> Event | None:
        reason = forgery_in(batch.transactions, self.members.domain)
        if reason is not None:
            return self._refuse(request, reason)
        if batch.origin is None:
            return _verdict(request, batch)
        proposal = Proposal(origin=batch.origin, chain_events=batch.chain_events)
        if len(self._held) < self._limits.window:
            self._held.append(Held(request, batch, proposal))
        return None

    def _bodies_arrived(self, transactions: tuple[bytes, ...]) -> list[Event]:
        """Proposals that were waiting for these transactions, checked."""
        if not len(self._assembly):
            return []
        complete = self._assembly.take(by_hash(transactions))
        return [event for item in complete if (event := self._check_assembled(*item)) is not None]

    def _send_bodies(self, to: int, contents: tuple[bytes, ...]) -> None:
        found: list[bytes] = []
        size = 0
        for content in contents:
            data = self._assembly.body(content)
            if data is not None and size + len(data) <= MAX_SERVED_BYTES:
                found.append(data)
                size += len(data)
        if found:
            self._send(to, Bodies(tuple(found)))

    def _fetch_missing(self) -> None:
        missing = self._assembly.due(self.replica.view, self.replica.executed, self.now_ms)
        if missing:
            self._send(None, FetchBodies(tuple(missing[:MAX_BATCH_TRANSACTIONS])))

    # Chain ---------------------------------------------------------------------------------------

    def chain_moved(self, proposal: Proposal, now_ms: int) -> None:
        """This member's chain node has new events; a primary orders them next."""
        current = self.state.origin.number if self.state.origin is not None else -1
        if proposal.origin.after == current:
            self._origin_ready = proposal
            self._origin_since_ms = self._origin_since_ms or now_ms

    def take_held(self) -> list[Held]:
        """Proposals that wait for the chain node's word; answer each with `confirm` or `hold` it again."""
        held, self._held = self._held, []
        return [
            item
            for item in held
            if item.request.view == self.replica.view and item.request.sequence > self.replica.executed
        ]

    def hold(self, item: Held) -> None:
        """The chain node cannot tell yet."""
        self._held.append(item)

    def confirm(self, item: Held, answer: bool) -> Event:
        """The chain node said whether a held proposal's events are what the chain said."""
        return _verdict(item.request, item.batch if answer else None)


def _verdict(request: Validate, batch: Batch | None) -> Validated:
    return Validated(view=request.view, sequence=request.sequence, digest=request.digest, batch=batch)
