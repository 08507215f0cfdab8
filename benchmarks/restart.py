"""How long an aggregator takes from its start to its place in the ledger, after a long history.

    python -m benchmarks.restart [--json] [--transactions 1000000]

A committee of one orders so many signed transactions, with its journal on disk; then a new process opens
the journal and is timed from its first instruction to the ledger it ended with, interpreter and imports
included. The journal starts anew from a snapshot now and then: what is worked off does not grow with history.

Source: design section 11 ("resumes from its journal").
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from aggregator.journal.journal import Journal
from aggregator.ledger.root import state_root
from aggregator.member.member import Member
from aggregator.origin.origin import Proposal
from aggregator.pbft.messages import BatchOrigin
from aggregator.pbft.quorum import Members
from benchmarks._claims import claims, first_events
from protocol.chain_events import encode_event
from protocol.crypto import Key, keccak256
from protocol.typed_data import Domain

KEY: Final = Key(keccak256(b"benchmark member"))
MEMBERS: Final = Members(domain=Domain(31337, b"\x11" * 20), addresses=(KEY.address,))
CHUNK: Final = 2_048


def opened(folder: Path) -> tuple[Member, Journal]:
    """The member whose journal is in ``folder``."""
    journal = Journal.at(folder)
    return (
        Member(
            members=MEMBERS,
            key=KEY,
            treasury=bytes(20),
            journal=journal,
            send=lambda to, message: None,
        ),
        journal,
    )


def live(folder: Path, transactions: int) -> tuple[int, str]:
    """Order so many transactions; returns the last sequence number and the state root."""
    member, journal = opened(folder)
    member.recover()
    events, oid = first_events(MEMBERS.domain, MEMBERS.addresses)
    origin = BatchOrigin(-1, 0, keccak256(b"block 0"))
    now_ms = time.time_ns() // 1_000_000
    member.chain_moved(Proposal(origin=origin, chain_events=tuple(map(encode_event, events))), now_ms)
    member.tick(now_ms)
    for first in range(0, transactions, CHUNK):
        now_ms = time.time_ns() // 1_000_000
        items = claims(MEMBERS.domain, oid, min(CHUNK, transactions - first), first=first)
        answers = member.submit_all(items, now_ms)
        assert all(isinstance(answer, tuple) and answer[1] is None for answer in answers), answers[0]
        member.tick(now_ms)
        print(f"\r{first + len(items)} of {transactions} transactions", end="", file=sys.stderr)
    print(file=sys.stderr)
    assert not len(member.mempool), "all of them were ordered"
    journal.close()
    return member.state.sequence, state_root(member.state).hex()


def restart(folder: Path) -> dict[str, Any]:
    """In a process of its own: take the journal up again."""
    member, journal = opened(folder)
    member.recover()
    return {
        "sequence": member.state.sequence,
        "root": state_root(member.state).hex(),
        "replayed_batches": member.counters.events["batches"],
        "log_bytes": journal.size_bytes,
    }


def measure(transactions: int) -> dict[str, Any]:
    """One history and one restart."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "journal"
        sequence, root = live(folder, transactions)
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.restart", "--take-up", str(folder)]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
        found = json.loads(told.stdout)
        assert (found["sequence"], found["root"]) == (sequence, root), "the same ledger"
        size = sum(path.stat().st_size for path in folder.iterdir())
        return {
            "transactions": transactions,
            "seconds": round(seconds, 2),
            "batches": sequence,
            "replayed_batches": found["replayed_batches"],
            "log_bytes": found["log_bytes"],
            "folder_bytes": size,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restart")
    parser.add_argument("--transactions", type=int, default=1_000_000)
    parser.add_argument("--take-up", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.take_up is not None:
        print(json.dumps(restart(arguments.take_up)))
        return
    result = measure(arguments.transactions)
    if arguments.json:
        print(json.dumps({"config": {"committee": 1, "batch": CHUNK, "fsync": True}, "results": [result]}))
    else:
        for name, value in result.items():
            print(f"{name:18} {value}")


if __name__ == "__main__":
    main()
