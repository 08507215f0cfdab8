"""The ledger as JSON: pure functions from state to what the public API answers.

Bytes are 0x-hex, amounts and other integers that may exceed 53 bits are decimal strings (``…Wei``), times
are Unix milliseconds. Commitments that are not revealed yet show nothing but that they exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aggregator.ledger.state import Entry, Node, Receipt, Settlement, State
from aggregator.ledger.tasks import PROTOCOLS
from aggregator.ledger.tasks.disputes import Dispute
from aggregator.ledger.tasks.open_outcome import accepted_answers, verdict_on
from aggregator.ledger.tasks.open_records import OpenTask, Phase
from aggregator.member.archive import Archive
from protocol import typed_data
from protocol.roles import Role

Json = dict[str, Any]

MAX_PENDING: Final = 500
"""Receipts not settled yet that an account is shown."""


def hexed(value: bytes | None) -> str | None:
    """0x-hex, or null."""
    return None if value is None else "0x" + value.hex()


def reward_rate(entry: Entry) -> int:
    """Reward per second of training in wei: the order in which FetchOrders sorts (PoT 3.3.2)."""
    return entry.order.reward // max(1, entry.order.train_window)


def order_summary(entry: Entry, epoch: int | None = None) -> Json:
    """One line of an order list."""
    protocol = PROTOCOLS.get(entry.order.kind)
    deadline = protocol.deadline_ms(entry) if protocol and entry.outcome is None else None
    outcome = entry.outcome
    return {
        "oid": hexed(entry.oid),
        "kind": entry.order.kind,
        "client": hexed(entry.order.client),
        "phase": "settled" if epoch is not None else phase_of(entry),
        "deadlineMs": deadline,
        "takenMs": entry.taken_ms,
        "rewardWei": str(entry.order.reward),
        "rewardRateWei": str(reward_rate(entry)),
        "claimCount": len(claims) if (claims := getattr(entry.task, "claims", None)) is not None else None,
        "winner": hexed(outcome.winner) if outcome else None,
        "score": str(outcome.score) if outcome and outcome.score is not None else None,
        "result": outcome.reason if outcome else None,
    }


def phase_of(entry: Entry) -> str:
    """Name of the phase an order is in."""
    return str(entry.task.phase) if entry.task is not None else "sealed"


def order_detail(entry: Entry, settlement: Settlement | None = None) -> Json:
    """Everything about one order that is public in its phase."""
    epoch = settlement.report.epoch if settlement else None
    detail = order_summary(entry, epoch) | {
        "order": typed_data.to_json(entry.order),
        "blockHash": hexed(entry.block_hash),
        "parameters": {name: str(value) for name, value in entry.parameters.values},
        "receipts": [receipt_json(receipt) for receipt in entry.outcome.receipts] if entry.outcome else [],
        "mid": hexed(entry.outcome.mid) if entry.outcome else None,
        "settlement": settlement_json(settlement) if settlement else None,
    }
    if isinstance(entry.task, OpenTask):
        detail |= _open_task(entry, entry.task)
    return detail


def model_json(entry: Entry, settlement: Settlement | None) -> Json:
    """The winning model of a sealed order: id, size and links."""
    assert entry.outcome is not None and entry.outcome.winner is not None, "only a winner has a model"
    claim = entry.task.claims[entry.outcome.winner]
    return {
        "oid": hexed(entry.oid),
        "mid": hexed(entry.outcome.mid),
        "winner": hexed(entry.outcome.winner),
        "score": str(entry.outcome.score),
        "sizeBytes": claim.size_bytes,
        "links": list(claim.links),
        "settlement": settlement_json(settlement) if settlement else None,
    }


def _open_task(entry: Entry, task: OpenTask) -> Json:
    accepted = accepted_answers(entry)
    return {
        "phases": [{"phase": phase, "atMs": at_ms} for phase, at_ms in task.history],
        "testLinks": list(task.test_links) if task.test_links is not None else None,
        "claims": [
            {
                "provider": hexed(provider),
                "claimedMs": claim.claimed_ms,
                "commitment": hexed(claim.commitment),
                "mid": hexed(claim.mid),
                "sizeBytes": claim.size_bytes if claim.mid else None,
                "links": list(claim.links),
                "score": _score(accepted, claim.mid),
            }
            for provider, claim in sorted(task.claims.items())
        ],
        "validations": validations_json(task),
        "challenges": [
            {
                "vid": hexed(vid),
                "challenger": hexed(record.challenger),
                "cStakeWei": str(record.c_stake_wei),
                **_answer(record.answer),
            }
            for vid, record in sorted(task.challenges.items())
        ],
        "reports": [
            {
                "subject": hexed(subject),
                "of": _kind(entry, subject),
                "reporter": hexed(report.reporter),
                "role": report.role.name.lower(),
                "stakeWei": str(report.stake_wei),
                "id": hexed(report.id),
            }
            for subject, report in sorted(task.reports.items())
        ],
        "disputes": [
            {
                "mid": hexed(mid),
                "of": _kind(entry, mid),
                "round": dispute.round + 1,
                "jurors": [
                    {
                        "juror": hexed(juror),
                        "stakeWei": str(weight),
                        "committed": juror in ballots,
                        **_answer(ballots[juror].answer if juror in ballots else None),
                    }
                    for ballots in (dict(dispute.ballots),)
                    for juror, weight in dispute.jurors
                ],
                "open": task.phase in (Phase.VERDICT, Phase.VERDICT_REVEAL) and mid in task.disputes,
                "decided": mid in task.decided,
                "verdict": _answer(verdict_on(entry, mid)),
            }
            for mid, dispute in sorted(_latest_disputes(task).items())
        ],
        "appeals": [
            {
                "subject": hexed(subject),
                "of": _kind(entry, subject),
                "appellant": hexed(appeal.appellant),
                "role": appeal.role.name.lower(),
                "bondWei": str(appeal.bond_wei),
                "against": _answer(appeal.against),
                "id": hexed(appeal.id),
            }
            for subject, appeal in sorted(task.appeals.items())
        ],
    }


def _kind(entry: Entry, subject: bytes) -> str:
    return "test set" if subject == entry.order.data_root else "model"


def _latest_disputes(task: OpenTask) -> dict[bytes, Dispute]:
    """Per subject the dispute of the latest round; a running appeal before the verdict that it is against."""
    found = dict(task.decided)
    for subject, dispute in task.disputes.items():
        if subject not in found or dispute.round > found[subject].round:
            found[subject] = dispute
    return found


def validations_json(task: OpenTask) -> list[Json]:
    """FetchValidations (PoT 3.3.3)."""
    return [
        {
            "vid": hexed(record.vid),
            "mid": hexed(mid),
            "validator": hexed(validator),
            "vStakeWei": str(record.v_stake_wei),
            **_answer(record.answer),
        }
        for (mid, validator), record in sorted(task.validations.items())
    ]


def _answer(answer: tuple[int, bytes] | None) -> Json:
    score, digest = answer if answer is not None else (None, None)
    return {"score": None if score is None else str(score), "digest": hexed(digest)}


def _score(accepted: Mapping[bytes, tuple[int, bytes]], mid: bytes | None) -> str | None:
    answer = accepted.get(mid) if mid is not None else None
    return str(answer[0]) if answer is not None else None


def receipt_json(receipt: Receipt) -> Json:
    """One credit or debit with its reason."""
    return {
        "account": hexed(receipt.account),
        "oid": hexed(receipt.oid),
        "role": receipt.role,
        "reason": receipt.reason,
        "amountWei": str(receipt.amount_wei),
        "refs": [hexed(ref) for ref in receipt.refs],
    }


def settlement_json(settlement: Settlement) -> Json:
    """One settlement as the chain applied it."""
    return {
        "epoch": settlement.report.epoch,
        "tx": hexed(settlement.transaction_hash),
        "gasUsed": settlement.gas_used,
        "atMs": settlement.at_ms,
        "orders": [hexed(oid) for oid in settlement.report.orders],
        "credits": [
            {"account": hexed(account), "amountWei": str(amount)}
            for account, amount in settlement.report.credits
        ],
    }


def paid_receipt_json(receipt: Receipt, settlement: Settlement) -> Json:
    """A receipt with the settlement that paid it."""
    return receipt_json(receipt) | {
        "epoch": settlement.report.epoch,
        "tx": hexed(settlement.transaction_hash),
        "atMs": settlement.at_ms,
    }


def credit_json(epoch: int, amount_wei: int, proof: Sequence[bytes]) -> Json:
    """What ``Settlement.claim`` needs for one epoch."""
    return {"epoch": epoch, "amountWei": str(amount_wei), "proof": [hexed(item) for item in proof]}


def stakes_json(node: Node) -> list[Json]:
    """A node's stake per role."""
    return [
        {
            "role": Role(role).name.lower(),
            "bondedWei": str(stake.standing),
            "unbondingWei": str(stake.unbonding),
            "lockedWei": str(stake.locked),
        }
        for role, stake in node.stakes
    ]


def node_json(state: State, account: bytes) -> Json:
    """One registered node."""
    node = state.nodes.get(account, Node())
    return {"account": hexed(account), "endpoint": node.endpoint, "stakes": stakes_json(node)}


def find_order(state: State, archive: Archive, oid: bytes) -> tuple[Entry, Settlement | None] | None:
    """An order wherever it is: running, sealed or settled."""
    if oid in state.table:
        return state.table[oid], None
    found = archive.entries.get(oid)
    return None if found is None else (found[0], archive.settlements[found[1]])
