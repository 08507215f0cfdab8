"""The DAO as one account uses it: propose, vote, execute, list (`contracts/TrainingGovernor.sol`).

A proposal is a list of calls that the timelock makes once a vote has passed and the delay is over. Votes are
tokens that were delegated, to oneself or to another, before the vote began.

Guarantees: what a proposal does is shown as read back from the chain, never as its proposer describes it.

Source: PoT 3.3.4 (decided by vote), 3.4 "Flexibility"; OpenZeppelin's Governor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from eth_utils.address import to_checksum_address
from web3.logs import DISCARD

from protocol.chain.artifacts import load
from protocol.chain.changes import Action, Changes
from protocol.chain.client import ChainClient, chain_errors
from protocol.crypto import keccak256
from protocol.errors import ChainError

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


class Dao(Changes):
    """The governor of one network as ``chain``'s account sees and uses it."""

    def __init__(self, chain: ChainClient) -> None:
        if chain.book.governor is None or chain.book.timelock is None:
            raise ChainError(
                "this network has no DAO: one account owns its parameters and its committee, see `dtn owner`"
            )
        super().__init__(chain)
        self._governor = chain.web3.eth.contract(
            address=to_checksum_address(chain.book.governor), abi=load("TrainingGovernor").abi
        )

    # What may be proposed --------------------------------------------------------------------------

    def replace_member(self, old: bytes, new: bytes) -> Action:
        """Appoint the committee in force with ``new`` in the place of ``old``; see `Changes.replace_member`.

        Refused too while another change of the committee is under way: what is proposed names all members,
        and would undo it.
        """
        action = super().replace_member(old, new)
        for other in itertools.islice(self.proposals(), MOST_OPEN):
            if other.state in UNDECIDED and any(text.startswith("Committee.change(") for text in other.says):
                raise ChainError(
                    f"proposal {other.number:x} changes the committee and is {other.state}: wait"
                )
        return action

    def _contracts(self) -> dict[str, Any]:
        return {**super()._contracts(), "TrainingGovernor": self._governor}

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
            says=tuple(self.say(action) for action in actions),
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
