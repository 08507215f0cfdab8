"""What whoever decides over a network may change: calls of its contracts, and what each says in words.

A DAO makes them by vote (`protocol.chain.dao`), an owner that is one account at once
(`protocol.chain.owner`).

Source: PoT 3.3.4, 3.4 "Flexibility"; design section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from eth_utils.address import to_checksum_address
from web3.exceptions import Web3Exception

from protocol.chain.client import ChainClient
from protocol.chain.deployment import parameter_key, settlement_threshold
from protocol.errors import ChainError
from protocol.parameters import PARAMETERS
from protocol.roles import Role


@dataclass(frozen=True, slots=True)
class Action:
    """One call: ``data`` to ``target``."""

    target: str
    data: bytes
    value_wei: int = 0
    """Of the chain's coin, which whoever calls must hold."""


class Changes:
    """The changes that may be made to one network."""

    def __init__(self, chain: ChainClient) -> None:
        self._chain = chain

    def _contracts(self) -> dict[str, Any]:
        """Those of the network whose calls can be put in words."""
        return {
            "Parameters": self._chain.parameters,
            "Committee": self._chain.committee,
            "Settlement": self._chain.settlement,
            "TrainingToken": self._chain.token,
        }

    def set_parameter(self, name: str, value: int) -> Action:
        """Give a protocol parameter another value, for orders that are placed afterwards."""
        rule = PARAMETERS.get(name)
        if rule is None:
            raise ChainError(f"no parameter is called {name!r}; `dtn dao parameters` lists them")
        if not rule.low <= value <= rule.high:
            raise ChainError(f"{name} must lie in [{rule.low}, {rule.high}], not {value}")
        return self._action(self._chain.parameters, "set", parameter_key(name), value)

    def appoint(self, members: Iterable[bytes], threshold: int | None = None) -> Action:
        """Appoint a committee; by default n - f of its members sign a settlement."""
        accounts = [to_checksum_address(member) for member in sorted(set(members))]
        try:
            needed = settlement_threshold(len(accounts), threshold)
        except ValueError as reason:
            raise ChainError(str(reason)) from reason
        return self._action(self._chain.committee, "change", accounts, needed)

    def replace_member(self, old: bytes, new: bytes) -> Action:
        """Appoint the committee in force with ``new`` in the place of ``old``; the threshold stays.

        Refused unless ``new`` has staked as aggregator and registered where it is reached: a seat for an
        account that nobody can reach is a member less.
        """
        members = self._chain.members()
        if old not in members or new in members:
            wrong = f"0x{old.hex()} is no member" if old not in members else f"0x{new.hex()} is one already"
            raise ChainError(f"{wrong} of the committee")
        least = self._chain.parameter(Role.AGGREGATOR.parameter)
        bonded = self._chain.stake_of(new, Role.AGGREGATOR)[0]
        endpoint, link_key = self._chain.endpoint_of(new)
        if bonded < least or not endpoint or link_key == bytes(32):
            raise ChainError(
                f"0x{new.hex()} could not take part: it has {bonded} wei at stake as aggregator, of {least}, "
                f"and is reached at {endpoint or 'no address'}; let it run `dtn aggregator register` first"
            )
        threshold = self._chain.threshold()
        return self.appoint([*(member for member in members if member != old), new], threshold)

    def set_guardian(self, account: bytes) -> Action:
        """Name who may pause payouts besides the DAO; the zero address for nobody."""
        return self._action(self._chain.settlement, "setGuardian", to_checksum_address(account))

    def unpause(self) -> Action:
        """End a pause of payouts early."""
        return self._action(self._chain.settlement, "unpause")

    @staticmethod
    def _action(contract: Any, method: str, *arguments: Any) -> Action:
        return Action(str(contract.address), bytes.fromhex(contract.encode_abi(method, arguments)[2:]))

    def say(self, action: Action) -> str:
        """A call in words: `Contract.method(arguments)` where it is one of this network's contracts."""
        paid = f" with {action.value_wei} wei of the chain's coin" if action.value_wei else ""
        for name, contract in self._contracts().items():
            if contract.address != action.target:
                continue
            try:
                function, arguments = contract.decode_function_input(action.data)
            except (ValueError, Web3Exception):
                break
            given = ", ".join(_show(argument) for argument in arguments.values())
            return f"{name}.{function.fn_name}({given}){paid}"
        return f"an unknown call of {action.target} with 0x{action.data.hex()}{paid}"


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        return (
            text.decode() if text and text.isascii() and text.decode().isprintable() else "0x" + value.hex()
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_show(each) for each in value) + "]"
    return str(value)
