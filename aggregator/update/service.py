"""The members' side of a settlement: sign, exchange signatures, submit, wait for the chain.

Whose turn it is to submit rotates with the epoch and moves on after `patience_s`, so that a member whose
transaction is lost, or who is gone, only delays. Submitting twice is harmless: the contract applies an
epoch once. The ledger learns of success from the chain alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from aggregator.ledger.state import State
from aggregator.pbft.messages import LinkMessage, ReportSignature
from aggregator.update.collector import SignatureCollector
from protocol.chain.client import ChainClient
from protocol.crypto import Key
from protocol.errors import ChainError, InvalidSignature

log = logging.getLogger(__name__)

PERIOD_S: Final = 0.5
REPEAT_S: Final = 2.0


class UpdateService:
    """Drives settlements of one member."""

    def __init__(
        self,
        *,
        key: Key,
        chain: ChainClient,
        state: Callable[[], State],
        broadcast: Callable[[LinkMessage], None],
        patience_s: float,
    ) -> None:
        self._address = key.address
        self._chain = chain
        self._state = state
        self._broadcast = broadcast
        self._patience_s = patience_s
        self._collector = SignatureCollector(chain.domain, key)
        self.alarm: str | None = None

    def on_signature(self, message: ReportSignature) -> None:
        """Take in another member's signature; a bad one is only logged."""
        try:
            self._collector.add(message.digest, message.signature, self._state().committee.members)
        except InvalidSignature as reason:
            log.warning("a report signature for epoch %d is no good: %s", message.epoch, reason)

    async def run(self) -> None:
        """Look after the pending report until cancelled."""
        digest, since_s, said_s = b"", 0.0, 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(PERIOD_S)
            state = self._state()
            if state.report is None:
                self._collector.stop()
                digest, self.alarm = b"", None
                continue
            own = self._collector.start(state.report, state.committee)
            if self._collector.digest != digest:
                digest, since_s, said_s = self._collector.digest, clock(), 0.0
            if clock() - said_s >= REPEAT_S:
                said_s = clock()
                self._broadcast(ReportSignature(state.report.epoch, digest, own))
            turns = int((clock() - since_s) / self._patience_s)
            if self._is_turn(state, state.report.epoch + turns):
                await self._submit()

    def _is_turn(self, state: State, turn: int) -> bool:
        members = state.committee.members
        return bool(members) and members[turn % len(members)] == self._address

    async def _submit(self) -> None:
        bundle = self._collector.bundle()
        if bundle is None:
            return
        epoch = bundle.report.epoch
        try:
            if await asyncio.to_thread(self._chain.last_epoch) >= epoch:
                return
            receipt = await asyncio.to_thread(
                self._chain.settle, bundle.report, bundle.signers, bundle.signatures
            )
        except ChainError as reason:
            self.alarm = str(reason)
            log.warning("%s; another member tries next", reason)
            return
        self.alarm = None
        log.info("settled epoch %d with %d gas", epoch, receipt["gasUsed"])
