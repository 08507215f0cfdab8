"""A network of one aggregator without a socket: real replica, ledger, journal and API over a chain in memory.

Guarantees: transactions sent to the API are ordered by real PBFT (a committee of one) and applied by the real
ledger; the clock is the member's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from aggregator.api.app import build_app
from aggregator.journal.journal import Journal
from aggregator.node import Aggregator
from aggregator.origin.origin import OriginSource
from aggregator.pbft.limits import Limits
from aggregator.pbft.quorum import Members
from protocol.chain_events import (
    AnyChainEvent,
    CommitteeChanged,
    OrderPlaced,
    ParameterChanged,
    Settled,
    Staked,
)
from protocol.crypto import keccak256
from protocol.roles import Role
from protocol.transactions import Order, Transaction, order_id, sign_transaction, transaction_to_json
from protocol.typed_data import Domain
from tests.ledger.world import DOMAIN, STAKE, TREASURY, World, key, who

PATIENCE_S = 60.0


@dataclass(slots=True)
class MemoryChain:
    """A chain in memory with the face of `ChainReader`."""

    blocks: list[list[AnyChainEvent]] = field(default_factory=list)
    first_block: int = 0

    def head(self) -> int:
        """Number of the last block."""
        return len(self.blocks) - 1

    def block_hash(self, number: int) -> bytes:
        """Hash of a block."""
        return keccak256(b"block %d" % number)

    def read(self, after: int, number: int) -> tuple[tuple[int, AnyChainEvent], ...]:
        """Events in blocks ``(after, number]``."""
        return tuple((n, event) for n in range(after + 1, number + 1) for event in self.blocks[n])


@dataclass(slots=True)
class Network:
    """One aggregator, its chain, and a client of its API."""

    node: Aggregator
    chain: MemoryChain
    app: FastAPI
    http: httpx.AsyncClient
    alarms: list[str]
    makes: World
    running: asyncio.Task[None]
    nonce: int = 100

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        """GET, with the status that must come back."""
        answer = await self.http.get(path, params=query)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert_error(answer)
        return answer.json()

    async def send(self, name: str, kind: type[Transaction], status: int = 200, **fields: Any) -> Any:
        """Sign a transaction and post it, waiting for its result."""
        self.nonce += 1
        body = kind(sender=who(name), nonce=self.nonce, **fields)
        document = transaction_to_json(sign_transaction(DOMAIN, body, key(name)))
        answer = await self.http.post("/v1/transactions", json=document, params={"wait_s": PATIENCE_S})
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert_error(answer)
        return answer.json()

    async def place(self, **changes: Any) -> bytes:
        """An order appears on the chain and reaches the ledger."""
        order: Order = self.makes.order(**changes)
        oid = order_id(DOMAIN, order)
        self.chain.blocks.append([OrderPlaced(oid=oid, order=order, block_hash=keccak256(oid))])
        await self.until(lambda: oid in self.node.state.table)
        return oid

    async def settle(self, transaction: bytes = b"t", gas_used: int = 7) -> None:
        """The chain applies the next report."""
        await self.until(lambda: self.node.state.report is not None)
        epoch = self.node.state.settled_epoch + 1
        self.chain.blocks.append(
            [Settled(epoch=epoch, root=bytes(32), transaction_hash=keccak256(transaction), gas_used=gas_used)]
        )
        await self.until(lambda: self.node.state.settled_epoch == epoch)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """The API on a real socket; its URL."""
        config = uvicorn.Config(
            self.app,
            port=0,
            lifespan="off",
            log_config=None,
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        try:
            await self.until(lambda: server.started)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving

    async def until(self, condition: Any) -> None:
        """Wait for the network to get there."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                if self.running.done():
                    await self.running  # raises what ended the aggregator
                await asyncio.sleep(0.01)


def assert_error(answer: httpx.Response) -> None:
    """Every error has one shape and says something."""
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "reason"}
    assert body["error"]["code"] and body["error"]["reason"]


@contextlib.asynccontextmanager
async def running(
    folder: Path, domain: Domain = DOMAIN, order_book: str | None = None
) -> AsyncIterator[Network]:
    """A network for the length of a test, of the contracts that ``domain`` names."""
    member = key("aggregator0")
    chain = MemoryChain()
    chain.blocks.append(
        [
            CommitteeChanged(epoch=1, members=(member.address,), threshold=1),
            ParameterChanged(key="confirmations", value=0),
            ParameterChanged(key="update_s", value=1),
            *(
                Staked(account=who(name), role=int(role), amount=STAKE, bonded=STAKE)
                for name, role in (
                    ("provider0", Role.PROVIDER),
                    ("validator0", Role.VALIDATOR),
                    ("verifier0", Role.VERIFIER),
                )
            ),
        ]
    )
    journal = Journal.at(folder / "journal")
    node = Aggregator(
        members=Members(domain=domain, addresses=(member.address,)),
        key=member,
        treasury=TREASURY,
        journal=journal,
        origins=OriginSource(chain),  # type: ignore[arg-type]
        confirmations=0,
        send=lambda to, message: None,
        limits=Limits(checkpoint_interval=4),
    )
    node.recover()
    alarms: list[str] = []
    app = build_app(node, lambda: list(alarms), order_book=order_book)
    task = asyncio.create_task(node.run())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://aggregator") as http:
        network = Network(node, chain, app, http, alarms, World(node.state, [], []), task)
        try:
            await network.until(lambda: node.state.nodes)
            yield network
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            journal.close()
