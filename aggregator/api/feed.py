"""The event stream: what the ledger did, as server-sent events whose ids all members agree on.

An id is ``SEQUENCE-INDEX``: the batch and the place of the event in it. Every member executes the same
batches, so a reader that was cut off goes on at any member with the last id it saw. What is only this
member's own (its view, a gap, a keep-alive comment) has no id.

Guarantees: at most `MAX_SUBSCRIBERS` readers, little more than `MAX_QUEUED_BYTES` waiting for each; who does
not read is cut off, and nobody waits for it meanwhile: everybody has a place of its own in the history.
Events are put into words once, however many listen, and not at all if nobody does. One turn puts at most
`TURN_WORDS` of them into words and hands at most `TURN_HANDED` out, then lets the replica run.

Source: design section 10; the format is the HTML standard's "server-sent events".
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import msgspec

from aggregator.api.views import hexed
from aggregator.ledger.events import (
    LedgerEvent,
    OrderSealed,
    OrderTaken,
    PenaltyImposed,
    PhaseEntered,
    ReportMade,
    ReportSettled,
)
from aggregator.member.history import Deed
from aggregator.node import Aggregator
from protocol.transactions import OrderTransaction, Transaction, decode_transaction

MAX_SUBSCRIBERS: Final = 128
MAX_SUBSCRIBERS_PER_ADDRESS: Final = 16
MAX_QUEUED_BYTES: Final = 512 * 1024
KEEP_ALIVE_S: Final = 15.0
LOOK_S: Final = 0.5
"""How often the member's own view is looked at while somebody listens."""
PATIENCE_S: Final = 20.0
"""A reader that takes nothing for so long although something waits is cut off."""
PACE_S: Final = 0.05
"""Least time between two turns, so that a fast ledger costs few of them."""
TURN_WORDS: Final = 512
TURN_HANDED: Final = 8_192

Json = dict[str, Any]
EventId = tuple[int, int]
END: Final = 1 << 30
"""More than the events of any batch."""
_ID: Final = re.compile(r"([0-9]{1,19})-([0-9]{1,9})")


def event_id(text: str) -> EventId | None:
    """The id in ``text``; none if it is none."""
    match = _ID.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def told(deed: Deed, index: int) -> tuple[str, Json]:
    """Name and data of one event of a batch: its transactions first, then what the ledger did by itself."""
    if index < len(deed.transactions):
        tx_id, data = deed.transactions[index]
        return _transaction(tx_id, decode_transaction(data).body, deed.at_ms)
    return _ledger_event(deed.events[index - len(deed.transactions)], deed.at_ms)


def _transaction(tx_id: bytes, body: Transaction, at_ms: int) -> tuple[str, Json]:
    data: Json = {
        "type": type(body).__name__,
        "id": hexed(tx_id),
        "sender": hexed(body.sender),
        "atMs": at_ms,
    }
    if isinstance(body, OrderTransaction):
        data["oid"] = hexed(body.oid)
    for name in ("mid", "vid"):
        if isinstance(value := getattr(body, name, None), bytes):
            data[name] = hexed(value)
    if isinstance(score := getattr(body, "score", None), int):
        data["score"] = str(score)
    return "transaction", data


def _ledger_event(event: LedgerEvent, at_ms: int) -> tuple[str, Json]:
    match event:
        case OrderTaken(oid=oid):
            return "order", {"oid": hexed(oid), "atMs": at_ms}
        case PhaseEntered(oid=oid, phase=phase):
            return "phase", {"oid": hexed(oid), "phase": str(phase), "atMs": at_ms}
        case OrderSealed(oid=oid):
            return "sealed", {"oid": hexed(oid), "atMs": at_ms}
        case PenaltyImposed(penalty=penalty):
            slash = penalty.slash
            return "penalty", {
                "id": hexed(penalty.id),
                "account": hexed(slash.account),
                "amountWei": str(slash.amount_wei),
                "atMs": at_ms,
            }
        case ReportMade(report=report):
            orders = [hexed(oid) for oid in report.orders]
            return "report", {"epoch": report.epoch, "orders": orders, "atMs": at_ms}
        case ReportSettled(settlement=settlement):
            return "settlement", {
                "epoch": settlement.report.epoch,
                "tx": hexed(settlement.transaction_hash),
                "gasUsed": settlement.gas_used,
                "orders": [hexed(oid) for oid in settlement.report.orders],
                "atMs": at_ms,
            }


def frame(name: str, data: Json, identifier: str | None = None) -> bytes:
    """One server-sent event."""
    # JSON has no line breaks outside strings and escapes those inside: one data line holds it.
    first = b"" if identifier is None else b"id: %s\n" % identifier.encode()
    return first + b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


def _later(deeds: deque[Deed], after: EventId) -> Iterator[tuple[Deed, int]]:
    """The events behind an id, oldest first."""
    start = bisect.bisect_left(deeds, after[0], key=lambda deed: deed.sequence)
    for place in range(start, len(deeds)):
        deed = deeds[place]
        first = after[1] + 1 if deed.sequence == after[0] else 0
        for index in range(first, deed.count):
            yield deed, index


class TooManyReaders(Exception):
    """No room for another reader of the stream."""


