"""Between consensus and ledger: what an honest primary proposes, and what the ledger makes of a batch.

Pure functions; the node, the simulator and the benchmarks share them.

Source: design section 6 (timestamp bounds), section 5 (origins).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aggregator.ledger.state import Origin
from aggregator.ledger.transition import Block, authenticated
from aggregator.pbft.messages import Batch, Outline
from protocol.chain_events import decode_event
from protocol.errors import ProtocolError
from protocol.typed_data import Domain

MAX_SKEW_MS: Final = 5_000
"""How far ahead of a member's clock a proposal may be."""
MAX_AGE_MS: Final = 60_000
"""How old a proposal may be when it arrives."""


def block_of(sequence: int, batch: Batch) -> Block:
    """The ledger's view of an ordered batch."""
    origin = batch.origin
    return Block(
        sequence=sequence,
        timestamp_ms=batch.timestamp_ms,
        origin=Origin(number=origin.number, hash=origin.hash) if origin is not None else None,
        origin_after=origin.after if origin is not None else -1,
        chain_events=tuple(decode_event(data) for data in batch.chain_events),
        transactions=batch.transactions,
    )


def fault_in(outline: Outline, now_ms: int) -> str | None:
    """What an honest primary would not have proposed; none if the outline is in order.

    Whether its chain events are what the chain said is another question: `aggregator.origin`.
    """
    if not now_ms - MAX_AGE_MS <= outline.timestamp_ms <= now_ms + MAX_SKEW_MS:
        return f"its time {outline.timestamp_ms} is not near {now_ms}"
    if outline.origin is None and outline.chain_events:
        return "it has chain events without an origin"
    if len(set(outline.transactions)) != len(outline.transactions):
        return "it names a transaction twice"
    try:
        for data in outline.chain_events:
            decode_event(data)
    except ProtocolError as reason:
        return str(reason)
    return None


def forgery_in(transactions: Iterable[bytes], domain: Domain) -> str | None:
    """Why a batch's transactions cannot have come from their senders; none if all did, each once."""
    seen = set()
    try:
        for data in transactions:
            _, tx_id = authenticated(domain, data)
            if tx_id in seen:
                return "it holds a transaction twice"
            seen.add(tx_id)
    except ProtocolError as reason:
        return str(reason)
    return None
