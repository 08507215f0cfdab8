"""What the simulated network works on: orders, claims and reveals from participants.

Phases run by ledger time, so batches are due even when nobody sends anything. Some transactions are meant to
be refused: by whom and why does not matter here, only that all members agree.
"""

from __future__ import annotations

import random

from protocol.crypto import Key, commitment, keccak256
from protocol.transactions import (
    Claim,
    ClaimReveal,
    Order,
    TestRelease,
    Transaction,
    claim_body,
    data_root,
    order_id,
    sign_transaction,
)
from protocol.typed_data import Domain

PROVIDERS = [Key((1000 + index).to_bytes(32, "big")) for index in range(4)]
CLIENT = Key((2000).to_bytes(32, "big"))
FRAGMENTS = (b"\x01" * 32, b"\x02" * 32)
SALT = b"\x05" * 32


class Workload:
    """A few orders, and participants who act on them."""

    def __init__(self, domain: Domain, choose: random.Random) -> None:
        self.domain = domain
        self.choose = choose
        self.sent: list[bytes] = []
        self._nonces: dict[bytes, int] = {}
        self.orders = [self._order(number) for number in range(3)]

    @staticmethod
    def _order(number: int) -> Order:
        return Order(
            client=CLIENT.address,
            nonce=number,
            kind="open",
            reward=10**20,
            deposit=10**19,
            train_window=(8, 15, 3600)[number],
            validate_window=5,
            challenge_window=5,
            task_hash=bytes(32),
            task_link="http://127.0.0.1/ipfs/task",
            data_root=data_root(FRAGMENTS),
            baseline=0,
        )

    def next_transaction(self) -> bytes:
        """A claim, a reveal, a test release, or nonsense: signed, and so worth a place in a batch."""
        key = self.choose.choice(PROVIDERS)
        # The last order trains throughout: claims on it are good for a batch at any time.
        (order,) = self.choose.choices(self.orders, weights=(1, 1, 4))
        oid = order_id(self.domain, order)
        mid = keccak256(key.address + oid)
        body = claim_body(mid, 100)
        kind = self.choose.random()
        fields: dict[str, object] = {}
        cls: type[Transaction] = Claim
        if kind < 0.7:
            fields = {"commitment": commitment(oid, key.address, body, SALT)}
        elif kind < 0.92:
            cls, fields = (
                ClaimReveal,
                {"mid": mid, "size_bytes": 100, "links": ("http://x/ipfs/y",), "salt": SALT},
            )
        else:
            cls, key = TestRelease, CLIENT
            fields = {"fragments": FRAGMENTS, "links": ("http://x",)}
        self._nonces[key.address] = self._nonces.get(key.address, 0) + 1
        transaction = cls(sender=key.address, nonce=self._nonces[key.address], oid=oid, **fields)  # type: ignore[arg-type]
        data = sign_transaction(self.domain, transaction, key).encode()
        self.sent.append(data)
        return data
