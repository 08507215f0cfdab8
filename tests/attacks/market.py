"""A market on the real ledger in virtual time: honest people, one attacker, and what each has in the end.

Every order goes through all its phases. In each phase everybody acts twice, the honest first, so that an
attacker sees what they said before it acts; the ledger refuses what it refuses. All that an account gains or
loses is what the ledger's receipts say, less what its work costs.

Costs are those of the market, not of the protocol: training costs a provider `TRAINING_WEI`, scoring one
model costs `SCORING_WEI`. Whoever skips the work saves that.

Source: issue 4, "Attacks that do not pay"; PoT 5.2.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aggregator.ledger.state import Entry
from aggregator.ledger.tasks.open_records import mid_of
from protocol.crypto import commitment, keccak256
from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import (
    INVALID_SCORE,
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
    score_body,
    validation_id,
)
from tests.ledger.world import (
    DEPOSIT,
    FRAGMENTS,
    IRRETRIEVABLE,
    REWARD,
    TEST_LINKS,
    TEST_SET,
    Answer,
    World,
    answer,
    mid,
    salt,
    who,
)

TRAINING_WEI: Final = 5 * TOKEN_WEI
SCORING_WEI: Final = TOKEN_WEI // 100
SIZE: Final = 1_000
V_STAKE: Final = DEFAULTS["min_validation_stake_wei"]
C_STAKE: Final = DEFAULTS["min_challenge_stake_wei"]
PASSES: Final = 2
THERE: Final = answer(0, "what only somebody knows who has the test set")

Sending = tuple[type[Transaction], dict[str, Any]]


@dataclass
class Agent:
    """Somebody with one account; does nothing unless a subclass says so."""

    name: str
    market: Market = field(init=False, repr=False)

    @property
    def account(self) -> bytes:
        """Its address."""
        return who(self.name)

    def act(self, entry: Entry, last: bool) -> Iterable[Sending]:
        """What it sends in an order's phase; ``last`` in the second pass, when the honest have spoken."""
        step = getattr(self, f"in_{entry.task.phase}", None)
        return step(entry, last) if step is not None else ()


class Client(Agent):
    """Puts orders and releases the test set."""

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if entry.order.client == self.account and not last:
            yield TestRelease, {"fragments": FRAGMENTS, "links": TEST_LINKS}


