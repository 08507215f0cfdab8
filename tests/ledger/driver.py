"""A random life of a ledger: orders, honest and lying participants, a chain that runs ahead, and garbage.

Guarantees: everything follows from one seed; after each block the ledger is sound, refused transactions have
left no trace, and every report the ledger makes is one that the contracts would take.

Source: design sections 4, 6 and 11.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any

from aggregator.ledger.root import state_root
from aggregator.ledger.state import Entry, Outcome, PendingReport, genesis
from aggregator.ledger.tasks.open_records import OpenTask, mid_of
from aggregator.ledger.transition import ACCEPTED, apply_block, check, next_deadline_ms
from protocol.crypto import commitment, keccak256
from protocol.parameters import TOKEN_WEI
from protocol.transactions import (
    INVALID_SCORE,
    Appeal,
    Cancel,
    Challenge,
    ChallengeReveal,
    Claim,
    ClaimReveal,
    IrretrievableReport,
    TestRelease,
    Transaction,
    Validation,
    ValidationReveal,
    Verdict,
    VerdictReveal,
    claim_body,
    order_id,
    score_body,
    validation_id,
)
from protocol.typed_data import Domain
from tests.ledger.chain_model import ChainModel, Reverted
from tests.ledger.world import (
    DOMAIN,
    FRAGMENTS,
    IRRETRIEVABLE,
    START_MS,
    TEST_LINKS,
    TEST_SET,
    TREASURY,
    Answer,
    World,
    answer,
    mid,
    who,
)

PEOPLE = tuple(f"outsider{number}" for number in range(8))
"""Everyone may hold every role, so that all conflicts of interest occur."""
SHARES = ("slash_bps", "missed_reveal_bps", "validator_bps", "consolation_bps", "tax_bps", "accuser_bps")
SHARES += ("irretrievable_bps",)

Sending = tuple[str, type[Transaction], dict[str, Any]]


class Driver:
    """One random life; `step` adds a block to it."""

    def __init__(self, seed: int, chain: ChainModel | None = None, domain: Domain = DOMAIN) -> None:
        self.random = random.Random(seed)
        self.chain = ChainModel() if chain is None else chain
        self.world = World(genesis(domain, TREASURY), [], [])
        self.world.block(at_ms=START_MS, events=[World.committee(1, 4)])
        self.codes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.outcomes: list[Outcome] = []
        self.orders: list[bytes] = []
        self._signed_reports: list[PendingReport] = []
        for name in PEOPLE:
            for role in (1, 2, 3):
                if self.random.random() < 0.8:
                    self.chain.stake(who(name), role, self.random.randint(200, 400) * TOKEN_WEI)

    # A block -----------------------------------------------------------------------------------------

    def step(self) -> None:
        """Something on the chain, some transactions, some time; then check everything."""
        self._chain_step()
        events = [self.chain.events.popleft() for _ in range(self._how_many(len(self.chain.events)))]
        sends = [self._transaction() for _ in range(self.random.choice((1, 1, 3, 6, 10)))]
        before = self.world.state
        alone = len(sends) == 1 and not events
        at_ms = before.now_ms if alone else self._time()
        outlook = check(before, sends[0]) if alone else None
        applied = self.world.block(sends, at_ms=at_ms, events=events)
        self.codes.update(result.code for result in applied.results)
        if alone:
            self._front_door_agrees(outlook, applied.results)
        block = self.world.blocks[-1]
        kept = [data for data, result in zip(sends, applied.results, strict=True) if result.code == ACCEPTED]
        clean = apply_block(before, dataclasses.replace(block, transactions=tuple(kept)))
        assert state_root(clean.state) == state_root(applied.state), "a refused transaction left a trace"
        assert clean.events == applied.events
        sealed = [
            entry.outcome
            for oid, entry in sorted(applied.state.table.items())
            if entry.outcome and not (oid in before.table and before.table[oid].outcome)
        ]
        self.outcomes.extend(sealed)
        self.reasons.update(outcome.reason for outcome in sealed)
        report = applied.state.report
        if report is not None and report not in self._signed_reports:
            self._signed_reports.append(report)
        self.chain.assert_solvent()
        if not self.chain.events:
            self._ledger_mirrors_chain()

    def _ledger_mirrors_chain(self) -> None:
        """With everything taken in, the ledger knows each stake as the chain does."""
        report = self.world.state.report
        leaving = Counter({(account, role): wei for account, role, wei in report.releases} if report else {})
        for account, node in self.world.state.nodes.items():
            for role, stake in node.stakes:
                assert stake.bonded == self.chain.bonded[account, role]
                assert stake.unbonding + leaving[account, role] == self.chain.unbonding[account, role]

    def _front_door_agrees(self, outlook: Any, results: Any) -> None:
        refreshed = self.world.state.now_ms  # the block moved no time, so the front door saw the same ledger
        assert refreshed == self.world.blocks[-1].timestamp_ms
        assert (outlook,) == results, "the front door and the block must agree"

    def _how_many(self, count: int) -> int:
        return self.random.choice((0, count, self.random.randint(0, count)))

    def _time(self) -> int:
        now_ms = self.world.state.now_ms
        deadline = next_deadline_ms(self.world.state)
        choices = [now_ms, now_ms + 1, now_ms + self.random.randint(0, 5000), now_ms - 1000]
        if deadline is not None and self.random.random() < 0.4:
            choices = [deadline, deadline, deadline - 1]
        if self.random.random() < 0.004:
            choices = [now_ms + 30 * 24 * 3600 * 1000]
        return max(self.random.choice(choices), 0)

    # The chain ---------------------------------------------------------------------------------------

    def _chain_step(self) -> None:
        choice = self.random.random()
        account, role = who(self.random.choice(PEOPLE)), self.random.choice((1, 2, 3))
        running = sum(entry.outcome is None for entry in self.world.state.table.values())
        if (running < 2 and choice < 0.5) or choice < 0.1:
            self._put()
        elif choice < 0.18:
            self.chain.stake(account, role, self.random.randint(1, 300) * TOKEN_WEI)
        elif choice < 0.24 and self.chain.bonded[account, role]:
            bonded = self.chain.bonded[account, role]
            self.chain.unstake(account, role, self.random.choice((bonded, self.random.randint(1, bonded))))
        elif choice < 0.245 and self.chain.escrows:
            self.chain.reclaim(self.random.choice(sorted(self.chain.escrows)))
        elif choice < 0.26:
            change = World.committee(0, self.random.choice((1, 4, 4, 7)))
            self.chain.appoint(change.members, change.threshold)
        elif choice < 0.28:
            name = self.random.choice(SHARES)
            high = 5000 if name == "accuser_bps" else 10_000
            self.chain.set_parameter(name, self.random.randint(0, high))
        elif choice < 0.29:
            self.chain.set_parameter("unbonding_s", self.random.randint(1, 9999))
        elif choice < 0.7 and self._signed_reports:
            self._settle()

    def _put(self) -> None:
        order = self.world.order(
            client=self.random.choice(PEOPLE),
            kind=self.random.choice(("open",) * 9 + ("other",)),
            reward=self.random.randint(10 * TOKEN_WEI, 100 * TOKEN_WEI),
            deposit=self.random.choice((0, 1, self.random.randint(1, 10 * TOKEN_WEI))),
            baseline=self.random.choice((-(2**63), 0, 1, 2**63 - 1)),
        )
        self.chain.put(order_id(self.world.state.domain, order), order)
        self.orders.append(order_id(self.world.state.domain, order))

    def _settle(self) -> None:
        # Signatures gather late: the chain may see a report that the ledger has made again since.
        report = self.random.choice(self._signed_reports[-2:])
        if report.epoch != self.chain.epoch + 1 or not self._is_latest_or_stale(report):
            return
        try:
            self.chain.apply(report)
        except Reverted:
            return

    def _is_latest_or_stale(self, report: PendingReport) -> bool:
        return report == self._signed_reports[-1] or report.committee_epoch != self.chain.committee_epoch

    # Transactions --------------------------------------------------------------------------------------

    def _transaction(self) -> bytes:
        if self.random.random() < 0.05:
            return self._garbage()
        name, kind, fields = self._sending()
        if self.random.random() < 0.05 and self.world.nonce > 3:
            fields["nonce"] = self.random.randint(0, self.world.nonce)
        data = self.world.signed(name, kind, **fields)
        if self.random.random() < 0.03:
            place = self.random.randrange(len(data))
            data = data[:place] + bytes([self.random.randrange(256)]) + data[place + 1 :]
        return data

    def _garbage(self) -> bytes:
        size = self.random.choice((0, 1, 10, 300, 70_000))
        return self.random.choice((self.random.randbytes(size), b"[" * size, b'{"a":' * size, b"null"))

    def _sending(self) -> Sending:
        table = self.world.state.table
        running = [oid for oid in sorted(table) if table[oid].outcome is None] or [keccak256(b"no order")]
        oid = self.random.choice(running if self.random.random() < 0.97 else [*sorted(table), bytes(32)])
        entry = table.get(oid)
        name = self.random.choice(PEOPLE)
        if entry is None or entry.outcome is not None or self.random.random() < 0.03:
            return name, Claim, {"oid": oid, "commitment": bytes(32)}
        choices = [getattr(self, f"_in_{entry.task.phase}")] * 5 + [self._in_training, self._in_validation]
        kind, fields = self.random.choice(choices)(entry, name)
        sender = fields.pop("sender", name)
        return sender, kind, {"oid": oid, **fields}

    def _in_training(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        if self.random.random() < 0.02:
            return Cancel, {"sender": self._client(entry)}
        body = claim_body(mid(self._model(entry, name)), 100)
        return Claim, {"commitment": commitment(entry.oid, who(name), body, bytes(32))}

    def _in_reveal(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        task: OpenTask = entry.task
        if self.random.random() < 0.15:
            released = {"fragments": FRAGMENTS, "links": TEST_LINKS}
            return TestRelease, {"sender": self._client(entry), **released}
        name = self._likely(name, [p for p, claim in sorted(task.claims.items()) if claim.mid is None])
        size = self.random.choice((100,) * 9 + (101,))
        model = mid(self._model(entry, name))
        fields = {"mid": model, "size_bytes": size, "links": (), "salt": bytes(32)}
        return ClaimReveal, {"sender": name, **fields}

    def _in_validation(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        model = self._revealed(entry)
        if self.random.random() < 0.2:
            return self._reporting(entry, model)
        body = score_body(model, *self._opinion(name, model))
        return Validation, {
            "mid": model,
            "commitment": commitment(entry.oid, who(name), body, bytes(32)),
            "v_stake": self.random.randint(4, 20) * TOKEN_WEI,
        }

    def _in_validation_reveal(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        model = self._revealed(entry)
        waiting = [v for (of, v), r in sorted(entry.task.validations.items()) if of == model and not r.answer]
        name = self._likely(name, waiting)
        return ValidationReveal, {"sender": name, "mid": model, **self._opened(name, model)}

    def _in_challenge(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        model = self._revealed(entry)
        if self.random.random() < 0.2:
            return self._reporting(entry, model)
        given = entry.task.answers(model)
        wrong = [v for v in sorted(given) if given[v] != self._opinion(name, model)]
        validator = who(self._likely(self.random.choice(PEOPLE), wrong))
        body = score_body(model, *self._opinion(name, model))
        return Challenge, {
            "vid": validation_id(self.world.state.domain, entry.oid, model, validator),
            "commitment": commitment(entry.oid, who(name), body, bytes(32)),
            "c_stake": self.random.randint(4, 20) * TOKEN_WEI,
        }

    def _in_challenge_reveal(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        vid, record = self.random.choice(sorted(entry.task.challenges.items(), key=lambda item: item[0]))
        model = mid_of(entry.task, vid)
        assert model is not None
        name = self._likely(name, [record.challenger])
        return ChallengeReveal, {"sender": name, "vid": vid, **self._opened(name, model)}

    def _in_verdict(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        model = self.random.choice([*sorted(entry.task.disputes), mid("unknown")])
        body = score_body(model, *self._verdict(entry, name, model))
        return Verdict, {"mid": model, "commitment": commitment(entry.oid, who(name), body, bytes(32))}

    def _in_verdict_reveal(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        model = self.random.choice(sorted(entry.task.disputes))
        ballots = entry.task.disputes[model].ballots
        name = self._likely(name, [juror for juror, ballot in ballots if ballot.answer is None])
        score, digest = self._verdict(entry, name, model)
        opened = {"score": score, "digest": digest, "salt": bytes(32)}
        return VerdictReveal, {"sender": name, "mid": model, **opened}

    def _in_appeal(self, entry: Entry, name: str) -> tuple[type[Transaction], dict[str, Any]]:
        subject = self.random.choice([*sorted(entry.task.decided), mid("unknown")])
        return Appeal, {"subject": subject, "role": self.random.choice((1, 2, 3, 4))}

    def _reporting(self, entry: Entry, model: bytes) -> tuple[type[Transaction], dict[str, Any]]:
        subject = self.random.choice((model, model, TEST_SET))
        return IrretrievableReport, {"subject": subject, "role": self.random.choice((1, 2, 3, 4))}

    def _verdict(self, entry: Entry, name: str, subject: bytes) -> Answer:
        """Of what was reported, half is gone; in an appeal some people see more than before."""
        round_of = entry.task.verdict_round
        gone = keccak256(entry.oid + subject)[0] % 2 and subject in entry.task.reports
        if gone and keccak256(name.encode() + subject + bytes([round_of]))[0] % 4:
            return IRRETRIEVABLE
        return self._opinion(name, subject)

    def _likely(self, name: str, accounts: list[bytes]) -> str:
        if not accounts or self.random.random() < 0.1:
            return name
        account = self.random.choice(accounts)
        return next(name for name in PEOPLE if who(name) == account)

    def _opened(self, name: str, model: bytes) -> dict[str, Any]:
        score, digest = self._opinion(name, model)
        return {"score": score, "digest": digest, "salt": bytes(32)}

    def _client(self, entry: Entry) -> str:
        return next(name for name in PEOPLE if who(name) == entry.order.client)

    @staticmethod
    def _model(entry: Entry, name: str) -> str:
        # Two providers in three share a model, so that ties and joint claims occur.
        return f"{entry.order.nonce} {int(name[-1]) // 3}"

    def _revealed(self, entry: Entry) -> bytes:
        task: OpenTask = entry.task
        return self.random.choice([*task.revealed_mids(), mid("unknown")])

    @staticmethod
    def _opinion(name: str, model: bytes) -> Answer:
        """Six in eight participants know the right answer; the others lie, each in one way."""
        right = answer(model[0] * 1000)
        liar = keccak256(name.encode() + model)[0] % 8
        return {0: answer(right[0] + 1), 1: (INVALID_SCORE, bytes(32))}.get(liar, right)
