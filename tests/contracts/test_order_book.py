"""Put: an order that fits is escrowed once; its escrow leaves once, whole."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from contract_network import TOKEN, Network, make_order, pack_credits, settle

from protocol.crypto import Key
from protocol.parameters import DAY_S, DEFAULTS

LAPSE_S = 60 + 30 + 30 + DEFAULTS["reclaim_s"]


def test_an_order_is_escrowed_and_announced_under_its_digest(network: Network, client: Any) -> None:
    order = make_order(client)
    before = network.token.balanceOf(client)
    receipt = network.orders.put(order, sender=client)
    oid = network.orders.oidOf(order)
    event = next(log for log in receipt.events if log.event_name == "OrderPlaced")
    assert event.oid == oid and event.client == client.address
    assert list(event.order)[1:] == list(order.values())[1:]
    holder, amount, reclaimable_at = network.orders.escrowOf(oid)
    assert (holder, amount) == (client.address, 105 * TOKEN)
    assert reclaimable_at == ape.chain.blocks.head.timestamp + LAPSE_S
    assert network.token.balanceOf(network.settlement) == before - network.token.balanceOf(client)
    assert before - network.token.balanceOf(client) == 105 * TOKEN


def test_the_same_order_is_placed_once_also_after_it_left(
    network: Network, client: Any, treasury: Any, members: list[Key], placed: bytes
) -> None:
    with ape.reverts(network.orders.OrderBook__Repeated, oid=placed):
        network.orders.put(make_order(client), sender=client)
    settle(network, client, members, orders=placed, credits=pack_credits([(treasury, 105 * TOKEN)]))
    with ape.reverts(network.orders.OrderBook__Repeated, oid=placed):
        network.orders.put(make_order(client), sender=client)
    network.orders.put(make_order(client, nonce=2), sender=client)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"reward": 10 * TOKEN - 1}, "OrderBook__RewardTooSmall"),
        ({"deposit": 5 * TOKEN - 1}, "OrderBook__DepositTooSmall"),
        ({"trainWindow": 9}, "OrderBook__WindowOutOfBounds"),
        ({"trainWindow": 30 * DAY_S + 1}, "OrderBook__WindowOutOfBounds"),
        ({"validateWindow": 3}, "OrderBook__WindowOutOfBounds"),
        ({"validateWindow": 7 * DAY_S + 1}, "OrderBook__WindowOutOfBounds"),
        ({"challengeWindow": 3}, "OrderBook__WindowOutOfBounds"),
        ({"challengeWindow": 7 * DAY_S + 1}, "OrderBook__WindowOutOfBounds"),
        ({"kind": ""}, "OrderBook__KindLength"),
        ({"kind": "k" * 32}, "OrderBook__KindLength"),
        ({"taskLink": "x" * 513}, "OrderBook__TaskLinkTooLong"),
    ],
)
def test_an_order_out_of_bounds_is_refused_and_no_money_moves(
    network: Network, client: Any, changes: dict[str, Any], error: str
) -> None:
    before = network.token.balanceOf(client)
    with ape.reverts(getattr(network.orders, error)):
        network.orders.put(make_order(client, **changes), sender=client)
    assert network.token.balanceOf(client) == before


def test_the_refusal_names_the_window(network: Network, client: Any) -> None:
    window = b"validate".ljust(32, b"\0")
    with ape.reverts(
        network.orders.OrderBook__WindowOutOfBounds, window=window, have=3, low=4, high=7 * DAY_S
    ):
        network.orders.put(make_order(client, validateWindow=3), sender=client)


def test_an_order_at_its_bounds_is_taken(network: Network, client: Any) -> None:
    order = make_order(
        client, reward=10 * TOKEN, deposit=TOKEN // 2, trainWindow=10, kind="k" * 31, taskLink="x" * 512
    )
    network.orders.put(order, sender=client)


def test_nobody_places_an_order_for_another(network: Network, client: Any, stranger: Any) -> None:
    with ape.reverts(network.orders.OrderBook__NotClient, have=stranger, need=client):
        network.orders.put(make_order(client), sender=stranger)


def test_an_order_beyond_the_clients_funds_is_refused(network: Network, client: Any) -> None:
    with ape.reverts(network.token.ERC20InsufficientBalance):
        network.orders.put(make_order(client, reward=10_000 * TOKEN, deposit=500 * TOKEN), sender=client)


def test_only_settlement_consumes(network: Network, deployer: Any, placed: bytes) -> None:
    with ape.reverts(network.orders.Wired__NotSettlement):
        network.orders.consume(placed, sender=deployer)


def test_a_consumed_order_leaves_whole(
    network: Network, client: Any, treasury: Any, members: list[Key], placed: bytes
) -> None:
    settle(network, client, members, orders=placed, credits=pack_credits([(treasury, 105 * TOKEN)]))
    assert network.token.balanceOf(network.settlement) == 105 * TOKEN
    assert network.orders.escrowOf(placed)[1] == 0


def test_an_order_is_consumed_once(network: Network, client: Any, members: list[Key], placed: bytes) -> None:
    with ape.reverts(network.orders.OrderBook__NotAscending):
        settle(network, client, members, orders=placed + placed)
    settle(network, client, members, orders=placed, credits=pack_credits([(client, 105 * TOKEN)]))
    with ape.reverts(network.orders.OrderBook__NothingEscrowed, oid=placed):
        settle(network, client, members, orders=placed)


def test_unknown_and_half_ids_are_refused(network: Network, client: Any, members: list[Key]) -> None:
    with ape.reverts(network.orders.OrderBook__NothingEscrowed):
        settle(network, client, members, orders=b"\x01" * 32)
    with ape.reverts(network.orders.OrderBook__OidsUnpacked):
        settle(network, client, members, orders=b"\x01" * 31)


def test_a_lapsed_order_goes_back_to_its_client_without_any_committee(
    network: Network, client: Any, placed: bytes
) -> None:
    with ape.reverts(network.orders.OrderBook__ReclaimTooEarly):
        network.orders.reclaim(placed, sender=client)
    ape.chain.mine(deltatime=LAPSE_S)
    before = network.token.balanceOf(client)
    receipt = network.orders.reclaim(placed, sender=client)
    reclaimed = network.orders.OrderReclaimed(oid=placed, client=client, amount=105 * TOKEN)
    assert reclaimed in receipt.events
    assert network.token.balanceOf(client) == before + 105 * TOKEN
    with ape.reverts(network.orders.OrderBook__NothingEscrowed):
        network.orders.reclaim(placed, sender=client)


def test_a_later_vote_does_not_move_the_clients_way_out(
    network: Network, client: Any, deployer: Any, placed: bytes
) -> None:
    network.parameters.set(b"reclaim_s".ljust(32, b"\0"), 365 * DAY_S, sender=deployer)
    ape.chain.mine(deltatime=LAPSE_S)
    network.orders.reclaim(placed, sender=client)


def test_nobody_else_reclaims(network: Network, client: Any, stranger: Any, placed: bytes) -> None:
    ape.chain.mine(deltatime=LAPSE_S)
    with ape.reverts(network.orders.OrderBook__NotClient, have=stranger, need=client):
        network.orders.reclaim(placed, sender=stranger)
    with ape.reverts(network.orders.OrderBook__NothingEscrowed):
        network.orders.reclaim(b"\x05" * 32, sender=client)
