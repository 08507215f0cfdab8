"""A pause stops payouts for a while and takes nothing; a network whose committee is gone lets all leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ape
import pytest
from contract_network import (
    PROVIDER,
    TOKEN,
    Network,
    make_report,
    pack_credits,
    pack_entry,
    proof_of,
    settle,
    sign,
)

from protocol.crypto import Key
from protocol.parameters import DEFAULTS

DAY_S = 86_400
PAUSE_S = 7 * DAY_S
ABANDON_S, UNBONDING_S = DEFAULTS["abandon_s"], DEFAULTS["unbonding_s"]


@pytest.fixture
def guardian(network: Network, deployer: Any, stranger: Any) -> Any:
    """May pause, and nothing else."""
    network.settlement.setGuardian(stranger, sender=deployer)
    return stranger


def passes(seconds: int) -> None:
    ape.chain.mine(deltatime=seconds)


def payouts(
    network: Network, provider: Any, client: Any, members: list[Key], placed: bytes
) -> list[Callable[[], Any]]:
    """Ways to get tokens out: a claim, a stake, and what leads to claims, a settlement."""
    earned = [(provider, 105 * TOKEN)]
    other = bytes(31) + b"\1"
    settle(network, provider, members, orders=placed, credits=pack_credits(earned))
    network.registry.register(PROVIDER, 100 * TOKEN, "", other, sender=provider)
    network.registry.requestUnstake(PROVIDER, 100 * TOKEN, sender=provider)
    settle(network, provider, members, releases=pack_entry(provider, PROVIDER, 100 * TOKEN))
    proof = proof_of(earned, provider)
    report = make_report(network)
    signatures = sign(network, report, members[:3])
    return [
        lambda: network.settlement.claim(provider, [1], [105 * TOKEN], [proof], sender=provider),
        lambda: network.registry.withdraw(PROVIDER, sender=provider),
        lambda: network.settlement.update(report, 0b0111, signatures, sender=client),
    ]


def test_a_pause_stops_every_payout_until_it_is_over_and_nothing_is_lost(
    network: Network, guardian: Any, provider: Any, client: Any, members: list[Key], placed: bytes
) -> None:
    ways = payouts(network, provider, client, members, placed)
    held = [network.token.balanceOf(each) for each in (network.settlement, network.registry)]
    receipt = network.settlement.pause(sender=guardian)
    until = network.settlement.pausedUntil()
    assert receipt.events == [network.settlement.Paused(by=guardian, until=until)]
    for way in ways:
        with ape.reverts(network.settlement.Settlement__Paused):
            way()
    assert [network.token.balanceOf(each) for each in (network.settlement, network.registry)] == held
    passes(PAUSE_S)
    before = network.token.balanceOf(provider)
    for way in ways:
        way()
    assert network.token.balanceOf(provider) == before + 205 * TOKEN


def test_a_lapsed_order_is_reclaimed_after_a_pause_not_in_it(
    network: Network, guardian: Any, client: Any, placed: bytes
) -> None:
    passes(DEFAULTS["reclaim_s"] + 3600)
    network.settlement.pause(sender=guardian)
    with ape.reverts(network.settlement.Settlement__Paused):
        network.orders.reclaim(placed, sender=client)
    passes(PAUSE_S)
    before = network.token.balanceOf(client)
    network.orders.reclaim(placed, sender=client)
    assert network.token.balanceOf(client) == before + 105 * TOKEN


def test_the_guardian_pauses_at_most_half_of_the_time(network: Network, guardian: Any, deployer: Any) -> None:
    network.settlement.pause(sender=guardian)
    for wait_s in (0, PAUSE_S, PAUSE_S - 100):
        passes(wait_s)
        with ape.reverts(network.settlement.Settlement__PauseTooSoon):
            network.settlement.pause(sender=guardian)
    passes(200)
    network.settlement.pause(sender=guardian)
    # The owner may add to it, and may end it.
    network.settlement.pause(sender=deployer)
    network.settlement.unpause(sender=deployer)
    network.settlement.requireNotPaused()
    with ape.reverts(network.settlement.Settlement__NotPaused):
        network.settlement.unpause(sender=deployer)
    with ape.reverts(network.settlement.Settlement__PauseTooSoon):
        network.settlement.pause(sender=guardian)


def test_fines_need_an_account_and_votes_a_delay(network: Network, deployer: Any) -> None:
    nobody, parts = "0x" + "00" * 20, (network.token, network.parameters, network.registry, network.orders)
    with ape.reverts(network.settlement.Settlement__TreasuryZero):
        deployer.deploy(ape.project.Settlement, *parts, network.committee, nobody, deployer, nobody)
    governor = ape.project.TrainingGovernor
    with ape.reverts(governor.TrainingGovernor__DelayZero):
        deployer.deploy(governor, network.token, (0, 10, 0, 0), 0, 4)
    assert deployer.deploy(governor, network.token, (1, 10, 0, 0), 0, 4).votingDelay() == 1


def test_nobody_else_pauses_and_the_guardian_does_nothing_else(
    network: Network, guardian: Any, deployer: Any, provider: Any
) -> None:
    with ape.reverts(network.settlement.Settlement__NotGuardian):
        network.settlement.pause(sender=provider)
    network.settlement.pause(sender=guardian)
    for call, arguments in (
        (network.settlement.unpause, ()),
        (network.settlement.setGuardian, (guardian,)),
        (network.settlement.transferOwnership, (guardian,)),
    ):
        with ape.reverts(network.settlement.OwnableUnauthorizedAccount):
            call(*arguments, sender=guardian)
    with ape.reverts(network.committee.OwnableUnauthorizedAccount):
        network.committee.change(network.committee.members(), 4, sender=guardian)
    network.settlement.setGuardian("0x" + "00" * 20, sender=deployer)
    passes(2 * PAUSE_S + 1)
    with ape.reverts(network.settlement.Settlement__NotGuardian):
        network.settlement.pause(sender=guardian)


def test_everybody_leaves_a_network_whose_committee_is_gone(
    network: Network,
    client: Any,
    provider: Any,
    stranger: Any,
    members: list[Key],
    staked: Callable[[int], None],
    placed: bytes,
) -> None:
    staked(300 * TOKEN)
    earned = [(provider, 105 * TOKEN)]
    settle(network, provider, members, orders=placed, credits=pack_credits(earned))
    network.registry.requestUnstake(PROVIDER, 100 * TOKEN, sender=provider)
    passes(UNBONDING_S + ABANDON_S - 100)
    with ape.reverts(network.settlement.Settlement__AbandonTooEarly):
        network.settlement.abandon(provider, PROVIDER, sender=stranger)
    # Placed a moment before: its client does not have to wait for it to lapse.
    order = {
        "client": client.address,
        "nonce": 9,
        "kind": "open",
        "reward": 100 * TOKEN,
        "deposit": 5 * TOKEN,
    }
    windows = {"trainWindow": 60, "validateWindow": 30, "challengeWindow": 30}
    task = {"taskHash": bytes(32), "taskLink": "", "dataRoot": bytes(32), "baseline": 0}
    late = bytes(network.orders.put.call({**order, **windows, **task}, sender=client))
    network.orders.put({**order, **windows, **task}, sender=client)
    passes(200)
    receipt = network.settlement.abandon(provider, PROVIDER, sender=stranger)
    assert receipt.events == [network.settlement.Abandoned(account=provider, role=PROVIDER)]
    with ape.reverts(network.settlement.Settlement__Abandoned):
        network.settlement.abandon(provider, PROVIDER, sender=stranger)
    with ape.reverts(network.settlement.Settlement__Abandoned):
        settle(network, client, members)

    balances = [network.token.balanceOf(each) for each in (client, provider)]
    network.orders.reclaim(late, sender=client)
    network.registry.withdraw(PROVIDER, sender=provider)
    network.settlement.claim(provider, [1], [105 * TOKEN], [proof_of(earned, provider)], sender=stranger)
    assert network.token.balanceOf(client) == balances[0] + 105 * TOKEN
    assert network.token.balanceOf(provider) == balances[1] + 300 * TOKEN + 105 * TOKEN
    assert network.token.balanceOf(network.settlement) == network.token.balanceOf(network.registry) == 0
    with ape.reverts(network.registry.NodeRegistry__AmountZero):
        network.registry.withdraw(PROVIDER, sender=provider)


def test_a_committee_that_settles_or_owes_nothing_or_is_paused_is_not_gone(
    network: Network,
    deployer: Any,
    provider: Any,
    stranger: Any,
    members: list[Key],
    staked: Callable[[int], None],
) -> None:
    staked(300 * TOKEN)
    passes(2 * ABANDON_S)
    # Nothing to do for long: nobody has asked for anything.
    with ape.reverts(network.settlement.Settlement__NothingOverdue):
        network.settlement.abandon(provider, PROVIDER, sender=stranger)
    network.registry.requestUnstake(PROVIDER, 100 * TOKEN, sender=provider)
    passes(UNBONDING_S + ABANDON_S - 1000)
    settle(network, provider, members)
    passes(2000)
    with ape.reverts(network.settlement.Settlement__AbandonTooEarly):
        network.settlement.abandon(provider, PROVIDER, sender=stranger)
    passes(ABANDON_S - 5000)
    network.settlement.pause(sender=deployer)
    passes(ABANDON_S)
    with ape.reverts(network.settlement.Settlement__AbandonTooEarly):
        network.settlement.abandon(provider, PROVIDER, sender=stranger)
    settle(network, provider, members, releases=pack_entry(provider, PROVIDER, 100 * TOKEN))
    passes(2 * ABANDON_S)
    with ape.reverts(network.settlement.Settlement__NothingOverdue):
        network.settlement.abandon(provider, PROVIDER, sender=stranger)
