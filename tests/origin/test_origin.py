"""What the ledger takes in from a real chain: the same for every honest reader, whatever is on the chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account

from aggregator.ledger.state import Origin, genesis
from aggregator.origin.origin import OriginSource, Proposal
from aggregator.origin.reader import ChainReader
from aggregator.pbft.messages import BatchOrigin
from protocol.chain.client import ChainClient, order_tuple
from protocol.chain_events import (
    CommitteeChanged,
    EndpointChanged,
    OrderPlaced,
    ParameterChanged,
    Staked,
    UnstakeRequested,
    decode_event,
)
from protocol.crypto import Key
from protocol.errors import ChainError
from protocol.parameters import PARAMETERS, TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Order, order_id
from tests.chain import Chain, running_chain
from tests.ledger.world import DOMAIN, START_MS, TREASURY, World


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running_chain() as running:
        yield running


def sources(chain: Chain, count: int = 2) -> list[OriginSource]:
    return [OriginSource(ChainReader(chain.client(Key.generate()))) for _ in range(count)]


def some_order(client: Key, nonce: int = 1) -> Order:
    return Order(
        client=client.address,
        nonce=nonce,
        kind="open",
        reward=100 * TOKEN_WEI,
        deposit=5 * TOKEN_WEI,
        train_window=60,
        validate_window=60,
        challenge_window=60,
        task_hash=b"\x01" * 32,
        task_link="http://127.0.0.1:1/ipfs/x",
        data_root=b"\x02" * 32,
        baseline=-5,
    )


def send_with_broken_text(chain: Chain, account: ChainClient, call: Any, text: str) -> None:
    """Send a contract call with the bytes of ``text`` replaced by as many that are not UTF-8."""
    assert isinstance(account._signer, Key)
    sender = Account.from_key(account._signer.secret)
    built = call.build_transaction({"from": sender.address, "gas": 500_000})
    assert text.encode().hex() in built["data"]
    fields = {
        "to": built["to"],
        "data": built["data"].replace(text.encode().hex(), "ff" * len(text)),
        "gas": 500_000,
        "gasPrice": chain.web3.eth.gas_price,
        "nonce": chain.web3.eth.get_transaction_count(sender.address),
        "chainId": account.book.chain_id,
    }
    sent = chain.web3.eth.send_raw_transaction(sender.sign_transaction(fields).raw_transaction)
    assert chain.web3.eth.wait_for_transaction_receipt(sent)["status"] == 1


def test_everything_that_concerns_the_ledger_is_read_in_chain_order(chain: Chain) -> None:
    client, node = Key.generate(), Key.generate()
    placed = some_order(client)
    chain.fund(client, 1000 * TOKEN_WEI).put(placed)
    staking = chain.fund(node, 1000 * TOKEN_WEI)
    staking.register(Role.VALIDATOR, 300 * TOKEN_WEI, "http://127.0.0.1:2", b"\x03" * 32)
    staking.request_unstake(Role.VALIDATOR, 100 * TOKEN_WEI)
    first, second = sources(chain)
    proposal = first.propose(None, 0)
    assert proposal is not None and second.confirm(proposal, None, 0) is True
    events = [decode_event(data) for data in proposal.chain_events]
    assert sum(isinstance(event, ParameterChanged) for event in events) == len(PARAMETERS)
    assert any(isinstance(event, CommitteeChanged) and event.epoch == 1 for event in events)
    tail = [
        event
        for event in events
        if isinstance(event, OrderPlaced | Staked | EndpointChanged | UnstakeRequested)
    ]
    kinds = [type(event) for event in tail]
    assert kinds[0] is OrderPlaced and kinds[-1] is UnstakeRequested
    order = tail[0]
    assert isinstance(order, OrderPlaced) and order.order == placed
    assert order.oid == order_id(chain.client(client).domain, placed)
    staked = next(event for event in tail if isinstance(event, Staked))
    assert (staked.account, staked.role, staked.amount) == (node.address, Role.VALIDATOR, 300 * TOKEN_WEI)


def test_a_proposal_with_other_events_or_another_block_is_not_confirmed(chain: Chain) -> None:
    first, second = sources(chain)
    good = first.propose(None, 0)
    assert good is not None
    fewer = Proposal(origin=good.origin, chain_events=good.chain_events[:-1])
    assert second.confirm(fewer, None, 0) is False
    other = BatchOrigin(good.origin.after, good.origin.number, bytes(32))
    assert second.confirm(Proposal(origin=other, chain_events=good.chain_events), None, 0) is False


def test_a_block_that_is_not_there_yet_means_later_not_no(chain: Chain) -> None:
    first, second = sources(chain)
    good = first.propose(None, 0)
    assert good is not None
    assert second.confirm(good, None, 5) is None
    chain.mine(5)
    assert second.confirm(good, None, 5) is True


def test_without_events_there_is_nothing_to_propose(chain: Chain) -> None:
    source = sources(chain, 1)[0]
    good = source.propose(None, 0)
    assert good is not None
    current = Origin(number=good.origin.number, hash=good.origin.hash)
    chain.mine(3)
    assert source.propose(current, 0) is None


def test_an_order_whose_text_is_not_utf8_does_not_stop_the_ledger(chain: Chain) -> None:
    """Anyone can put bytes on the chain that are no text; such an order is left to its client to reclaim."""
    client = Key.generate()
    account = chain.fund(client, 1000 * TOKEN_WEI)
    order = some_order(client, nonce=9)
    account.approve(account.book.orders, 200 * TOKEN_WEI)
    before = sources(chain, 1)[0].propose(None, 0)
    assert before is not None
    send_with_broken_text(
        chain, account, account.orders.functions.put(order_tuple(order)), "http://127.0.0.1:1/ipfs/x"
    )
    good = some_order(client, nonce=10)
    chain.fund(client, 1000 * TOKEN_WEI).put(good)
    first, second = sources(chain)
    proposal = first.propose(None, 0)
    assert proposal is not None and second.confirm(proposal, None, 0) is True
    new = [decode_event(data) for data in proposal.chain_events[len(before.chain_events) :]]
    assert [event.order for event in new if isinstance(event, OrderPlaced)] == [good]


def test_an_endpoint_that_is_not_utf8_leaves_the_older_one_in_force(chain: Chain) -> None:
    """The ledger takes no change in, peers and clients read no endpoint, and the others' stay readable."""
    node, other = Key.generate(), Key.generate()
    account = chain.fund(node, 1000 * TOKEN_WEI)
    account.register(Role.VALIDATOR, 300 * TOKEN_WEI, "http://127.0.0.1:2", b"\x03" * 32)
    before = sources(chain, 1)[0].propose(None, 0)
    assert before is not None
    text = "http://127.0.0.1:3"
    send_with_broken_text(chain, account, account.registry.functions.setEndpoint(text, b"\x04" * 32), text)
    chain.client(other).set_endpoint("http://127.0.0.1:4", b"\x05" * 32)
    first, second = sources(chain)
    proposal = first.propose(None, 0)
    assert proposal is not None and second.confirm(proposal, None, 0) is True
    new = [decode_event(data) for data in proposal.chain_events[len(before.chain_events) :]]
    assert [(event.account, event.endpoint) for event in new if isinstance(event, EndpointChanged)] == [
        (other.address, "http://127.0.0.1:4")
    ]
    ledger = World(genesis(DOMAIN, TREASURY), [], [])
    ledger.block(at_ms=START_MS, events=[decode_event(data) for data in proposal.chain_events])
    assert ledger.state.nodes[node.address].endpoint == "http://127.0.0.1:2"
    assert account.endpoint_of(node.address) == ("", bytes(32))
    assert account.endpoint_of(other.address) == ("http://127.0.0.1:4", b"\x05" * 32)


def test_a_reorganisation_below_the_origin_halts_and_says_so(chain: Chain) -> None:
    source = sources(chain, 1)[0]
    snapshot = chain.rpc("evm_snapshot", [])
    chain.mine(2)
    client = Key.generate()
    chain.fund(client, 1000 * TOKEN_WEI).put(some_order(client, nonce=20))
    seen = source.propose(None, 0)
    assert seen is not None
    current = Origin(number=seen.origin.number, hash=seen.origin.hash)
    chain.rpc("evm_revert", [snapshot])
    chain.rpc("evm_increaseTime", [1000])
    chain.mine(20)
    assert source.propose(current, 0) is None
    assert source.alarm is not None and "reorganisation" in source.alarm


def test_a_dead_chain_node_is_a_typed_error() -> None:
    with running_chain() as short:
        source = sources(short, 1)[0]
        assert source.propose(None, 0) is not None
        short.process.terminate()
        short.process.wait(timeout=10)
        with pytest.raises(ChainError, match="cannot read the chain's head"):
            source.propose(None, 0)
