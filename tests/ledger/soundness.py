"""What must hold of every ledger state, whatever happened before; ledger tests check it after each block.

Guarantees: recomputed from the rows alone, with no code of the ledger's own arithmetic.

Source: design section 4 ("an invariant that the ledger asserts and tests hammer").
"""

from __future__ import annotations

from collections import Counter

from aggregator.ledger.state import Outcome, Penalty, Receipt, State
from aggregator.ledger.tasks.open_records import OpenTask
from protocol.roles import Role


def assert_sound(state: State) -> None:
    """Raise ``AssertionError`` unless the books and the stakes of ``state`` add up."""
    _books_add_up(state)
    _stakes_cover_promises(state)
    reported = set(state.report.orders) if state.report else set()
    sealed = {oid for oid, entry in state.table.items() if entry.outcome is not None}
    assert set(state.sealed) | reported == sealed, "every sealed order waits for exactly one settlement"
    assert not set(state.sealed) & reported
    assert len(set(state.sealed)) == len(state.sealed)


def _books_add_up(state: State) -> None:
    for entry in state.table.values():
        if entry.outcome is None:
            continue
        receipts = entry.outcome.receipts
        escrow = entry.order.reward + entry.order.deposit
        assert sum(item.amount_wei for item in receipts) == escrow, "receipts sum to what came in"
        assert all(item.amount_wei for item in receipts), "nobody gets a receipt for nothing"
        assert all(item.oid == entry.oid and item.role and item.reason for item in receipts)
        debits = _debits(receipts)
        assert debits == Counter({(s.account, s.role.name.lower()): 0 for s in entry.outcome.slashes}) + (
            _slashes(entry.outcome)
        ), "every debit is a slash and every slash a debit"
    for penalty in _penalties(state):
        assert sum(item.amount_wei for item in penalty.receipts) == 0, "a penalty's receipts sum to nothing"
        assert all(item.amount_wei and penalty.id in item.refs for item in penalty.receipts)
        (debit,) = (item for item in penalty.receipts if item.amount_wei < 0)
        assert (debit.account, -debit.amount_wei) == (penalty.slash.account, penalty.slash.amount_wei)
        assert penalty.id in state.punished.values()
    report = state.report
    if report is not None:
        escrow = sum(state.table[oid].order.reward + state.table[oid].order.deposit for oid in report.orders)
        assert sum(wei for _, wei in report.credits) == escrow + sum(wei for *_, wei in report.slashes)
        assert list(report.orders) == sorted(set(report.orders))
        assert [account for account, _ in report.credits] == sorted(
            {account for account, _ in report.credits}
        )
        assert all(wei > 0 for _, wei in report.credits)
        assert all(wei > 0 for *_, wei in (*report.slashes, *report.releases))


def _penalties(state: State) -> tuple[Penalty, ...]:
    """Penalties that the chain has not settled yet."""
    return (*state.penalties, *(state.report.penalties if state.report else ()))


def _debits(receipts: tuple[Receipt, ...]) -> Counter[tuple[bytes, str]]:
    found: Counter[tuple[bytes, str]] = Counter()
    for item in receipts:
        if item.amount_wei < 0:
            found[(item.account, item.role)] -= item.amount_wei
    return found


def _slashes(outcome: Outcome) -> Counter[tuple[bytes, str]]:
    found: Counter[tuple[bytes, str]] = Counter()
    for slash in outcome.slashes:
        found[(slash.account, slash.role.name.lower())] += slash.amount_wei
    return found


def _stakes_cover_promises(state: State) -> None:
    locked: Counter[tuple[bytes, Role]] = Counter()
    slashed: Counter[tuple[bytes, Role]] = Counter()
    for penalty in _penalties(state):
        slashed[(penalty.slash.account, penalty.slash.role)] += penalty.slash.amount_wei
    for entry in state.table.values():
        if entry.outcome is not None:
            for slash in entry.outcome.slashes:
                slashed[(slash.account, slash.role)] += slash.amount_wei
        elif isinstance(entry.task, OpenTask):
            task = entry.task
            for provider in task.claims:
                locked[(provider, Role.PROVIDER)] += entry.parameters["claim_stake_wei"]
            for (_, validator), validation in task.validations.items():
                locked[(validator, Role.VALIDATOR)] += validation.v_stake_wei
            for challenge in task.challenges.values():
                locked[(challenge.challenger, Role.VERIFIER)] += challenge.c_stake_wei
            for report in task.reports.values():
                locked[(report.reporter, report.role)] += report.stake_wei
            for appeal in task.appeals.values():
                locked[(appeal.appellant, appeal.role)] += appeal.bond_wei
    for account, node in state.nodes.items():
        for role, stake in node.stakes:
            assert min(stake.bonded, stake.unbonding, stake.locked, stake.slashed) >= 0
            assert stake.locked == locked.pop((account, role), 0), "locks are what open orders account for"
            assert stake.slashed == slashed.pop((account, role), 0), "slashes wait for their settlement"
            assert stake.bonded + stake.unbonding >= stake.locked + stake.slashed
    assert not +locked and not +slashed, "nobody without a stake has promised any"
