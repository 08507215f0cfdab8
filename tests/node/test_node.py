"""One aggregator's shell around the pure core, on a real chain: a committee of one needs nobody else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from aggregator.journal.journal import Journal
from aggregator.ledger.root import state_root
from aggregator.ledger.transition import ACCEPTED
from aggregator.member.assembly import by_hash
from aggregator.member.proposals import fault_in, forgery_in
from aggregator.node import Aggregator, now_ms
from aggregator.origin.origin import OriginSource
from aggregator.origin.reader import ChainReader
from aggregator.pbft.events import Propose, Validate, Validated
from aggregator.pbft.messages import Batch, BatchOrigin
from aggregator.pbft.quorum import Members
from protocol.crypto import Key
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Claim, order_id, sign_transaction
from tests.chain import Chain, running_chain
from tests.origin.test_origin import some_order

MEMBER = Key((5).to_bytes(32, "big"))
PROVIDER = Key((6).to_bytes(32, "big"))
CLIENT = Key((7).to_bytes(32, "big"))


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running_chain([MEMBER.address]) as running:
        running.fund(PROVIDER, 1000 * TOKEN_WEI).register(Role.PROVIDER, 200 * TOKEN_WEI, "", bytes(32))
        running.fund(CLIENT, 1000 * TOKEN_WEI).put(some_order(CLIENT))
        running.mine(15)
        yield running


def make_node(chain: Chain, folder: Path) -> tuple[Aggregator, Journal]:
    client = chain.client(MEMBER)
    journal = Journal.at(folder / "journal")
    node = Aggregator(
        members=Members(domain=client.domain, addresses=(MEMBER.address,)),
        key=MEMBER,
        treasury=bytes(20),
        journal=journal,
        origins=OriginSource(ChainReader(client)),
        confirmations=12,
        send=lambda to, message: None,
    )
    node.recover()
    return node, journal


def drive(chain: Chain, folder: Path, scenario: Callable[[Aggregator], Awaitable[None]]) -> None:
    """Run ``scenario`` beside a live node."""

    async def run() -> None:
        node, journal = make_node(chain, folder)
        task = asyncio.create_task(node.run())
        try:
            for _ in range(100):
                if node.state.table:
                    break
                await asyncio.sleep(0.1)
            assert node.state.table, "the order never arrived from the chain"
            await scenario(node)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            journal.close()

    asyncio.run(run())


def claim(chain: Chain, nonce: int) -> bytes:
    domain = chain.client(CLIENT).domain
    oid = order_id(domain, some_order(CLIENT))
    body = Claim(sender=PROVIDER.address, nonce=nonce, oid=oid, commitment=b"\x07" * 32)
    return sign_transaction(domain, body, PROVIDER).encode()


def test_a_transaction_is_ordered_and_its_outcome_known(chain: Chain, tmp_path: Path) -> None:
    async def scenario(node: Aggregator) -> None:
        tx_id, refusal = node.offer(claim(chain, 1))
        assert refusal is None
        ordered = await node.outcome(tx_id, 10)
        assert ordered is not None and ordered.result.code == ACCEPTED
        assert PROVIDER.address in next(iter(node.state.table.values())).task.claims

    drive(chain, tmp_path, scenario)


def test_a_transaction_ordered_twice_stays_accepted(chain: Chain, tmp_path: Path) -> None:
    """After a view change a batch can repeat a transaction; its sender must not hear that it was refused."""

    async def scenario(node: Aggregator) -> None:
        data = claim(chain, 1)
        tx_id, _ = node.submit(data, now_ms(), forward=False)
        await node.outcome(tx_id, 10)
        before = node.state.nonces
        node.round(deque([Propose(batch=Batch(now_ms(), None, (), (data,)), now_ms=now_ms())]))
        assert node.results[tx_id].result.code == ACCEPTED
        assert node.state.nonces == before
        assert node.submit(data, now_ms(), forward=False)[1] is not None, (
            "offered again, it is not pooled again"
        )
        assert tx_id not in node.mempool

    drive(chain, tmp_path, scenario)


def test_a_restart_rebuilds_the_same_ledger_and_goes_on(chain: Chain, tmp_path: Path) -> None:
    roots = []

    async def first(node: Aggregator) -> None:
        tx_id, _ = node.submit(claim(chain, 1), now_ms(), forward=False)
        await node.outcome(tx_id, 10)
        roots.append((node.state.sequence, state_root(node.state)))

    drive(chain, tmp_path, first)
    node, journal = make_node(chain, tmp_path)
    assert (node.state.sequence, state_root(node.state)) == roots[0]
    assert node.replica.executed == roots[0][0]
    journal.close()

    async def second(node: Aggregator) -> None:
        tx_id, _ = node.submit(claim(chain, 2), now_ms(), forward=False)
        ordered = await node.outcome(tx_id, 10)
        assert ordered is not None and ordered.sequence > roots[0][0]

    drive(chain, tmp_path, second)


def verdict_on(node: Aggregator, batch: Batch) -> Validated:
    """What the node says of a batch whose transactions have arrived."""
    node.now_ms = now_ms()
    node._assembly.keep(by_hash(batch.transactions))
    outline = batch.outline
    verdict = node._validate(Validate(view=0, sequence=1, digest=outline.digest(), outline=outline))
    assert isinstance(verdict, Validated)
    return verdict


def test_proposals_no_honest_primary_makes_are_not_voted_for(chain: Chain, tmp_path: Path) -> None:
    node, journal = make_node(chain, tmp_path)
    good = claim(chain, 1)
    for batch, reason in (
        (Batch(now_ms() + 60_000), "is not near"),
        (Batch(now_ms() - 3_600_000), "is not near"),
        (Batch(now_ms(), None, (b"{}",), ()), "chain events without an origin"),
        (Batch(now_ms(), None, (), (good, good)), "twice"),
        (Batch(now_ms(), BatchOrigin(-1, 5, bytes(32)), (b"garbage",), ()), "not a chain event"),
    ):
        fault = fault_in(batch.outline, now_ms())
        assert fault is not None and reason in fault
        assert verdict_on(node, batch).batch is None
    for transactions, reason in (
        ((b"garbage",), "not a transaction"),
        ((good[:-6] + b'AAAA"]',), ""),
    ):
        forgery = forgery_in(transactions, node.members.domain)
        assert forgery is not None and reason in forgery
        assert verdict_on(node, Batch(now_ms(), None, (), transactions)).batch is None
    right = Batch(now_ms(), None, (), (good,))
    assert verdict_on(node, right).batch == right
    journal.close()
