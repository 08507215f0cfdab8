"""The token's fixed supply; parameters that only their owner changes, only within bounds."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from contract_network import TOKEN, Network

from protocol.chain.deployment import parameter_key
from protocol.parameters import DEFAULTS, PARAMETERS


def test_supply_is_a_billion_tokens_and_belongs_to_the_chosen_holder(deployer: Any, stranger: Any) -> None:
    token = deployer.deploy(ape.project.TrainingToken, stranger)
    assert token.totalSupply() == token.balanceOf(stranger) == 10**9 * TOKEN
    assert token.CLOCK_MODE() == "mode=timestamp"


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_chain_and_ledger_start_from_the_same_value_and_bounds(network: Network, name: str) -> None:
    key = parameter_key(name)
    assert network.parameters.get(key) == DEFAULTS[name]
    assert tuple(network.parameters.boundsOf(key)) == (PARAMETERS[name].low, PARAMETERS[name].high)


def test_every_parameter_is_announced_at_deployment(network: Network) -> None:
    logs = list(network.parameters.ParameterChanged.range(ape.chain.blocks.head.number + 1))
    announced = {bytes(log.key).rstrip(b"\0").decode(): log.value for log in logs}
    assert announced == {name: DEFAULTS[name] for name in PARAMETERS}


def test_the_owner_changes_a_value_and_the_change_is_announced(network: Network, deployer: Any) -> None:
    receipt = network.parameters.set(parameter_key("update_s"), 60, sender=deployer)
    assert receipt.events == [network.parameters.ParameterChanged(key=parameter_key("update_s"), value=60)]
    assert network.parameters.get(parameter_key("update_s")) == 60


def test_a_stranger_changes_nothing(network: Network, stranger: Any) -> None:
    with ape.reverts(network.parameters.OwnableUnauthorizedAccount):
        network.parameters.set(parameter_key("update_s"), 60, sender=stranger)


def test_a_value_out_of_bounds_is_refused(network: Network, deployer: Any) -> None:
    rule, key = PARAMETERS["update_s"], parameter_key("update_s")
    for value in (rule.low - 1, rule.high + 1):
        with ape.reverts(
            network.parameters.Parameters__OutOfBounds, key=key, have=value, low=rule.low, high=rule.high
        ):
            network.parameters.set(key, value, sender=deployer)


def test_an_unknown_key_is_refused_never_zero(network: Network, deployer: Any) -> None:
    key = parameter_key("no_such_parameter")
    with ape.reverts(network.parameters.Parameters__Unknown, key=key):
        network.parameters.get(key)
    with ape.reverts(network.parameters.Parameters__Unknown, key=key):
        network.parameters.set(key, 1, sender=deployer)
    with ape.reverts(network.parameters.Parameters__Unknown, key=key):
        network.parameters.boundsOf(key)


def test_ownership_moves_in_two_steps(network: Network, deployer: Any, stranger: Any) -> None:
    network.parameters.transferOwnership(stranger, sender=deployer)
    assert network.parameters.owner() == deployer.address
    network.parameters.acceptOwnership(sender=stranger)
    assert network.parameters.owner() == stranger.address


KEY, OTHER = b"a".ljust(32, b"\0"), b"b".ljust(32, b"\0")


@pytest.mark.parametrize(
    ("lists", "error"),
    [
        (([KEY, KEY], [1, 1], [0, 0], [2, 2]), "Parameters__KeyInvalid"),
        (([bytes(32)], [1], [0], [2]), "Parameters__KeyInvalid"),
        (([KEY, OTHER], [1], [0, 0], [2, 2]), "Parameters__LengthMismatch"),
        (([KEY, OTHER], [1, 1], [0], [2, 2]), "Parameters__LengthMismatch"),
        (([KEY, OTHER], [1, 1], [0, 0], [2]), "Parameters__LengthMismatch"),
        (([KEY], [3], [0], [2]), "Parameters__OutOfBounds"),
    ],
)
def test_a_deployment_with_crooked_lists_fails(
    network: Network, deployer: Any, lists: tuple[Any, ...], error: str
) -> None:
    with ape.reverts(getattr(network.parameters, error)):
        deployer.deploy(ape.project.Parameters, deployer, *lists)
