"""Transactions to measure with: claims of many staked providers on one open order, all of them acceptable.

A provider may claim again and again with growing nonces, each claim replacing its last, so any number of them
is accepted; the ledger does for each what it does for a first one but lock the stake. Signed before the clock
starts.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from aggregator.ledger.state import Origin, State, genesis
from aggregator.ledger.transition import Block, apply_block
from protocol.chain_events import AnyChainEvent, CommitteeChanged, OrderPlaced, Staked
from protocol.crypto import Key, keccak256
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Claim, Order, order_id, sign_transaction
from protocol.typed_data import Domain

PROVIDERS: Final = 64
STAKE_WEI: Final = 1000 * TOKEN_WEI
TRAIN_WINDOW_S: Final = 30 * 86_400


def provider_key(number: int) -> Key:
    """The key of a provider."""
    return Key(keccak256(b"benchmark provider %d" % number))


def claim_order(client: bytes) -> Order:
    """An order that stays open for claims longer than any benchmark runs."""
    return Order(
        client=client,
        nonce=1,
        kind="open",
        reward=100 * TOKEN_WEI,
        deposit=10 * TOKEN_WEI,
        train_window=TRAIN_WINDOW_S,
        validate_window=3600,
        challenge_window=3600,
        task_hash=keccak256(b"task"),
        task_link="http://127.0.0.1:1/ipfs/task",
        data_root=keccak256(b"data"),
        baseline=0,
    )


def claims(domain: Domain, oid: bytes, count: int, *, first: int = 0) -> list[bytes]:
    """``count`` signed claims as they travel; a second call goes on after ``first`` earlier ones."""
    keys = [provider_key(number) for number in range(PROVIDERS)]
    signed = []
    for number in range(first, first + count):
        key = keys[number % PROVIDERS]
        body = Claim(
            sender=key.address,
            nonce=1_700_000_000_000 + number,
            oid=oid,
            commitment=keccak256(b"commitment %d" % number),
        )
        signed.append(sign_transaction(domain, body, key).encode())
    return signed


def first_events(domain: Domain, members: tuple[bytes, ...]) -> tuple[tuple[AnyChainEvent, ...], bytes]:
    """What the chain says before `claims` are accepted, and the order's OID."""
    order = claim_order(Key(keccak256(b"benchmark client")).address)
    oid = order_id(domain, order)
    events: tuple[AnyChainEvent, ...] = (
        CommitteeChanged(epoch=1, members=members, threshold=len(members)),
        *(
            Staked(
                account=provider_key(number).address,
                role=int(Role.PROVIDER),
                amount=STAKE_WEI,
                bonded=STAKE_WEI,
            )
            for number in range(PROVIDERS)
        ),
        OrderPlaced(oid=oid, order=order, block_hash=keccak256(oid)),
    )
    return events, oid


def ledger_with_order(domain: Domain, members: tuple[bytes, ...], now_ms: int) -> tuple[State, bytes]:
    """A ledger before its first batch in which `claims` are accepted, and the order's OID."""
    events, oid = first_events(domain, members)
    origin = Origin(number=0, hash=keccak256(b"block 0"))
    block = Block(sequence=1, timestamp_ms=now_ms, origin=origin, chain_events=events)
    state = apply_block(genesis(domain, bytes(20)), block).state
    return dataclasses.replace(state, sequence=0), oid
