"""The DAO as one account uses it: propose, vote, execute, list (`contracts/TrainingGovernor.sol`).

A proposal is a list of calls that the timelock makes once a vote has passed and the delay is over. Votes are
tokens that were delegated, to oneself or to another, before the vote began.

Guarantees: what a proposal does is shown as read back from the chain, never as its proposer describes it.

Source: PoT 3.3.4 (decided by vote), 3.4 "Flexibility"; OpenZeppelin's Governor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from eth_utils.address import to_checksum_address
from web3.exceptions import Web3Exception
from web3.logs import DISCARD

from protocol.chain.artifacts import load
from protocol.chain.client import ChainClient, chain_errors
from protocol.chain.deployment import parameter_key, settlement_threshold
from protocol.crypto import keccak256
from protocol.errors import ChainError
from protocol.parameters import PARAMETERS
from protocol.roles import Role

STATES: Final = (
    "pending",
    "active",
    "canceled",
    "defeated",
    "succeeded",
    "queued",
    "expired",
    "executed",
)
"""As OpenZeppelin's ``IGovernor.ProposalState`` numbers them."""
UNDECIDED: Final = ("pending", "active", "succeeded", "queued")
"""What may still be carried out."""
MOST_OPEN: Final = 50
"""Proposals that are looked through for one that is undecided, the latest first."""

Choice = Literal["against", "for", "abstain"]
CHOICES: Final[tuple[Choice, ...]] = ("against", "for", "abstain")
"""As ``GovernorCountingSimple.VoteType`` numbers them."""


@dataclass(frozen=True, slots=True)
class Action:
    """One call that a proposal makes: ``data`` to ``target``."""

    target: str
    data: bytes
    value_wei: int = 0
    """Of the chain's coin, which the timelock must hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A proposal as it stands on the chain; times in Unix seconds, votes in token base units."""

    number: int
    proposer: str
    description: str
    actions: tuple[Action, ...]
    says: tuple[str, ...]
    """What each action does, in words."""
    state: str
    """One of `STATES`."""
    votes_from: int
    votes_until: int
    executable_from: int
    """0 while it is not queued."""
    votes_for: int
    votes_against: int
    votes_abstain: int
    quorum: int
    """Votes for and abstentions that it needs; 0 before the vote begins."""


