"""The real contracts beside their model: what happens to one happens to the other, with one result.

Guarantees: events are those that the contracts logged, as an aggregator's reader decodes them, and they are
what the model says, but for hashes and gas; a report is refused by both or by neither; after each, stakes,
escrows and the tokens in the contracts' purses are the model's, to the wei.

Source: issue 4, "a differential test of settlement against the Python ledger on random epochs".
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from eth_utils.address import to_checksum_address

from aggregator.ledger.settlement import typed_report
from aggregator.ledger.state import PendingReport
from aggregator.origin.reader import ChainReader
from protocol.chain.client import ChainClient
from protocol.chain.deployment import parameter_key
from protocol.chain_events import AnyChainEvent, EndpointChanged, OrderPlaced, Settled
from protocol.crypto import Key
from protocol.errors import ChainError
from protocol.merkle import credit_leaf, proof
from protocol.parameters import PARAMETERS, TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Order
from protocol.typed_data import digest_of
from tests.chain import Chain
from tests.ledger.chain_model import ChainModel, Reverted

FUNDS_WEI = 10**6 * TOKEN_WEI
LEAST = ("min_stake_provider_wei", "min_stake_validator_wei", "min_stake_verifier_wei", "min_reward_wei")
LEAST += ("min_deposit_bps",)
"""Bounds that the model leaves out."""


class ContractsBeside(ChainModel):
    """A chain model that asks the contracts for a second opinion on itself."""

    def __init__(self, chain: Chain, people: Iterable[Key], aggregators: Iterable[Key]) -> None:
        super().__init__()
        self._chain = chain
        self._owner = ChainClient(chain.web3, chain.book, chain.owner)
        self._reader = ChainReader(self._owner)
        self._members = self._owner.members()
        self._keys = {key.address: key for key in aggregators}
        self._paid: dict[int, tuple[tuple[bytes, int], ...]] = {}
        self.refused = 0
        for name in LEAST:
            call = self._owner.parameters.functions.set(parameter_key(name), PARAMETERS[name].low)
            self._owner.send(call, name)
        self._accounts: dict[bytes, ChainClient] = {}
        for key in people:
            client = self._accounts[key.address] = chain.fund(key, FUNDS_WEI)
            for spender in (client.book.registry, client.book.orders):
                client.approve(spender, FUNDS_WEI)
        self._read = self._owner.block_number()

    # What happens on the chain -----------------------------------------------------------------------

    def stake(self, account: bytes, role: int, amount: int) -> None:
        client = self._accounts[account]
        client.send(client.registry.functions.register(role, amount, "", bytes(32)), "staking")
        super().stake(account, role, amount)
        self._compare(1)

    def unstake(self, account: bytes, role: int, amount: int) -> None:
        self._accounts[account].request_unstake(Role(role), amount)
        super().unstake(account, role, amount)
        self._compare(1)

    def put(self, oid: bytes, order: Order) -> None:
        self._accounts[order.client].put(order)
        super().put(oid, order)
        self._compare(1)

    def reclaim(self, oid: bytes) -> None:
        account, _, due_s = self._owner.escrow_of(oid)
        self._chain.rpc("evm_increaseTime", [max(0, due_s - self._owner.time_s())])
        self._chain.mine()
        before = self._owner.balance_of(account)
        escrow = self.escrows[oid]
        self._accounts[account].reclaim(oid)
        assert self._owner.balance_of(account) - before == escrow
        super().reclaim(oid)
        self._compare(1)

    def appoint(self, members: tuple[bytes, ...], threshold: int) -> None:
        call = self._owner.committee.functions.change([to_checksum_address(m) for m in members], threshold)
        self._owner.send(call, "appointing a committee")
        super().appoint(members, threshold)
        self._members = members
        self._compare(1)

    def set_parameter(self, name: str, value: int) -> None:
        self._owner.send(self._owner.parameters.functions.set(parameter_key(name), value), name)
        super().set_parameter(name, value)
        self._compare(1)

    def apply(self, report: PendingReport) -> None:
        typed = typed_report(report)
        digest = digest_of(self._owner.domain, typed)
        signatures = b"".join(self._keys[member].sign(digest) for member in self._members)
        accepted = True
        try:
            self._owner.settle(typed, (1 << len(self._members)) - 1, signatures)
        except ChainError:
            accepted = False
        try:
            super().apply(report)
        except Reverted:
            assert not accepted, "the contracts took a report that the model refuses"
            self.refused += 1
            raise
        assert accepted, "the contracts refused a report that the model takes"
        self._paid[report.epoch] = report.credits
        self._compare(1)
        self._books_agree(report)

    def claim_everything(self) -> None:
        """Everybody is paid all their credits, by one claim each; the purse then holds open escrows alone."""
        owed: dict[bytes, list[tuple[int, int, list[bytes]]]] = {}
        for epoch, paid in self._paid.items():
            leaves = [credit_leaf(account, amount) for account, amount in paid]
            for index, (account, amount) in enumerate(paid):
                owed.setdefault(account, []).append((epoch, amount, proof(leaves, index)))
        for account, credits_of in owed.items():
            before = self._owner.balance_of(account)
            epochs, amounts, proofs = zip(*credits_of, strict=True)
            self._owner.claim(account, epochs, amounts, proofs)
            assert self._owner.balance_of(account) - before == sum(amounts) == self.credited[account]
        assert self._purse(self._owner.book.settlement) == sum(self.escrows.values())

    # Comparing -----------------------------------------------------------------------------------------

    def _compare(self, count: int) -> None:
        """The latest ``count`` events are those the contracts logged; they take the model's place."""
        head = self._owner.block_number()
        logged = [event for _, event in self._reader.read(self._read, head)]
        self._read = head
        # Where a node is reached is nothing that the model knows.
        logged = [event for event in logged if not isinstance(event, EndpointChanged)]
        expected = [self.events.pop() for _ in range(count)][::-1]
        assert [_without_hashes(event) for event in logged] == [_without_hashes(event) for event in expected]
        self.events.extend(logged)

    def _books_agree(self, report: PendingReport) -> None:
        for account in self._accounts:
            for role in (1, 2, 3):
                place = account, role
                expected = self.bonded[place], self.unbonding[place], self.withdrawable[place]
                assert self._owner.stake_of(account, Role(role)) == expected
        for oid in (*report.orders, *self.escrows):
            assert self._owner.escrow_of(oid)[1] == self.escrows.get(oid, 0)
        held = sum(
            map(sum, ([*self.bonded.values()], [*self.unbonding.values()], [*self.withdrawable.values()]))
        )
        assert self._purse(self._owner.book.registry) == held
        owed = sum(self.escrows.values()) + self.credited.total()
        assert self._purse(self._owner.book.settlement) == owed
        assert self._owner.last_epoch() == self.epoch

    def _purse(self, contract: str) -> int:
        return self._owner.balance_of(bytes.fromhex(contract[2:]))


def _without_hashes(event: AnyChainEvent) -> AnyChainEvent:
    match event:
        case OrderPlaced():
            return msgspec.structs.replace(event, block_hash=bytes(32))
        case Settled():
            return msgspec.structs.replace(event, root=bytes(32), transaction_hash=bytes(32), gas_used=0)
    return event
