"""Stakes: in by registration, out only through a settlement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ape
import pytest
from contract_network import PROVIDER, TOKEN, VERIFIER, Network, pack_credits, pack_entry, settle

from protocol.crypto import Key

LINK_KEY = b"\x44" * 32
HERE = "http://127.0.0.1:8000"


def stake_of(network: Network, account: Any, role: int = PROVIDER) -> tuple[int, ...]:
    return tuple(network.registry.stakeOf(account, role))


def test_registration_takes_the_stake_and_tells_where_the_node_is(network: Network, provider: Any) -> None:
    receipt = network.registry.register(PROVIDER, 100 * TOKEN, HERE, LINK_KEY, sender=provider)
    staked = network.registry.Staked(account=provider, role=PROVIDER, amount=100 * TOKEN, bonded=100 * TOKEN)
    changed = network.registry.EndpointChanged(account=provider, endpoint=HERE, linkKey=LINK_KEY)
    assert staked in receipt.events and changed in receipt.events
    assert stake_of(network, provider) == (100 * TOKEN, 0, 0)
    assert network.token.balanceOf(network.registry) == 100 * TOKEN
    endpoint, link_key = network.registry.endpointOf(provider)
    assert (endpoint, bytes(link_key)) == (HERE, LINK_KEY)


def test_a_top_up_of_any_size_is_welcome_once_the_minimum_is_bonded(
    network: Network, provider: Any, staked: Callable[[int], None]
) -> None:
    staked(100 * TOKEN)
    staked(1)
    assert stake_of(network, provider) == (100 * TOKEN + 1, 0, 0)


def test_stakes_of_two_roles_are_apart(
    network: Network, provider: Any, staked: Callable[[int], None]
) -> None:
    staked(100 * TOKEN)
    network.registry.register(VERIFIER, 50 * TOKEN, HERE, LINK_KEY, sender=provider)
    assert stake_of(network, provider, VERIFIER) == (50 * TOKEN, 0, 0)
    assert stake_of(network, provider) == (100 * TOKEN, 0, 0)


@pytest.mark.parametrize(
    ("role", "amount", "endpoint", "error"),
    [
        (0, 100 * TOKEN, HERE, "NodeRegistry__RoleUnknown"),
        (5, 100 * TOKEN, HERE, "NodeRegistry__RoleUnknown"),
        (1, 0, HERE, "NodeRegistry__AmountZero"),
        (1, 100 * TOKEN - 1, HERE, "NodeRegistry__StakeTooSmall"),
        (2, 200 * TOKEN - 1, HERE, "NodeRegistry__StakeTooSmall"),
        (3, 50 * TOKEN - 1, HERE, "NodeRegistry__StakeTooSmall"),
        (4, 1000 * TOKEN - 1, HERE, "NodeRegistry__StakeTooSmall"),
        (1, 100 * TOKEN, "x" * 201, "NodeRegistry__EndpointTooLong"),
        (1, 100_000 * TOKEN, HERE, None),
    ],
)
def test_a_registration_that_does_not_fit_is_refused(
    network: Network, provider: Any, role: int, amount: int, endpoint: str, error: str | None
) -> None:
    expected = getattr(network.registry, error) if error else network.token.ERC20InsufficientBalance
    with ape.reverts(expected):
        network.registry.register(role, amount, endpoint, LINK_KEY, sender=provider)


def test_an_endpoint_changes_without_touching_the_stake(
    network: Network, provider: Any, staked: Callable[[int], None]
) -> None:
    staked(100 * TOKEN)
    receipt = network.registry.setEndpoint("http://127.0.0.1:9", LINK_KEY, sender=provider)
    assert receipt.events == [
        network.registry.EndpointChanged(account=provider, endpoint="http://127.0.0.1:9", linkKey=LINK_KEY)
    ]
    assert stake_of(network, provider) == (100 * TOKEN, 0, 0)


def test_unstaking_moves_stake_to_unbonding_and_leaves_it_slashable(
    network: Network, provider: Any, treasury: Any, members: list[Key], staked: Callable[[int], None]
) -> None:
    staked(150 * TOKEN)
    receipt = network.registry.requestUnstake(PROVIDER, 50 * TOKEN, sender=provider)
    assert receipt.events == [
        network.registry.UnstakeRequested(account=provider, role=PROVIDER, amount=50 * TOKEN)
    ]
    assert stake_of(network, provider) == (100 * TOKEN, 50 * TOKEN, 0)
    slash = pack_entry(provider, PROVIDER, 120 * TOKEN)
    receipt = settle(
        network, provider, members, slashes=slash, credits=pack_credits([(treasury, 120 * TOKEN)])
    )
    assert network.registry.Slashed(account=provider, role=PROVIDER, amount=120 * TOKEN) in receipt.events
    assert stake_of(network, provider) == (0, 30 * TOKEN, 0)


@pytest.mark.parametrize(
    ("amount", "error"),
    [
        (0, "NodeRegistry__AmountZero"),
        (1, "NodeRegistry__StakeTooSmall"),
        (100 * TOKEN + 1, "NodeRegistry__StakeMissing"),
    ],
)
def test_unstaking_leaves_nothing_or_the_minimum(
    network: Network, provider: Any, staked: Callable[[int], None], amount: int, error: str
) -> None:
    staked(100 * TOKEN)
    with ape.reverts(getattr(network.registry, error)):
        network.registry.requestUnstake(PROVIDER, amount, sender=provider)


def test_released_stake_is_withdrawn_once(
    network: Network, provider: Any, members: list[Key], staked: Callable[[int], None]
) -> None:
    staked(100 * TOKEN)
    network.registry.requestUnstake(PROVIDER, 100 * TOKEN, sender=provider)
    with ape.reverts(network.registry.NodeRegistry__AmountZero):
        network.registry.withdraw(PROVIDER, sender=provider)
    receipt = settle(network, provider, members, releases=pack_entry(provider, PROVIDER, 100 * TOKEN))
    assert network.registry.Released(account=provider, role=PROVIDER, amount=100 * TOKEN) in receipt.events
    before = network.token.balanceOf(provider)
    receipt = network.registry.withdraw(PROVIDER, sender=provider)
    assert network.registry.Withdrawn(account=provider, role=PROVIDER, amount=100 * TOKEN) in receipt.events
    assert network.token.balanceOf(provider) == before + 100 * TOKEN
    assert stake_of(network, provider) == (0, 0, 0)
    with ape.reverts(network.registry.NodeRegistry__AmountZero):
        network.registry.withdraw(PROVIDER, sender=provider)


@pytest.mark.parametrize(
    ("part", "entry", "error"),
    [
        ("slashes", (PROVIDER, 151 * TOKEN), "NodeRegistry__StakeMissing"),
        ("releases", (PROVIDER, 51 * TOKEN), "NodeRegistry__StakeMissing"),
        ("slashes", (0, TOKEN), "NodeRegistry__RoleUnknown"),
        ("releases", (2**255, TOKEN), "NodeRegistry__RoleUnknown"),
        ("slashes", (PROVIDER, 0), "NodeRegistry__AmountZero"),
        ("slashes", None, "NodeRegistry__EntriesUnpacked"),
        ("releases", None, "NodeRegistry__EntriesUnpacked"),
    ],
)
def test_a_settlement_takes_no_more_than_there_is(
    network: Network,
    provider: Any,
    members: list[Key],
    staked: Callable[[int], None],
    part: str,
    entry: tuple[int, int] | None,
    error: str,
) -> None:
    staked(150 * TOKEN)
    network.registry.requestUnstake(PROVIDER, 50 * TOKEN, sender=provider)
    packed = pack_entry(provider, *entry) if entry else b"\x01" * 63
    with ape.reverts(getattr(network.registry, error)):
        settle(network, provider, members, **{part: packed})


def test_only_settlement_slashes_and_releases(network: Network, deployer: Any) -> None:
    for method in (network.registry.slash, network.registry.release):
        with ape.reverts(network.registry.Wired__NotSettlement):
            method(b"", sender=deployer)


def test_wiring_happens_once_and_by_the_deployer(network: Network, deployer: Any, stranger: Any) -> None:
    with ape.reverts(network.registry.Wired__AlreadyWired):
        network.registry.wire(stranger, sender=deployer)
    fresh = deployer.deploy(ape.project.NodeRegistry, network.token, network.parameters)
    with ape.reverts(fresh.Wired__NotDeployer):
        fresh.wire(stranger, sender=stranger)
    with ape.reverts(fresh.Wired__SettlementZero):
        fresh.wire("0x" + "00" * 20, sender=deployer)
    receipt = fresh.wire(stranger, sender=deployer)
    assert receipt.events == [fresh.SettlementWired(settlement=stranger)]