class Dao:
    """The governor of one network as ``chain``'s account sees and uses it."""

    def __init__(self, chain: ChainClient) -> None:
        if chain.book.governor is None or chain.book.timelock is None:
            raise ChainError("this network has no DAO: one account owns its parameters and its committee")
        self._chain = chain
        self._governor = chain.web3.eth.contract(
            address=to_checksum_address(chain.book.governor), abi=load("TrainingGovernor").abi
        )

    # What may be proposed --------------------------------------------------------------------------

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
        account that nobody can reach is a member less. Refused too while another change of the committee is
        under way: what is proposed names all members, and would undo it.
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
        for other in itertools.islice(self.proposals(), MOST_OPEN):
            if other.state in UNDECIDED and any(text.startswith("Committee.change(") for text in other.says):
                raise ChainError(
                    f"proposal {other.number:x} changes the committee and is {other.state}: wait"
                )
        with chain_errors("cannot read the committee"):
            threshold = int(self._chain.committee.functions.threshold().call())
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

    # Reading ---------------------------------------------------------------------------------------

    def votes_of(self, account: bytes) -> int:
        """Votes that an account has now: tokens delegated to it."""
        with chain_errors("cannot read votes"):
            return int(self._chain.token.functions.getVotes(to_checksum_address(account)).call())

    def proposals(self) -> Iterator[Proposal]:
        """All proposals, the latest first; each is read when it is taken."""
        return (self._at(number, block) for number, block in self._numbers())

    def find(self, fits: Callable[[int], bool]) -> Proposal | None:
        """The latest proposal whose number fits."""
        for number, block in self._numbers():
            if fits(number):
                return self._at(number, block)
        return None

    def _numbers(self) -> Iterator[tuple[int, int]]:
        """Number of each proposal, and the block with the event that tells the rest; the latest first."""
        functions = self._governor.functions
        with chain_errors("cannot read the DAO's proposals"):
            count = int(functions.proposalCount().call())
        for index in reversed(range(count)):
            with chain_errors("cannot read the DAO's proposals"):
                number, block = functions.proposalAt(index).call()
            yield int(number), int(block)

    def _at(self, number: int, block: int) -> Proposal:
        with chain_errors(f"cannot read proposal {number:x}"):
            logs = self._governor.events.ProposalCreated.get_logs(from_block=block, to_block=block)
        return self._read(next(log["args"] for log in logs if int(log["args"]["proposalId"]) == number))

    def refreshed(self, proposal: Proposal) -> Proposal:
        """The same proposal as it stands now."""
        return replace(proposal, **self._standing(proposal.number, proposal.votes_from))

    def _read(self, args: Any) -> Proposal:
        """A proposal out of the event that made it, as it stands now."""
        number, votes_from = int(args["proposalId"]), int(args["voteStart"])
        actions = tuple(
            Action(target, bytes(data), int(value))
            for target, data, value in zip(args["targets"], args["calldatas"], args["values"], strict=True)
        )
        return Proposal(
            number=number,
            proposer=args["proposer"],
            description=args["description"],
            actions=actions,
            says=tuple(self._say(action) for action in actions),
            votes_from=votes_from,
            **self._standing(number, votes_from),
        )

    def _standing(self, number: int, votes_from: int) -> dict[str, Any]:
        """What of a proposal changes with time."""
        functions = self._governor.functions
        with chain_errors("cannot read where the proposal stands"):
            state = STATES[functions.state(number).call()]
            against, in_favour, abstain = functions.proposalVotes(number).call()
            return {
                "state": state,
                "votes_until": int(functions.proposalDeadline(number).call()),
                "executable_from": int(functions.proposalEta(number).call()),
                "votes_for": int(in_favour),
                "votes_against": int(against),
                "votes_abstain": int(abstain),
                "quorum": 0 if state == "pending" else int(functions.quorum(votes_from).call()),
            }

    def _say(self, action: Action) -> str:
        """A call in words: `Contract.method(arguments)` where it is one of this network's contracts."""
        own = {
            "Parameters": self._chain.parameters,
            "Committee": self._chain.committee,
            "Settlement": self._chain.settlement,
            "TrainingToken": self._chain.token,
            "TrainingGovernor": self._governor,
        }
        paid = f" with {action.value_wei} wei of the chain's coin" if action.value_wei else ""
        for name, contract in own.items():
            if contract.address != action.target:
                continue
            try:
                function, arguments = contract.decode_function_input(action.data)
            except (ValueError, Web3Exception):
                break
            given = ", ".join(_show(argument) for argument in arguments.values())
            return f"{name}.{function.fn_name}({given}){paid}"
        return f"an unknown call of {action.target} with 0x{action.data.hex()}{paid}"

    # Sending ---------------------------------------------------------------------------------------

    def delegate(self, account: bytes) -> Any:
        """Let an account, oneself for instance, vote with this account's tokens from now on."""
        call = self._chain.token.functions.delegate(to_checksum_address(account))
        return self._chain.send(call, "the votes were not delegated")

    def propose(self, actions: Sequence[Action], description: str) -> Proposal:
        """Put calls to the vote."""
        if not actions:
            raise ChainError("a proposal that does nothing is none")
        call = self._governor.functions.propose(*self._lists(actions), description)
        receipt = self._chain.send(call, "the proposal was not made")
        # Transfers of votes and the like log events of other contracts: none of them is meant.
        (made,) = self._governor.events.ProposalCreated().process_receipt(receipt, errors=DISCARD)
        return self._read(made["args"])

    def vote(self, proposal: Proposal, choice: Choice) -> Any:
        """Vote with all votes that this account had when voting began."""
        if proposal.state != "active":
            raise ChainError(f"the proposal is {proposal.state}: votes are taken while one is active")
        call = self._governor.functions.castVote(proposal.number, CHOICES.index(choice))
        return self._chain.send(call, "the vote was not taken")

    def execute(self, proposal: Proposal) -> None:
        """Carry a decided proposal one step on: into the timelock, or out of it.

        Raises:
            ChainError: it is not decided, was refused, or waits in the timelock.
        """
        arguments = (*self._lists(proposal.actions), keccak256(proposal.description.encode()))
        functions = self._governor.functions
        match proposal.state:
            case "succeeded":
                self._chain.send(functions.queue(*arguments), "the proposal was not queued")
            case "queued":
                left_s = proposal.executable_from - self._chain.time_s()
                if left_s > 0:
                    raise ChainError(f"the timelock holds it for {left_s} more seconds")
                self._chain.send(functions.execute(*arguments), "the proposal was not executed")
            case state:
                raise ChainError(f"the proposal is {state}: only one that succeeded can be executed")

    @staticmethod
    def _lists(actions: Sequence[Action]) -> tuple[list[str], list[int], list[bytes]]:
        return (
            [action.target for action in actions],
            [action.value_wei for action in actions],
            [action.data for action in actions],
        )


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        return (
            text.decode() if text and text.isascii() and text.decode().isprintable() else "0x" + value.hex()
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_show(each) for each in value) + "]"
    return str(value)
