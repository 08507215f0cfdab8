"""From contradicting votes to `Evidence` transactions: what a member does when another one has lied.

It signs the evidence with its own key and offers it to the pool like anyone's transaction; if several members
notice, the ledger takes the first. A lie is offered until the ledger has punished it, once in `AGAIN_MS`: a
refusal may heal with time, as when the liar's stake has not arrived from the chain yet.

Bounds: `MAX_ACCUSATIONS` lies are kept; more are not noted until one is done with. One lie is one member's
kind, view and sequence, whatever and however often it signed. What is kept is lost with the process: other
members noticed as well, and a liar that goes on lying is noticed again.

Source: design section 11 ("evidence kept and slashable").
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from aggregator.ledger.state import State
from aggregator.pbft.messages import Vote
from protocol.certificate import SignedVote
from protocol.crypto import Key
from protocol.errors import ProtocolError
from protocol.evidence import accused_in, evidence_fields, offence_id
from protocol.transactions import Evidence, sign_transaction
from protocol.typed_data import Domain

log = logging.getLogger(__name__)

MAX_ACCUSATIONS: Final = 256
MAX_OFFERED: Final = 8
"""Accusations offered at once: the pool bounds what one account may have waiting."""
AGAIN_MS: Final = 10_000


class Accusations:
    """Lies that one member noticed and that the ledger has not punished yet."""

    def __init__(self, domain: Domain, key: Key) -> None:
        self._domain = domain
        self._key = key
        self._waiting: dict[bytes, Evidence] = {}
        self._offered_ms: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, votes: tuple[Vote, Vote]) -> None:
        """Keep two contradicting votes, unless their lie is known or there is no room."""
        if len(self._waiting) >= MAX_ACCUSATIONS:
            return
        pair = [(_signed(vote), vote.signature) for vote in votes]
        try:
            evidence = Evidence(sender=self._key.address, nonce=0, **evidence_fields(pair[0], pair[1]))
            accused = accused_in(self._domain, evidence)
        except ProtocolError as reason:
            log.warning("what looked like evidence is none: %s", reason)
            return
        if accused != self._key.address:
            self._waiting.setdefault(offence_id(accused, evidence), evidence)

    def due(self, state: State, now_ms: int) -> list[bytes]:
        """Signed transactions to offer now; what ``state`` has punished is forgotten."""
        self._waiting = {lie: item for lie, item in self._waiting.items() if lie not in state.punished}
        self._offered_ms = {lie: at_ms for lie, at_ms in self._offered_ms.items() if lie in self._waiting}
        quiet = [lie for lie in self._waiting if now_ms - self._offered_ms.get(lie, 0) >= AGAIN_MS]
        nonce = max(state.nonces.get(self._key.address, -1) + 1, now_ms)
        offered = []
        for place, lie in enumerate(quiet[:MAX_OFFERED]):
            self._offered_ms[lie] = now_ms
            body = msgspec.structs.replace(self._waiting[lie], nonce=nonce + place)
            offered.append(sign_transaction(self._domain, body, self._key).encode())
        return offered


def _signed(vote: Vote) -> SignedVote:
    return SignedVote(kind=int(vote.kind), view=vote.view, sequence=vote.sequence, digest=vote.digest)
