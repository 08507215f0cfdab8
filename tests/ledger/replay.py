"""Replay recorded blocks in another process: ``python -m tests.ledger.replay FILE`` prints the state root.

Guarantee: nothing but the blocks goes in, so two processes that print the same root agree on the ledger.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from aggregator.ledger.root import state_root
from aggregator.ledger.state import Origin, genesis
from aggregator.ledger.transition import Block, apply_block
from protocol.chain_events import decode_event, encode_event
from tests.ledger.world import DOMAIN, TREASURY


def record(blocks: list[Block], path: Path) -> None:
    """Write blocks so that another process can read them."""
    lines = [
        {
            "sequence": block.sequence,
            "timestamp_ms": block.timestamp_ms,
            "origin": None if block.origin is None else [block.origin.number, block.origin.hash.hex()],
            "origin_after": block.origin_after,
            "chain_events": [encode_event(event).decode() for event in block.chain_events],
            "transactions": [data.hex() for data in block.transactions],
        }
        for block in blocks
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))


def replay(path: Path) -> bytes:
    """The state root after all blocks in ``path``."""
    state = genesis(DOMAIN, TREASURY)
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        origin = fields["origin"]
        block = Block(
            sequence=fields["sequence"],
            timestamp_ms=fields["timestamp_ms"],
            origin=None if origin is None else Origin(number=origin[0], hash=bytes.fromhex(origin[1])),
            origin_after=fields["origin_after"],
            chain_events=tuple(decode_event(item.encode()) for item in fields["chain_events"]),
            transactions=tuple(bytes.fromhex(item) for item in fields["transactions"]),
        )
        state = apply_block(state, block).state
    return state_root(state)


if __name__ == "__main__":
    print(replay(Path(sys.argv[1])).hex())
