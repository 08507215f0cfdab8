"""What an aggregator's memory holds per open order, and what is left of an order once it is settled.

    python -m benchmarks.memory [--json] [--orders 200] [--rounds 3]

Rounds of orders go through a whole life in the ledger: three providers claim and reveal, three validators
commit and reveal, the order is sealed and the chain applies the settlement. Bytes are what Python's allocator
holds more than before (tracemalloc). What an open order holds is read when everything is revealed. After
settlement the ledger's share (which every checkpoint hashes) and the archive's (read model; in snapshots, the
latest `MAX_SETTLED_ORDERS` orders) are told apart by leaving the archive out in a run of its own.

Source: design section 4 ("settled: the ledger drops the order's working data and keeps its receipt root").
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import tracemalloc
from collections.abc import Iterable
from typing import Any, Final

from aggregator.ledger import transition
from aggregator.ledger.state import Origin, State, genesis
from aggregator.ledger.transition import ACCEPTED, Block, apply_block, next_deadline_ms
from aggregator.member.archive import Archive
from protocol.chain_events import AnyChainEvent, CommitteeChanged, OrderPlaced, Settled, Staked
from protocol.crypto import Key, commitment, keccak256
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import (
    Claim,
    ClaimReveal,
    Order,
    TestRelease,
    Transaction,
    Validation,
    ValidationReveal,
    claim_body,
    data_root,
    order_id,
    score_body,
    sign_transaction,
)
from protocol.typed_data import Domain

DOMAIN: Final = Domain(31337, b"\x11" * 20)
CLIENT: Final = Key(keccak256(b"memory client"))
PROVIDERS: Final = tuple(Key(keccak256(b"memory provider %d" % number)) for number in range(3))
VALIDATORS: Final = tuple(Key(keccak256(b"memory validator %d" % number)) for number in range(3))
FRAGMENTS: Final = tuple(keccak256(b"fragment %d" % number) for number in range(10))
LINK: Final = "http://127.0.0.1:4001/ipfs/" + "b" * 59
SALT: Final = b"\x07" * 32
STAKE_WEI: Final = 10**6 * TOKEN_WEI


def mid_of(provider: Key, oid: bytes) -> bytes:
    """The id of a provider's model."""
    return keccak256(provider.address + oid)