class Provider(Agent):
    """Trains, claims, reveals."""

    def in_training(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if last:
            return
        self.market.spend(self.account, TRAINING_WEI)
        model = self.market.trained(entry, self.name)
        yield Claim, {"commitment": claimed(entry, self.account, mid(model), salt(self.name))}

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if not last:
            yield revealing(mid(self.market.trained(entry, self.name)), salt(self.name))


class Juror(Agent):
    """Judges what is disputed, as it finds it."""

    role = Role.VALIDATOR

    def opinion(self, model: bytes) -> Answer:
        """What it says of a model; by default the truth, which costs it the work."""
        return self.market.score(self.account, model)

    def verdict(self, entry: Entry, subject: bytes) -> Answer:
        """What it says as a juror: that it cannot be fetched, or what it is worth."""
        if subject == TEST_SET:
            return THERE if self.had_test_set else IRRETRIEVABLE
        if "verdict" in self.market.absent.get(subject, ()):
            return IRRETRIEVABLE
        return self.opinion(subject)

    @property
    def had_test_set(self) -> bool:
        """Whether it fetched the test set when it was released."""
        return not self.market.test_set_hidden

    def in_verdict(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for subject, dispute in sorted(entry.task.disputes.items()):
            if not last and dispute.weight(self.account):
                committed = self.committed(entry, subject, self.verdict(entry, subject))
                yield Verdict, {"mid": subject, "commitment": committed}

    def in_verdict_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for subject, dispute in sorted(entry.task.disputes.items()):
            if not last and dispute.ballot(self.account):
                score, digest = self.verdict(entry, subject)
                opened = {"score": score, "digest": digest, "salt": salt(self.name)}
                yield VerdictReveal, {"mid": subject, **opened}

    def committed(self, entry: Entry, model: bytes, said: Answer | None = None) -> bytes:
        """A commitment to its opinion, or to ``said``."""
        body = score_body(model, *(said or self.opinion(model)))
        return commitment(entry.oid, self.account, body, salt(self.name))

    def opened(self, model: bytes) -> dict[str, Any]:
        """What opens the commitment to its opinion."""
        score, digest = self.opinion(model)
        return {"score": score, "digest": digest, "salt": salt(self.name)}

    def reports(self, entry: Entry, phase: str) -> Iterator[Sending]:
        """What it cannot fetch in a phase, as far as nobody has said so."""
        for subject in entry.task.revealed_mids():
            if phase in self.market.absent.get(subject, ()) and subject not in entry.task.reports:
                yield IrretrievableReport, {"subject": subject, "role": int(self.role)}
        if phase == "validation" and not self.had_test_set and TEST_SET not in entry.task.reports:
            yield IrretrievableReport, {"subject": TEST_SET, "role": int(self.role)}


class Validator(Juror):
    """Scores every revealed model that it can fetch, and reports the others."""

    v_stake: int = V_STAKE

    def in_validation(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if last:
            return
        yield from self.reports(entry, "validation")
        for model in self.fetched(entry):
            fields = {"mid": model, "commitment": self.committed(entry, model), "v_stake": self.v_stake}
            yield Validation, fields

    def fetched(self, entry: Entry) -> list[bytes]:
        """The models that it can score."""
        if not self.had_test_set:
            return []
        absent = self.market.absent
        return [mid for mid in entry.task.revealed_mids() if "validation" not in absent.get(mid, ())]

    def in_validation_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for (model, validator), record in sorted(entry.task.validations.items()):
            if not last and validator == self.account and record.answer is None:
                yield ValidationReveal, {"mid": model, **self.opened(model)}


class Verifier(Juror):
    """Checks every validation and challenges the wrong ones."""

    role = Role.VERIFIER

    def in_challenge(self, entry: Entry, last: bool) -> Iterator[Sending]:
        yield from () if last else self.reports(entry, "challenge")
        for (model, validator), record in sorted(entry.task.validations.items()) if not last else ():
            if "challenge" in self.market.absent.get(model, ()) or not self.had_test_set:
                continue
            if record.answer is not None and record.answer != self.opinion(model):
                vid = validation_id(self.market.world.state.domain, entry.oid, model, validator)
                committed = self.committed(entry, model)
                yield Challenge, {"vid": vid, "commitment": committed, "c_stake": C_STAKE}

    def in_challenge_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for vid, record in sorted(entry.task.challenges.items()):
            model = mid_of(entry.task, vid)
            if not last and record.challenger == self.account and model is not None:
                yield ChallengeReveal, {"vid": vid, **self.opened(model)}


def claimed(entry: Entry, account: bytes, model: bytes, with_salt: bytes) -> bytes:
    """The commitment of a claim."""
    return commitment(entry.oid, account, claim_body(model, SIZE), with_salt)


def revealing(model: bytes, with_salt: bytes) -> Sending:
    """The reveal of a claim."""
    return ClaimReveal, {"mid": model, "size_bytes": SIZE, "links": ("http://x/m",), "salt": with_salt}


class Market:
    """One seed's market: `play` runs orders one after the other."""

    def __init__(
        self, seed: int, agents: Sequence[tuple[Agent, Sequence[Role]]], world: World | None = None
    ) -> None:
        self.choose = random.Random(f"market {seed}")
        self.world = World.new() if world is None else world
        self.agents = [agent for agent, _ in agents]
        self.money: Counter[bytes] = Counter()
        """Per account, what receipts brought, less what orders and work cost, in wei."""
        self.costs: Counter[bytes] = Counter()
        """Of that, what work cost: nothing that a chain knows."""
        self.debits: Counter[bytes] = Counter()
        self.results: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.lied_about: set[bytes] = set()
        """Models that a league has agreed to lie about."""
        self.absent: dict[bytes, frozenset[str]] = {}
        """Per model the phases in which nobody but its provider's friends can fetch it."""
        self.test_set_hidden = False
        """Whether the client serves the test set to its friends alone."""
        self.test_elsewhere = False
        """Whether the test set is of another distribution than what is published for training."""
        self._truth: dict[bytes, Answer] = {}
        self._scored: set[tuple[bytes, bytes]] = set()
        for agent, roles in agents:
            agent.market = self
            for role in roles:
                self.world.stake(agent.name, role)

    # What the world is like ------------------------------------------------------------------------

    def spend(self, account: bytes, cost_wei: int) -> None:
        """Work costs something."""
        self.money[account] -= cost_wei
        self.costs[account] += cost_wei

    def trained(self, entry: Entry, name: str, quality: int | None = None) -> str:
        """The name of the model that somebody has for an order; how good it is shows when it is scored."""
        model = f"{entry.oid.hex()} {name}"
        if mid(model) not in self._truth:
            learned = 0 if self.test_elsewhere else self.choose.randint(600_000, 980_000)
            good = learned if quality is None else quality
            note = "invalid" if good == INVALID_SCORE else ""
            self._truth[mid(model)] = answer(good, note)
        return model

    def score(self, account: bytes, model: bytes) -> Answer:
        """The true score, found by work."""
        if (account, model) not in self._scored:
            self._scored.add((account, model))
            self.spend(account, SCORING_WEI)
        return self._truth[model]

    # Orders ----------------------------------------------------------------------------------------

    def play(self, orders: int, client: str = "client") -> None:
        """So many orders from put to settlement."""
        for _ in range(orders):
            oid = self.world.place(client=client)
            self.money[who(client)] -= REWARD + DEPOSIT
            while self.world.entry(oid).outcome is None:
                self._phase(oid)
            for receipt in self.world.outcome(oid).receipts:
                self.money[receipt.account] += receipt.amount_wei
                if receipt.amount_wei < 0:
                    self.debits[receipt.account] -= receipt.amount_wei
            self.results[self.world.outcome(oid).reason] += 1
            self.settle()

    def settle(self) -> None:
        """Wait for the next report and have it paid."""
        while self.world.state.report is None:
            self.world.wait(60)
        self.world.settle()

    def _phase(self, oid: bytes) -> None:
        phase = self.world.phase(oid)
        for turn in range(PASSES):
            for agent in self.agents:
                entry = self.world.entry(oid)
                if entry.outcome is not None or self.world.phase(oid) != phase:
                    return
                sends = [
                    self.world.signed(agent.name, kind, oid=oid, **fields)
                    for kind, fields in agent.act(entry, turn == PASSES - 1)
                ]
                if sends:
                    applied = self.world.block(sends)
                    self.refused.update(r.code for r in applied.results if r.code != "Accepted")
        self._wait_out(oid)

    def _wait_out(self, oid: bytes) -> None:
        """Let the phase end by its clock; an order that is sealed by that is not asked for its phase."""
        entry, phase = self.world.entry(oid), self.world.phase(oid)
        window = {
            "training": entry.order.train_window,
            "validation": entry.order.validate_window,
            "challenge": entry.order.challenge_window,
            "verdict": entry.parameters["verdict_s"] * (1 + entry.task.verdict_round),
        }.get(phase)
        self.world.wait(window if window is not None else entry.parameters[f"{phase}_s"])


def honest(providers: int = 2, validators: int = 3, verifiers: int = 2) -> list[tuple[Agent, Sequence[Role]]]:
    """The honest people of a market, each with 1,000 tokens of stake in its role."""
    people: list[tuple[Agent, Sequence[Role]]] = [(Client("client"), ())]
    people += [(Provider(f"provider{n}"), (Role.PROVIDER,)) for n in range(providers)]
    people += [(Validator(f"validator{n}"), (Role.VALIDATOR,)) for n in range(validators)]
    people += [(Verifier(f"verifier{n}"), (Role.VERIFIER,)) for n in range(verifiers)]
    return people


def fake(*parts: object) -> bytes:
    """Some 32 bytes."""
    return keccak256(repr(parts).encode())
