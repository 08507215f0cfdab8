"""`AsyncClient`: the same client for programs that run an event loop.

Each call runs `Client`'s own method in a thread, so both do and check the same. Cancelling a call stops the
waiting for it, not the call: a `put` that was cancelled may still place its order.

Guarantees: the loop never waits for a socket or a disk; of `watch` at most one update waits unread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from offchain.answers import AccountView, OrderRow, OrderView, ValidationRow
from offchain.client.client import Claimed, Client, PlacedOrder, Reclaimed
from offchain.client.task_file import TaskFile
from offchain.economics.quotes import OrderEstimate
from offchain.watching import Update
from protocol.signer import Signer

Json = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient:
    """One client account on one network; see `Client` for what each method does and raises."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @classmethod
    def open(
        cls,
        network_file: str | Path,
        *,
        key_file: str | Path | None,
        data_dir: str | Path,
        signer: Signer | None = None,
    ) -> Self:
        """A client from files, as `Client.open`."""
        return cls(Client.open(network_file, key_file=key_file, data_dir=data_dir, signer=signer))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.network.close()

    async def put(
        self, task: TaskFile, *, reward_wei: int, deposit_wei: int | None = None, gateway: str
    ) -> PlacedOrder:
        """Order a model."""
        return await _beside(
            self.client.put, task, reward_wei=reward_wei, deposit_wei=deposit_wei, gateway=gateway
        )

    async def get(self, oid: bytes) -> tuple[bytes, Json]:
        """The winning model's file, and what the network says of it."""
        return await _beside(self.client.get, oid)

    async def orders(
        self,
        *,
        phase: str | None = None,
        kind: str | None = None,
        client: str | None = None,
        winner: str | None = None,
    ) -> list[OrderRow]:
        """Orders as one aggregator lists them."""

        def listed() -> list[OrderRow]:
            return list(self.client.orders(phase=phase, kind=kind, client=client, winner=winner))

        return await _beside(listed)

    async def order(self, oid: bytes) -> OrderView:
        """One order, as f + 1 aggregators describe it."""
        return await _beside(self.client.order, oid)

    async def validations(self, oid: bytes) -> tuple[ValidationRow, ...]:
        """Who staked on which score of an order's models."""
        return await _beside(self.client.validations, oid)

    async def account(self, account: bytes | None = None) -> AccountView:
        """An account's stakes and receipts."""
        return await _beside(self.client.account, account)

    async def estimate(self, task: TaskFile) -> OrderEstimate:
        """What comparable orders paid."""
        return await _beside(self.client.estimate, task)

    async def claim(self, account: bytes) -> Claimed:
        """Pay out every settled credit of ``account``."""
        return await _beside(self.client.claim, account)

    async def reclaim(self, oid: bytes) -> Reclaimed:
        """Take back the escrow of an own order that the network let lapse."""
        return await _beside(self.client.reclaim, oid)

    async def watch(self, oid: bytes) -> AsyncIterator[Update]:
        """The states of an order until it is settled; leaving the loop early ends the watching."""
        loop = asyncio.get_running_loop()
        updates: asyncio.Queue[Update | BaseException | None] = asyncio.Queue(maxsize=1)
        ended = threading.Event()

        def hand_over(item: Update | BaseException | None) -> None:
            asyncio.run_coroutine_threadsafe(updates.put(item), loop).result()

        def follow() -> None:
            last: BaseException | None = None
            try:
                for update in self.client.watch(oid, stop=ended.is_set):
                    if ended.is_set():
                        return
                    hand_over(update)
            except Exception as reason:  # whatever it is, it belongs to whoever watches
                last = reason
            if not ended.is_set():
                hand_over(last)

        thread = threading.Thread(target=follow, name="watch", daemon=True)
        thread.start()
        try:
            while (item := await updates.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()
            while not updates.empty():  # lets the thread go, should it wait to hand something over
                updates.get_nowait()


async def _beside(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    return await asyncio.to_thread(call, *arguments, **options)