class Life:
    """A ledger and its archive, and the people who use them."""

    def __init__(self, archive: Archive | None) -> None:
        self.state: State = genesis(DOMAIN, bytes(20))
        self.archive = archive
        self._nonce = 0
        members = tuple(sorted(key.address for key in VALIDATORS))
        staked = [(key, Role.PROVIDER) for key in PROVIDERS] + [(key, Role.VALIDATOR) for key in VALIDATORS]
        self._block(
            events=[
                CommitteeChanged(epoch=1, members=members, threshold=3),
                *(
                    Staked(account=key.address, role=int(role), amount=STAKE_WEI, bonded=STAKE_WEI)
                    for key, role in staked
                ),
            ],
            at_ms=1_700_000_000_000,
        )

    def _block(
        self,
        events: Iterable[AnyChainEvent] = (),
        transactions: Iterable[bytes] = (),
        at_ms: int | None = None,
    ) -> None:
        events, before = tuple(events), self.state.origin.number if self.state.origin else -1
        applied = apply_block(
            self.state,
            Block(
                sequence=self.state.sequence + 1,
                timestamp_ms=self.state.now_ms if at_ms is None else at_ms,
                origin=Origin(number=before + 1, hash=keccak256(b"%d" % (before + 1))) if events else None,
                origin_after=before,
                chain_events=events,
                transactions=tuple(transactions),
            ),
        )
        assert all(result.code == ACCEPTED for result in applied.results), applied.results
        self.state = applied.state
        if self.archive is not None:
            self.archive.listen(applied.events)

    def _signed(self, key: Key, kind: type[Transaction], **fields: Any) -> bytes:
        self._nonce += 1
        return sign_transaction(DOMAIN, kind(sender=key.address, nonce=self._nonce, **fields), key).encode()

    def _wait_until(self, oids: list[bytes], phase: str) -> None:
        """Let ledger time pass until all orders are in a phase."""
        while any(self.state.table[oid].task.phase != phase for oid in oids):
            at_ms = next_deadline_ms(self.state)
            assert at_ms is not None
            self._block(at_ms=at_ms)

    def open(self, count: int) -> list[bytes]:
        """So many orders up to where everything is known: claims and validations revealed."""
        oids = []
        for _ in range(count):
            self._nonce += 1
            order = Order(
                client=CLIENT.address,
                nonce=self._nonce,
                kind="open",
                reward=100 * TOKEN_WEI,
                deposit=10 * TOKEN_WEI,
                train_window=600,
                validate_window=600,
                challenge_window=600,
                task_hash=keccak256(b"task"),
                task_link=LINK,
                data_root=data_root(FRAGMENTS),
                baseline=0,
            )
            oid = order_id(DOMAIN, order)
            oids.append(oid)
            self._block(events=[OrderPlaced(oid=oid, order=order, block_hash=keccak256(oid))])
            self._block(transactions=[self._claim(key, oid) for key in PROVIDERS])
        self._wait_until(oids, "reveal")
        for oid in oids:
            release = self._signed(CLIENT, TestRelease, oid=oid, fragments=FRAGMENTS, links=(LINK,))
            self._block(transactions=[*(self._claim_reveal(key, oid) for key in PROVIDERS), release])
        self._wait_until(oids, "validation")
        for oid in oids:
            self._block(transactions=[self._validation(key, oid) for key in VALIDATORS])
        self._wait_until(oids, "validation_reveal")
        for oid in oids:
            self._block(transactions=[self._validation_reveal(key, oid) for key in VALIDATORS])
        return oids

    def settle(self) -> None:
        """Seal all orders and let the chain apply every settlement that follows."""
        while self.state.table or self.state.report is not None:
            report = self.state.report
            if report is not None:
                digest = keccak256(b"tx %d" % report.epoch)
                settled = Settled(
                    epoch=report.epoch, root=bytes(32), transaction_hash=digest, gas_used=500_000
                )
                self._block(events=[settled])
            else:
                at_ms = next_deadline_ms(self.state)
                assert at_ms is not None
                self._block(at_ms=at_ms)

    def _claim(self, key: Key, oid: bytes) -> bytes:
        body = claim_body(mid_of(key, oid), 1_000_000)
        return self._signed(key, Claim, oid=oid, commitment=commitment(oid, key.address, body, SALT))

    def _claim_reveal(self, key: Key, oid: bytes) -> bytes:
        mid = mid_of(key, oid)
        return self._signed(
            key, ClaimReveal, oid=oid, mid=mid, size_bytes=1_000_000, links=(LINK,), salt=SALT
        )

    def _validation(self, key: Key, oid: bytes) -> bytes:
        mid = mid_of(PROVIDERS[VALIDATORS.index(key)], oid)
        said = commitment(oid, key.address, score_body(mid, 900_000, keccak256(mid)), SALT)
        return self._signed(key, Validation, oid=oid, mid=mid, commitment=said, v_stake=10 * TOKEN_WEI)

    def _validation_reveal(self, key: Key, oid: bytes) -> bytes:
        mid = mid_of(PROVIDERS[VALIDATORS.index(key)], oid)
        return self._signed(
            key, ValidationReveal, oid=oid, mid=mid, score=900_000, digest=keccak256(mid), salt=SALT
        )


def held_bytes() -> int:
    """Bytes that Python's allocator holds now, but for the bounded cache of signatures already checked."""
    transition._remembered.cache_clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def measure(orders: int, rounds: int, *, archive: bool) -> list[tuple[int, int, int]]:
    """Per round: bytes held by an open order, by the settled ones per 1,000, and by the encoded archive."""
    tracemalloc.start()
    life = Life(archive=Archive() if archive else None)
    rows = []
    for number in range(rounds):
        before = held_bytes()
        life.open(orders)
        opened = held_bytes()
        life.settle()
        after = held_bytes()
        encoded = len(life.archive.encode(life.state.settled_epoch)) if life.archive else 0
        rows.append(((opened - before) // orders, (after - before) * 1000 // orders, encoded))
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    tracemalloc.stop()
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--orders", type=int, default=200, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ledger = measure(arguments.orders, arguments.rounds, archive=False)
    both = measure(arguments.orders, arguments.rounds, archive=True)
    results = []
    for number in range(arguments.rounds):
        held, left, _ = ledger[number]
        encoded = both[number][2] - (both[number - 1][2] if number else 0)
        results.append(
            {
                "round": number + 1,
                "open_bytes_per_order": held,
                "ledger_bytes_per_1000_settled": left,
                "archive_bytes_per_1000_settled": both[number][1] - left,
                "snapshot_bytes_per_1000_settled": encoded * 1000 // arguments.orders,
            }
        )
    print("round  open order  ledger / 1,000 settled  archive / 1,000  in snapshots / 1,000")
    for row in results:
        print(
            f"{row['round']:5} {row['open_bytes_per_order']:9} B {row['ledger_bytes_per_1000_settled']:21} B"
            f" {row['archive_bytes_per_1000_settled']:14} B {row['snapshot_bytes_per_1000_settled']:19} B"
        )
    if arguments.json:
        config = {
            "orders": arguments.orders,
            "rounds": arguments.rounds,
            "claims": 3,
            "validations": 3,
            "python": platform.python_version(),
        }
        print(json.dumps({"config": config, "results": results}))


if __name__ == "__main__":
    main()
