"""A ledger under test: named participants, chain events, signed transactions, and time that only tests move.

Guarantees: after every block the whole state is checked (`assert_sound`): receipts sum to what came in, a
report pays exactly its escrow and slashes, locks are exactly what open orders account for, and no account
has promised more stake than it has. Nothing here is random, nothing reads a clock.

Source: PoT table 1 and section 2.4; design sections 4 and 6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from aggregator.ledger.events import LedgerEvent
from aggregator.ledger.state import Entry, Origin, Outcome, State, genesis
from aggregator.ledger.transition import Applied, Block, TransactionResult, apply_block, check
from protocol.chain_events import (
    AnyChainEvent,
    CommitteeChanged,
    OrderPlaced,
    OrderReclaimed,
    ParameterChanged,
    Settled,
    Staked,
    UnstakeRequested,
)
from protocol.crypto import Key, commitment, keccak256
from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import (
    IRRETRIEVABLE_SCORE,
    Appeal,
    Challenge,
    ChallengeReveal,
    Claim,
    ClaimReveal,
    IrretrievableReport,
    Order,
    TestRelease,
    Transaction,
    Validation,
    ValidationReveal,
    Verdict,
    VerdictReveal,
    claim_body,
    data_root,
    order_id,
    score_body,
    sign_transaction,
    validation_id,
)
from protocol.typed_data import Domain
from tests.ledger.soundness import assert_sound

DOMAIN: Final = Domain(31337, b"\x11" * 20)
TREASURY: Final = b"\x77" * 20
START_MS: Final = 1_700_000_000_000
FRAGMENTS: Final = tuple(keccak256(b"fragment %d" % number) for number in range(10))
TEST_LINKS: Final = ("http://127.0.0.1:1/ipfs/test",)
REWARD: Final = 100 * TOKEN_WEI
DEPOSIT: Final = 10 * TOKEN_WEI
STAKE: Final = 1000 * TOKEN_WEI

Answer = tuple[int, bytes]
IRRETRIEVABLE: Final[Answer] = (IRRETRIEVABLE_SCORE, bytes(32))
TEST_SET: Final = data_root(FRAGMENTS)
"""The subject of a dispute about the test set."""


def key(name: str) -> Key:
    """The key of a named participant."""
    return Key(keccak256(name.encode()))


def who(name: str) -> bytes:
    """Address of a named participant; ``treasury`` is the treasury."""
    return TREASURY if name == "treasury" else key(name).address


def mid(name: str) -> bytes:
    """The MID of a named model."""
    return keccak256(b"model " + name.encode())


def subject_of(model: str | bytes) -> bytes:
    """What a dispute is about: a named model, or `TEST_SET` as it is."""
    return model if isinstance(model, bytes) else mid(model)


def answer(score: int, note: str = "") -> Answer:
    """A score with a digest that depends on nothing but the score and the note."""
    return score, keccak256(b"digest %d " % score + note.encode())


def salt(name: str) -> bytes:
    """The salt a named participant uses throughout."""
    return keccak256(b"salt " + name.encode())


@dataclass(slots=True)
class World:
    """One ledger and everybody who talks to it."""

    state: State
    blocks: list[Block]
    events: list[LedgerEvent]
    nonce: int = 0

    @classmethod
    def new(cls, members: int = 4, domain: Domain = DOMAIN) -> Self:
        """A ledger with a committee and without nodes or orders."""
        world = cls(genesis(domain, TREASURY), [], [])
        world.block(at_ms=START_MS, events=[world.committee(1, members)])
        return world

    @staticmethod
    def committee(epoch: int, members: int) -> CommitteeChanged:
        """A change to ``members`` aggregators named ``aggregator0`` …, two thirds of whom must sign."""
        addresses = tuple(sorted(who(f"aggregator{number}") for number in range(members)))
        return CommitteeChanged(epoch=epoch, members=addresses, threshold=2 * members // 3 + 1)

    # Blocks ----------------------------------------------------------------------------------------

    def block(
        self,
        transactions: Iterable[bytes] = (),
        *,
        at_ms: int | None = None,
        events: Iterable[AnyChainEvent] = (),
    ) -> Applied:
        """Apply one block and check the state it leads to."""
        events = tuple(events)
        before = self.state.origin.number if self.state.origin else -1
        origin = Origin(number=before + 1, hash=keccak256(b"block %d" % (before + 1))) if events else None
        block = Block(
            sequence=self.state.sequence + 1,
            timestamp_ms=self.state.now_ms if at_ms is None else at_ms,
            origin=origin,
            origin_after=before,
            chain_events=events,
            transactions=tuple(transactions),
        )
        applied = apply_block(self.state, block)
        assert_sound(applied.state)
        self.state = applied.state
        self.blocks.append(block)
        self.events.extend(applied.events)
        return applied

    def wait(self, seconds: float) -> None:
        """Let ledger time pass with an empty block at the end of it."""
        self.block(at_ms=self.state.now_ms + int(seconds * 1000))

    def wait_out(self, oid: bytes) -> str:
        """Let the current phase of an order run out; returns the phase it is in then."""
        before = self.phase(oid)
        entry = self.state.table[oid]
        window = {
            "training": entry.order.train_window,
            "validation": entry.order.validate_window,
            "challenge": entry.order.challenge_window,
            "verdict": entry.parameters["verdict_s"] * (1 + entry.task.verdict_round),
        }.get(before)
        self.wait(window if window is not None else entry.parameters[f"{before}_s"])
        assert self.phase(oid) != before
        return self.phase(oid)

    # Chain -----------------------------------------------------------------------------------------

    def stake(self, name: str, role: Role, amount: int = STAKE) -> None:
        """Stake arrives from the chain."""
        bonded = self.state.nodes[who(name)].stake(role).bonded if who(name) in self.state.nodes else 0
        event = Staked(account=who(name), role=int(role), amount=amount, bonded=bonded + amount)
        self.block(events=[event])

    def unstake(self, name: str, role: Role, amount: int) -> None:
        """Somebody asks the chain for stake back."""
        self.block(events=[UnstakeRequested(account=who(name), role=int(role), amount=amount)])

    def set_parameter(self, name: str, value: int) -> None:
        """A vote sets a parameter."""
        self.block(events=[ParameterChanged(key=name, value=value)])

    def order(self, *, client: str = "client", **changes: Any) -> Order:
        """An order of a named client with everything as usual but ``changes``."""
        self.nonce += 1
        fields: dict[str, Any] = {
            "client": who(client),
            "nonce": self.nonce,
            "kind": "open",
            "reward": REWARD,
            "deposit": DEPOSIT,
            "train_window": 60,
            "validate_window": 30,
            "challenge_window": 30,
            "task_hash": keccak256(b"task"),
            "task_link": "http://127.0.0.1:1/ipfs/task",
            "data_root": data_root(FRAGMENTS),
            "baseline": 0,
        }
        return Order(**fields | changes)

    def place(self, *, client: str = "client", **changes: Any) -> bytes:
        """An order arrives from the chain; returns its OID."""
        order = self.order(client=client, **changes)
        oid = order_id(self.state.domain, order)
        self.block(events=[OrderPlaced(oid=oid, order=order, block_hash=keccak256(oid))])
        return oid

    def reclaim(self, oid: bytes) -> None:
        """The client took its escrow back on the chain."""
        self.block(events=[OrderReclaimed(oid=oid)])

    def settle(self) -> None:
        """The chain applies the pending report."""
        assert self.state.report is not None
        epoch = self.state.report.epoch
        self.block(
            events=[Settled(epoch=epoch, root=bytes(32), transaction_hash=keccak256(b"tx"), gas_used=1)]
        )

    # Transactions ----------------------------------------------------------------------------------

    def signed(self, name: str, kind: type[Transaction], **fields: Any) -> bytes:
        """A transaction as it travels."""
        self.nonce += 1
        nonce = fields.pop("nonce", self.nonce)
        body = kind(sender=who(name), nonce=nonce, **fields)
        return sign_transaction(self.state.domain, body, key(name)).encode()

    def send(self, name: str, kind: type[Transaction], **fields: Any) -> TransactionResult:
        """Sign a transaction, see what the front door says, put it in a block of its own.

        A refused transaction must leave the ledger as it was, but for its sequence number, and the front
        door must have said the same as the block.
        """
        data = self.signed(name, kind, **fields)
        before, outlook = self.state, check(self.state, data)
        applied = self.block([data])
        (result,) = applied.results
        assert result == outlook, "the front door and the block must agree"
        if result.code != "Accepted":
            assert result.reason
            assert applied.state == renumbered(before, applied.state.sequence)
        return result

    def accept(self, name: str, kind: type[Transaction], **fields: Any) -> bytes:
        """`send` what must be accepted; returns the transaction id."""
        result = self.send(name, kind, **fields)
        assert result.code == "Accepted", result
        return result.tx_id

    def refuse(self, code: str, name: str, kind: type[Transaction], **fields: Any) -> str:
        """`send` what must be refused with ``code``; returns the reason."""
        result = self.send(name, kind, **fields)
        assert result.code == code, result
        return result.reason

    # What participants do ----------------------------------------------------------------------------

    def claim(self, name: str, oid: bytes, model: str, size: int = 1000) -> None:
        """A provider commits to a model."""
        committed = commitment(oid, who(name), claim_body(mid(model), size), salt(name))
        self.accept(name, Claim, oid=oid, commitment=committed)

    def reveal(self, name: str, oid: bytes, model: str, size: int = 1000) -> None:
        """A provider opens its claim."""
        fields = {"mid": mid(model), "size_bytes": size, "links": (f"http://x/{model}",), "salt": salt(name)}
        self.accept(name, ClaimReveal, oid=oid, **fields)

    def release(self, oid: bytes, client: str = "client") -> None:
        """The client releases the test set."""
        self.accept(client, TestRelease, oid=oid, fragments=FRAGMENTS, links=TEST_LINKS)

    def validate(self, name: str, oid: bytes, model: str, given: Answer, v_stake: int | None = None) -> bytes:
        """A validator commits to an answer on a model; returns the VID."""
        v_stake = DEFAULTS["min_validation_stake_wei"] if v_stake is None else v_stake
        committed = commitment(oid, who(name), score_body(mid(model), *given), salt(name))
        self.accept(name, Validation, oid=oid, mid=mid(model), commitment=committed, v_stake=v_stake)
        return validation_id(self.state.domain, oid, mid(model), who(name))

    def reveal_validation(self, name: str, oid: bytes, model: str, given: Answer) -> None:
        """A validator opens its validation."""
        score, digest = given
        fields = {"mid": mid(model), "score": score, "digest": digest, "salt": salt(name)}
        self.accept(name, ValidationReveal, oid=oid, **fields)

    def challenge(self, name: str, oid: bytes, vid: bytes, model: str, given: Answer) -> None:
        """A verifier commits to another answer than a validation's."""
        committed = commitment(oid, who(name), score_body(mid(model), *given), salt(name))
        stake = DEFAULTS["min_challenge_stake_wei"]
        self.accept(name, Challenge, oid=oid, vid=vid, commitment=committed, c_stake=stake)

    def reveal_challenge(self, name: str, oid: bytes, vid: bytes, given: Answer) -> None:
        """A verifier opens its challenge."""
        score, digest = given
        self.accept(name, ChallengeReveal, oid=oid, vid=vid, score=score, digest=digest, salt=salt(name))

    def judge(self, name: str, oid: bytes, subject: str | bytes, given: Answer) -> None:
        """A juror commits to an answer on a disputed model, or under `TEST_SET` on that."""
        named = subject_of(subject)
        committed = commitment(oid, who(name), score_body(named, *given), salt(name))
        self.accept(name, Verdict, oid=oid, mid=named, commitment=committed)

    def reveal_verdict(self, name: str, oid: bytes, subject: str | bytes, given: Answer) -> None:
        """A juror opens its verdict."""
        score, digest = given
        fields = {"mid": subject_of(subject), "score": score, "digest": digest, "salt": salt(name)}
        self.accept(name, VerdictReveal, oid=oid, **fields)

    def report(self, name: str, oid: bytes, subject: str | bytes, role: Role = Role.VERIFIER) -> bytes:
        """Somebody says that a model or the test set cannot be fetched; returns the report's id."""
        fields = {"subject": subject_of(subject), "role": int(role)}
        return self.accept(name, IrretrievableReport, oid=oid, **fields)

    def appeal(self, name: str, oid: bytes, subject: str | bytes, role: Role = Role.VALIDATOR) -> bytes:
        """Somebody appeals against a verdict; returns the appeal's id."""
        return self.accept(name, Appeal, oid=oid, subject=subject_of(subject), role=int(role))

    def verdicts(self, oid: bytes, subject: str | bytes, ballots: dict[str, Answer]) -> str:
        """One whole round on one subject ``{juror: answer}``; returns the phase that follows."""
        return self.all_verdicts(oid, {subject: ballots})

    def all_verdicts(self, oid: bytes, ballots: Mapping[str | bytes, dict[str, Answer]]) -> str:
        """One whole round, ``{subject: {juror: answer}}``; returns the phase that follows."""
        cast = [(name, subject, given) for subject, of in ballots.items() for name, given in of.items()]
        for name, subject, given in cast:
            self.judge(name, oid, subject, given)
        if self.phase(oid) == "verdict":
            self.wait_out(oid)
        for name, subject, given in cast:
            self.reveal_verdict(name, oid, subject, given)
        return self.phase(oid) if self.phase(oid) != "verdict_reveal" else self.wait_out(oid)

    # Whole stretches ---------------------------------------------------------------------------------

    def to_reveal(self, oid: bytes, claims: dict[str, tuple[str, int]]) -> None:
        """Claims as ``{provider: (model, size)}``, and the end of training."""
        for name, (model, size) in claims.items():
            self.claim(name, oid, model, size)
        assert self.wait_out(oid) == "reveal"

    def to_validation(self, oid: bytes, claims: dict[str, tuple[str, int]]) -> None:
        """Claims, test set and all reveals."""
        self.to_reveal(oid, claims)
        self.release(oid)
        for name, (model, size) in claims.items():
            self.reveal(name, oid, model, size)
        assert self.phase(oid) == "validation", "a reveal phase ends once nothing more can be revealed"

    def to_challenge(
        self, oid: bytes, answers: dict[tuple[str, str], Answer]
    ) -> dict[tuple[str, str], bytes]:
        """Validations ``{(validator, model): answer}``, all revealed; returns the VIDs."""
        vids = {
            (name, model): self.validate(name, oid, model, given) for (name, model), given in answers.items()
        }
        assert self.wait_out(oid) == "validation_reveal"
        for (name, model), given in answers.items():
            self.reveal_validation(name, oid, model, given)
        assert self.phase(oid) == "challenge"
        return vids

    # Questions ---------------------------------------------------------------------------------------

    def entry(self, oid: bytes) -> Entry:
        """An order's row."""
        return self.state.table[oid]

    def phase(self, oid: bytes) -> str:
        """The phase an order is in."""
        return str(self.state.table[oid].task.phase)

    def outcome(self, oid: bytes) -> Outcome:
        """What a sealed order pays."""
        outcome = self.state.table[oid].outcome
        assert outcome is not None, f"the order is still in phase {self.phase(oid)}"
        return outcome

    def receipts(self, oid: bytes) -> list[tuple[str, str, str, int]]:
        """Receipts as (name, role, reason, wei), in a readable order."""
        return sorted(
            (NAMES.get(item.account, item.account.hex()), item.role, item.reason, item.amount_wei)
            for item in self.outcome(oid).receipts
        )

    def paid(self, oid: bytes, name: str) -> int:
        """Sum of an account's receipts from one order."""
        return sum(item.amount_wei for item in self.outcome(oid).receipts if item.account == who(name))


def renumbered(state: State, sequence: int) -> State:
    """``state`` as if it had seen empty blocks up to ``sequence``."""
    return dataclasses.replace(state, sequence=sequence)


_PEOPLE: Final = ["client", "treasury", "client2"]
_PEOPLE += [
    f"{role}{number}"
    for role in ("aggregator", "provider", "validator", "verifier", "both", "outsider")
    for number in range(8)
]
NAMES: Final = {who(name): name for name in _PEOPLE}
"""Names by address, for readable failures."""
