"""The one account that decides over a network without a DAO, such as one for trials.

Guarantees: nothing is sent unless the account owns every contract that is to change; what is refused later
stops there, and what was done before it stands and is told.

Source: design section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eth_utils.address import to_checksum_address

from protocol.chain.changes import Action, Changes
from protocol.chain.client import ChainClient, chain_errors
from protocol.errors import ChainError


@dataclass(frozen=True, slots=True)
class Change:
    """One change that was made."""

    says: str
    transaction_hash: bytes
    gas_used: int


class Owner(Changes):
    """The owner of one network's contracts, if ``account``, whose transactions ``chain`` sends, is that."""

    def __init__(self, chain: ChainClient, account: bytes) -> None:
        if chain.book.governor is not None:
            raise ChainError("a DAO decides over this network: see `dtn dao propose`")
        super().__init__(chain)
        self._account = to_checksum_address(account)

    def carry_out(self, actions: Sequence[Action]) -> Iterator[Change]:
        """Make changes in their order, each in a transaction of its own, and tell of each when it is made.

        Raises:
            ChainError: this account is not the owner, or the chain refused one.
        """
        contracts = {contract.address: contract for contract in self._contracts().values()}
        for target in {action.target for action in actions}:
            with chain_errors("cannot read who decides over this network"):
                owner = contracts[target].functions.owner().call()
            if owner != self._account:
                raise ChainError(
                    f"{owner} decides over this network, not {self._account}; nothing was changed"
                )
        for action in actions:
            says, contract = self.say(action), contracts[action.target]
            function, arguments = contract.decode_function_input(action.data)
            call = contract.get_function_by_name(function.fn_name)(**arguments)
            receipt = self._chain.send(call, f"{says} was not carried out")
            yield Change(says, bytes(receipt["transactionHash"]), int(receipt["gasUsed"]))