class Subscriber:
    """One reader: how far it is in the history, and the bytes that wait for it to read them."""

    def __init__(self, address: str, after: EventId, now_s: float) -> None:
        self.address = address
        self.after = after
        """The last event that was handed to it."""
        self.cut_off = False
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._since_s = now_s
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether anything more may wait for it."""
        return self._bytes < MAX_QUEUED_BYTES

    def put(self, data: bytes, now_s: float) -> None:
        """Let bytes wait."""
        if not self._waiting:
            self._since_s = now_s
        self._waiting.append(data)
        self._bytes += len(data)
        self._arrived.set()

    def cut_off_if_stuck(self, now_s: float) -> None:
        """Give a reader up that has let something wait for `PATIENCE_S`."""
        if self._waiting and now_s - self._since_s > PATIENCE_S:
            self.cut_off = True
            self._waiting.clear()
            self._arrived.set()
            self._left.set()

    async def given_up(self) -> None:
        """Returns once the reader is cut off."""
        await self._left.wait()

    async def take(self, timeout_s: float) -> bytes:
        """What waits, all of it; empty if nothing came in time or the reader was cut off."""
        if not self._waiting and not self.cut_off:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return data


class Feed:
    """The stream of one aggregator."""

    def __init__(self, node: Aggregator, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._subscribers: deque[Subscriber] = deque(maxlen=MAX_SUBSCRIBERS)
        self._pump: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._words: dict[int, list[bytes | None]] = {}
        """Per batch its events as they leave, once put into words; only of what the history still holds."""
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._subscribers)

    def subscribe(self, address: str, after: EventId | None) -> Subscriber:
        """A new reader, of everything after an id or of what comes from now on.

        Raises:
            TooManyReaders: in all, or from this address.
        """
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise TooManyReaders(f"{MAX_SUBSCRIBERS} readers follow this aggregator already; ask another")
        if sum(one.address == address for one in self._subscribers) >= MAX_SUBSCRIBERS_PER_ADDRESS:
            raise TooManyReaders(f"{MAX_SUBSCRIBERS_PER_ADDRESS} streams run to {address} already; close one")
        history = self._node.history
        subscriber = Subscriber(address, after if after is not None else (history.top, END), self._clock())
        subscriber.put(self._view_frame(), self._clock())
        self._subscribers.append(subscriber)
        self.counters["subscribed"] += 1
        history.on_news = self._news.set
        self._news.set()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a reader."""
        if subscriber not in self._subscribers:
            return
        self._subscribers.remove(subscriber)
        if subscriber.cut_off:
            self.counters["cut_off"] += 1
        if not self._subscribers:
            self._node.history.on_news = None
            self._words.clear()
            if self._pump is not None:
                self._pump.cancel()
                self._pump = None

    async def stream(self, subscriber: Subscriber) -> AsyncIterator[bytes]:
        """What a reader is sent until it leaves or is cut off."""
        yield b"retry: 2000\n\n"
        while not subscriber.cut_off:
            yield await subscriber.take(KEEP_ALIVE_S) or b": keep-alive\n\n"

    async def _run(self) -> None:
        """Hand out what is new while somebody listens."""
        view = self._view()
        while True:
            with contextlib.suppress(TimeoutError):  # then it is time to look at the view
                await asyncio.wait_for(self._news.wait(), LOOK_S)
            self._news.clear()
            if self._view() != view:
                view = self._view()
                for subscriber in self._subscribers:
                    subscriber.put(self._view_frame(), self._clock())
            if self._turn():
                self._news.set()
            await asyncio.sleep(PACE_S)

    def _turn(self) -> bool:
        """Give every reader some of what it lacks; whether there is more."""
        history = self._node.history
        for known in [sequence for sequence in self._words if sequence <= history.floor]:
            del self._words[known]
        self._subscribers.rotate(-1)  # who comes first may take most of a turn
        words, handed = TURN_WORDS, TURN_HANDED
        now_s = self._clock()
        for subscriber in self._subscribers:
            subscriber.cut_off_if_stuck(now_s)
            if subscriber.cut_off or not subscriber.has_room:
                continue
            if subscriber.after[0] < history.floor:
                subscriber.put(frame("gap", {"after": history.floor}), now_s)
                subscriber.after = (history.floor, END)
            for deed, index in _later(history.deeds, subscriber.after):
                if words <= 0 or handed <= 0:
                    return True
                if not subscriber.has_room:
                    break
                data, new = self._put_into_words(deed, index)
                words, handed = words - new, handed - 1
                subscriber.put(data, now_s)
                subscriber.after = (deed.sequence, index)
        return any(not one.cut_off and one.after < self._end() for one in self._subscribers)

    def _end(self) -> EventId:
        deeds = self._node.history.deeds
        return (deeds[-1].sequence, deeds[-1].count - 1) if deeds else (0, 0)

    def _put_into_words(self, deed: Deed, index: int) -> tuple[bytes, bool]:
        known = self._words.setdefault(deed.sequence, [None] * deed.count)
        data = known[index]
        if data is not None:
            return data, False
        name, told_data = told(deed, index)
        data = known[index] = frame(name, told_data, f"{deed.sequence}-{index}")
        return data, True

    def _view(self) -> tuple[int, int, bool, int]:
        replica = self._node.replica
        return replica.view, replica.primary, replica.active, self._node.members.epoch

    def _view_frame(self) -> bytes:
        view, primary, active, epoch = self._view()
        data = {"view": view, "primary": primary, "active": active, "committeeEpoch": epoch}
        return frame("view", data | {"sequence": self._node.history.top})
