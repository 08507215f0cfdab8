"""What the simulated network works on: orders from a scripted chain, claims and reveals from participants.

Phases run by ledger time, so batches are due even when nobody sends anything. Some transactions are meant to
be refused: by whom and why does not matter here, only that all members agree.
"""

from __future__ import annotations

import random

from aggregator.ledger.state import State
from aggregator.origin.origin import Proposal
from aggregator.pbft.messages import BatchOrigin
from protocol.chain_events import (
    AnyChainEvent,
    CommitteeChanged,
    OrderPlaced,
    ParameterChanged,
    Staked,
    encode_event,
)
from protocol.crypto import Key, commitment, keccak256
from protocol.roles import Role
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

BLOCK_MS = 1_000
PROVIDERS = [Key((1000 + index).to_bytes(32, "big")) for index in range(4)]
CLIENT = Key((2000).to_bytes(32, "big"))
FRAGMENTS = (b"\x01" * 32, b"\x02" * 32)
SALT = b"\x05" * 32


def _threshold(members: tuple[bytes, ...]) -> int:
    return len(members) - (len(members) - 1) // 3


class Workload:
    """A chain with a few orders, and participants who act on them."""

    def __init__(
        self, domain: Domain, members: tuple[bytes, ...], newcomers: tuple[bytes, ...], choose: random.Random
    ) -> None:
        self.committees = {1: members}
        """Members by epoch."""
        self.domain = domain
        self.choose = choose
        self.sent: list[bytes] = []
        self._nonces: dict[bytes, int] = {}
        self._start_ms: int | None = None
        self.orders = [self._order(number) for number in range(3)]
        self._blocks: dict[int, list[AnyChainEvent]] = {1: self._setup(members)}
        for number, order in enumerate(self.orders):
            event = OrderPlaced(
                oid=order_id(domain, order), order=order, block_hash=self.block_hash(2 + 2 * number)
            )
            self._blocks[2 + 2 * number] = [event]
        for number, newcomer in enumerate(newcomers):
            self._blocks[3 + 4 * number] = [self._change(2 + number, newcomer)]

    def _change(self, epoch: int, newcomer: bytes) -> CommitteeChanged:
        stay = list(self.committees[epoch - 1])
        if epoch > 2:
            stay.remove(self.choose.choice(stay))
        members = tuple(sorted([*stay, newcomer]))
        self.committees[epoch] = members
        return CommitteeChanged(epoch=epoch, members=members, threshold=_threshold(members))

    def appointed(self, now_ms: int) -> dict[int, tuple[bytes, ...]]:
        """The committees that the chain has named so far, by epoch."""
        head = self._head(now_ms)
        return {epoch: who for epoch, who in self.committees.items() if epoch == 1 or 4 * epoch - 5 <= head}

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

    @staticmethod
    def _setup(members: tuple[bytes, ...]) -> list[AnyChainEvent]:
        events: list[AnyChainEvent] = [
            ParameterChanged(key="reveal_s", value=4),
            ParameterChanged(key="update_s", value=2),
            CommitteeChanged(epoch=1, members=members, threshold=_threshold(members)),
        ]
        for key in PROVIDERS:
            stake = 10**21
            events.append(Staked(account=key.address, role=int(Role.PROVIDER), amount=stake, bonded=stake))
        return events

    @staticmethod
    def block_hash(number: int) -> bytes:
        """Hash of a block of the scripted chain."""
        return keccak256(b"block %d" % number)

    def _head(self, now_ms: int) -> int:
        self._start_ms = self._start_ms or now_ms
        return 1 + (now_ms - self._start_ms) // BLOCK_MS

    def propose(self, state: State, now_ms: int) -> Proposal | None:
        """What a primary at ``state`` would take in next; none if nothing happened."""
        after = state.origin.number if state.origin is not None else -1
        head = self._head(now_ms)
        events = self._encoded(after, head)
        if not events:
            return None
        return Proposal(origin=BatchOrigin(after, head, self.block_hash(head)), chain_events=events)

    def confirm(self, proposal: Proposal, state: State, now_ms: int) -> bool | None:
        """Whether a member's own chain node says the same; none if it cannot tell yet."""
        origin, current = proposal.origin, state.origin.number if state.origin is not None else -1
        if origin.number > self._head(now_ms) or origin.after != current:
            return None
        return origin.hash == self.block_hash(origin.number) and proposal.chain_events == self._encoded(
            origin.after, origin.number
        )

    def _encoded(self, after: int, number: int) -> tuple[bytes, ...]:
        return tuple(
            encode_event(event)
            for block in sorted(self._blocks)
            if after < block <= number
            for event in self._blocks[block]
        )

    def next_transaction(self, now_ms: int) -> bytes:
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
