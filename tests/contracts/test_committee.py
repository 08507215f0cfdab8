"""A committee is sorted and bounded; any two of its settlements share an honest member."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from contract_network import Network, committee_keys

from protocol.crypto import Key


def sorted_accounts(count: int) -> list[bytes]:
    return [key.address for key in committee_keys(count)]


def test_the_first_committee_is_epoch_one_and_announced(network: Network, members: list[Key]) -> None:
    assert network.committee.epoch() == 1
    assert network.committee.threshold() == 3
    assert [bytes.fromhex(member[2:]) for member in network.committee.members()] == [
        key.address for key in members
    ]
    (log,) = network.committee.CommitteeChanged.range(ape.chain.blocks.head.number + 1)
    assert (log.epoch, log.threshold, len(log.members)) == (1, 3, 4)


def test_a_change_begins_a_new_epoch(network: Network, deployer: Any) -> None:
    accounts = sorted_accounts(7)
    receipt = network.committee.change(accounts, 5, sender=deployer)
    (log,) = receipt.events
    assert (log.event_name, log.epoch, log.threshold) == ("CommitteeChanged", 2, 5)
    pointer, epoch, threshold = network.committee.current()
    assert (pointer, epoch, threshold) == (network.committee.pointer(), 2, 5)
    assert len(network.committee.members()) == 7


def test_every_epochs_members_stay_readable(network: Network, members: list[Key], deployer: Any) -> None:
    first = network.committee.members()
    assert len(first) == len(members)
    second = sorted_accounts(7)
    network.committee.change(second, 5, sender=deployer)
    assert network.committee.membersOf(1) == first
    assert network.committee.membersOf(2) == network.committee.members() != first
    assert len(second) == len(network.committee.membersOf(2))
    assert network.committee.membersOf(0) == network.committee.membersOf(3) == []


def test_the_pointer_holds_the_members_as_code_that_cannot_run(network: Network, members: list[Key]) -> None:
    code = bytes(ape.networks.provider.get_code(network.committee.pointer()))
    assert code == b"\0" + b"".join(key.address for key in members)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 10, 30])
def test_the_threshold_is_more_than_half_and_at_most_all(network: Network, deployer: Any, count: int) -> None:
    least = count // 2 + 1
    accounts = sorted_accounts(count)
    network.committee.change(accounts, least, sender=deployer)
    network.committee.change(accounts, count, sender=deployer)
    for threshold in (least - 1, count + 1):
        with ape.reverts(
            network.committee.Committee__ThresholdOutOfBounds, have=threshold, low=least, high=count
        ):
            network.committee.change(accounts, threshold, sender=deployer)


def test_a_committee_has_one_to_256_members(network: Network, deployer: Any) -> None:
    with ape.reverts(network.committee.Committee__SizeOutOfBounds):
        network.committee.change([], 0, sender=deployer)
    many = [place.to_bytes(20, "big") for place in range(1, 258)]
    network.committee.change(many[:256], 256, sender=deployer)
    with ape.reverts(network.committee.Committee__SizeOutOfBounds):
        network.committee.change(many, 257, sender=deployer)


def test_members_are_distinct_sorted_and_not_zero(network: Network, deployer: Any) -> None:
    first, second = sorted_accounts(2)
    for crooked in ([second, first], [first, first], [bytes(20), first]):
        with ape.reverts(network.committee.Committee__NotAscending):
            network.committee.change(crooked, 2, sender=deployer)


def test_a_stranger_changes_nothing(network: Network, stranger: Any) -> None:
    with ape.reverts(network.committee.OwnableUnauthorizedAccount):
        network.committee.change(sorted_accounts(4), 3, sender=stranger)
