"""What people may try for money, each as an agent that really does it. `STRATEGIES` lists them all.

A strategy says who takes part besides the honest, which accounts are the attacker's, and what the best case
for it is allowed to be. The attacker saves the work that the honest do.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aggregator.ledger.state import Entry
from protocol.certificate import SignedVote
from protocol.evidence import COMMIT, evidence_fields
from protocol.parameters import DEFAULTS
from protocol.rewards import reward_shares
from protocol.roles import Role
from protocol.transactions import (
    INVALID_SCORE,
    Appeal,
    Cancel,
    Challenge,
    ChallengeReveal,
    Claim,
    Evidence,
    IrretrievableReport,
    TestRelease,
    Validation,
    ValidationReveal,
    validation_id,
)
from protocol.typed_data import sign
from tests.attacks.market import (
    C_STAKE,
    V_STAKE,
    Agent,
    Client,
    Juror,
    Market,
    Provider,
    Sending,
    Validator,
    claimed,
    fake,
    honest,
    revealing,
)
from tests.ledger.world import (
    FRAGMENTS,
    REWARD,
    TEST_LINKS,
    TEST_SET,
    Answer,
    World,
    answer,
    key,
    mid,
    salt,
    who,
)

People = list[tuple[Agent, Sequence[Role]]]
MALLORY = "mallory"
VALIDATORS_WEI = reward_shares(REWARD, DEFAULTS, consoled=2).validators


# Providers -----------------------------------------------------------------------------------------------


class Thief(Agent):
    """Claims without a model, and at the reveal takes one that another has just revealed."""

    def in_training(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if not last:
            yield Claim, {"commitment": claimed(entry, self.account, fake("nothing"), salt(self.name))}

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if last:
            for model in entry.task.revealed_mids():
                yield revealing(model, salt(self.name))


class Copier(Agent):
    """Copies another's commitment, and its opening once that is public."""

    def in_training(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if last:
            for _, claim in sorted(entry.task.claims.items())[:1]:
                yield Claim, {"commitment": claim.commitment}

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for name in ("provider0", "provider1") if last else ():
            yield revealing(mid(self.market.trained(entry, name)), salt(name))


class Garbage(Agent):
    """Trains nothing and reveals what is no model: random bytes, NaN."""

    quality = INVALID_SCORE

    def model(self, entry: Entry) -> bytes:
        """What it claims."""
        return mid(self.market.trained(entry, self.name, quality=self.quality))

    def in_training(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if not last:
            yield Claim, {"commitment": claimed(entry, self.account, self.model(entry), salt(self.name))}

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if not last:
            yield revealing(self.model(entry), salt(self.name))


ALWAYS = frozenset({"validation", "challenge", "verdict"})


class DeadLink(Garbage):
    """Reveals a model that it never trained, under a link that never answers."""

    quality = 0
    absent = ALWAYS

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        self.market.absent[self.model(entry)] = self.absent
        yield from super().in_reveal(entry, last)


class Leaver(Provider):
    """Trains the best model, and takes it offline once it was scored."""

    absent = frozenset({"challenge", "verdict"})

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        model = self.market.trained(entry, self.name, quality=1_000_000)
        self.market.absent[mid(model)] = self.absent
        yield from super().in_reveal(entry, last)

    def in_training(self, entry: Entry, last: bool) -> Iterator[Sending]:
        self.market.trained(entry, self.name, quality=1_000_000)
        yield from super().in_training(entry, last)


class Bait(DeadLink):
    """Answers only its accomplice until somebody reports it, and everybody for the verdict."""

    absent = frozenset({"validation", "challenge"})


class Untrained(Garbage):
    """A valid model that was never trained: no better than the baseline."""

    quality = 0


class NeverReveals(Thief):
    """Claims to keep others away, and opens nothing."""

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        yield from ()


# Validators and verifiers --------------------------------------------------------------------------------


class ScoreCopier(Agent):
    """Copies a validator's commitment, and its opening once that is public."""

    def in_validation(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for (model, validator), record in sorted(entry.task.validations.items()) if last else ():
            if validator == who("validator0"):
                yield Validation, {"mid": model, "commitment": record.commitment, "v_stake": V_STAKE}

    def in_validation_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for (model, validator), record in sorted(entry.task.validations.items()) if last else ():
            if validator == who("validator0") and record.answer is not None:
                score, digest = record.answer
                opened = {"score": score, "digest": digest, "salt": salt("validator0")}
                yield ValidationReveal, {"mid": model, **opened}


class Echo(ScoreCopier):
    """Waits until scores are revealed, and would then commit to the same."""

    def in_validation(self, entry: Entry, last: bool) -> Iterator[Sending]:
        yield from ()

    def in_validation_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for model in entry.task.revealed_mids() if last else ():
            fields = {"mid": model, "commitment": fake(model), "v_stake": V_STAKE}
            yield Validation, fields


class LazyConstant(Validator):
    """Scores nothing and says what models usually score."""

    def opinion(self, model: bytes) -> Answer:
        return answer(800_000, "lazy")


class LazyRandom(Validator):
    """Scores nothing and guesses."""

    def opinion(self, model: bytes) -> Answer:
        return answer(600_000 + int.from_bytes(model[:3], "big") % 380_000, "guess")


class StakeAndRun(LazyConstant):
    """Lies, and asks for its stake back before anybody can judge."""

    def in_challenge(self, entry: Entry, last: bool) -> Iterator[Sending]:
        stake = self.market.world.state.nodes[self.account].stake(Role.VALIDATOR)
        if stake.bonded and not last:
            self.market.world.unstake(self.name, Role.VALIDATOR, stake.bonded)
        yield from ()


class ServedAlone(Validator):
    """The accomplice of whoever serves nobody else: it can fetch everything."""

    @property
    def had_test_set(self) -> bool:
        return True

    def fetched(self, entry: Entry) -> list[bytes]:
        return list(entry.task.revealed_mids())

    def reports(self, entry: Entry, phase: str) -> Iterator[Sending]:
        yield from ()


class FalseReporter(Agent):
    """Says of every model, and of the test set, that they cannot be fetched."""

    def in_validation(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for subject in (*entry.task.revealed_mids(), TEST_SET) if not last else ():
            yield IrretrievableReport, {"subject": subject, "role": int(Role.VERIFIER)}


class Appellant(LazyConstant):
    """Lies, and appeals against the verdict that finds it out."""

    def in_appeal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for subject in sorted(entry.task.decided) if not last else ():
            yield Appeal, {"subject": subject, "role": int(Role.VALIDATOR)}


class Bystander(Agent):
    """Appeals against every verdict, whoever it is about, to hold the order up."""

    def in_appeal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for subject in sorted(entry.task.decided) if not last else ():
            yield Appeal, {"subject": subject, "role": int(Role.VERIFIER)}


class Spammer(Juror):
    """Challenges what is right."""

    reveals = True

    def in_challenge(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for model, validator in sorted(entry.task.validations) if not last else ():
            vid = validation_id(self.market.world.state.domain, entry.oid, model, validator)
            yield Challenge, {"vid": vid, "commitment": self.committed(entry, model), "c_stake": C_STAKE}

    def in_challenge_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        for vid, record in sorted(entry.task.challenges.items()) if self.reveals and not last else ():
            if record.challenger == self.account:
                model = next(m for (m, v), r in entry.task.validations.items() if r.vid == vid)
                yield ChallengeReveal, {"vid": vid, **self.opened(model)}

    def opinion(self, model: bytes) -> Answer:
        return answer(1, "spam")


class SilentSpammer(Spammer):
    """Challenges what is right, and opens nothing."""

    reveals = False


# Clients and members -------------------------------------------------------------------------------------


class Withholder(Client):
    """Puts an order, looks at what comes, and never releases the test set."""

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        yield from ()


class Swapper(Client):
    """Releases easier test fragments than those it committed to."""

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if not last:
            easier = (fake("an easy fragment"), *FRAGMENTS[1:])
            yield TestRelease, {"fragments": easier, "links": TEST_LINKS}


class Hider(Client):
    """Releases a test set that it serves to nobody but its accomplices."""

    def in_reveal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        self.market.test_set_hidden = True
        yield from super().in_reveal(entry, last)


class TestsSomethingElse(Client):
    """Names test fragments of another distribution than the training data: no honest model beats a baseline
    there, so that it sees all models and pays none."""

    def in_training(self, entry: Entry, last: bool) -> Iterable[Sending]:
        self.market.test_elsewhere = True
        return ()


class TakesTestSetAway(Agent):
    """The client's accomplice: reports the test set while it is there, so that the client can take it away
    before the verdict and pay the deposit instead of the reward."""

    def in_validation(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if not last:
            yield IrretrievableReport, {"subject": TEST_SET, "role": int(Role.VERIFIER)}


class Canceller(Client):
    """Puts orders and takes them back before anybody can claim."""

    def in_training(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if not last:
            yield Cancel, {}


class KnowsTheTest(Provider):
    """The client's other account: it trains on the test set, and its model is perfect at no cost."""

    def in_training(self, entry: Entry, last: bool) -> Iterator[Sending]:
        if not last:
            model = mid(self.market.trained(entry, self.name, quality=1_000_000))
            yield Claim, {"commitment": claimed(entry, self.account, model, salt(self.name))}


# The list ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way to try, and what its best case may be."""

    name: str
    attackers: Callable[[], People] = list
    ahead: bool = False
    """Whether the attackers act before the honest; usually they see what those did."""
    verifiers: int = 2
    """The fewest honest ones among whom it can be tried."""
    accounts: tuple[str, ...] = (MALLORY,)
    client: str = "client"
    most_wei: int = -1
    """Profit per order in wei that it must not exceed; by default it must lose."""
    why: str = ""
    """Where the bound comes from, if it is not a loss."""
    results: frozenset[str] = frozenset({"won"})
    """How the orders must end."""
    during: Callable[[Market], None] = field(default=lambda market: None)
    """What happens besides, after the orders."""

    def people(self, seed: int) -> People:
        """Everybody in the market of a seed: the usual crowd for seed 0, others for the other seeds."""
        draw = random.Random(f"crowd {seed}")
        providers, validators, more = (
            draw.randint(*each) for each in (PROVIDERS, VALIDATORS, MORE_VERIFIERS)
        )
        crowd = (
            honest(providers, validators, self.verifiers + more) if seed else honest(verifiers=self.verifiers)
        )
        return [*self.attackers(), *crowd] if self.ahead else [*crowd, *self.attackers()]


def with_provider(agent: Agent) -> Callable[[], People]:
    """One provider, itself anew for each market."""
    return with_role(agent, Role.PROVIDER)


def with_role(agent: Agent, role: Role) -> Callable[[], People]:
    """One agent in a role, itself anew for each market."""
    return lambda: [(dataclasses.replace(agent), (role,))]


def two_faces(market: Market) -> None:
    """Member 0 votes twice; an honest verifier hands the votes in."""
    votes = []
    for story in (b"a", b"b"):
        vote = SignedVote(kind=COMMIT, view=0, sequence=9, digest=fake(story))
        votes.append((vote, sign(market.world.state.domain, vote, key("aggregator0"))))
    fields: dict[str, Any] = evidence_fields(votes[0], votes[1])
    market.world.stake("aggregator0", Role.AGGREGATOR)
    market.world.accept("verifier0", Evidence, **fields)
    report = market.world.state.report
    for penalty in (*market.world.state.penalties, *(report.penalties if report else ())):
        for receipt in penalty.receipts:
            market.money[receipt.account] += receipt.amount_wei


PROVIDERS, VALIDATORS, MORE_VERIFIERS = (1, 4), (3, 6), (0, 3)
"""How many honest ones of each a drawn crowd has; of verifiers, beyond those that are needed."""
PROVIDER, VALIDATOR, VERIFIER = Role.PROVIDER, Role.VALIDATOR, Role.VERIFIER
NOTHING_GAINED = "the ledger refuses it before anything is locked"

STRATEGIES: tuple[Strategy, ...] = (
    Strategy(name="model theft after reveal", attackers=with_provider(Thief(MALLORY))),
    Strategy(name="commitment copying", attackers=with_provider(Copier(MALLORY))),
    Strategy(name="claims never revealed", attackers=with_provider(NeverReveals(MALLORY))),
    Strategy(
        name="garbage revealed",
        attackers=with_provider(Garbage(MALLORY)),
        most_wei=0,
        why="paid nothing; its stake is locked until the order is sealed, and validators look at it once",
    ),
    Strategy(name="dead links revealed", attackers=with_provider(DeadLink(MALLORY))),
    Strategy(name="the best model, offline once it was scored", attackers=with_provider(Leaver(MALLORY))),
    Strategy(
        name="bait: back for the verdict",
        attackers=lambda: [
            (Bait(MALLORY), (PROVIDER,)),
            (ServedAlone("mallory2"), (VALIDATOR,)),
        ],
        accounts=(MALLORY, "mallory2"),
        most_wei=VALIDATORS_WEI // 4,
        why="its validator's share of the honest models that it scores like everybody",
    ),
    Strategy(name="false reports", attackers=with_role(FalseReporter(MALLORY), VERIFIER)),
    Strategy(name="appeals by who lied", attackers=with_role(Appellant(MALLORY), VALIDATOR)),
    Strategy(
        name="appeals to hold orders up",
        verifiers=4,
        attackers=lambda: [
            (LazyConstant("mallory2"), (VALIDATOR,)),
            (Bystander(MALLORY), (VERIFIER,)),
        ],
        accounts=(MALLORY, "mallory2"),
    ),
    Strategy(
        name="an untrained model",
        attackers=with_provider(Untrained(MALLORY)),
        most_wei=0,
        why="paid nothing below the baseline",
    ),
    Strategy(name="score copying", attackers=with_role(ScoreCopier(MALLORY), VALIDATOR)),
    Strategy(
        name="lazy validator: echo",
        attackers=with_role(Echo(MALLORY), VALIDATOR),
        most_wei=0,
        why=NOTHING_GAINED,
    ),
    Strategy(name="lazy validator: constant", attackers=with_role(LazyConstant(MALLORY), VALIDATOR)),
    Strategy(name="lazy validator: random", attackers=with_role(LazyRandom(MALLORY), VALIDATOR)),
    Strategy(name="stake and run", attackers=with_role(StakeAndRun(MALLORY), VALIDATOR)),
    Strategy(name="challenge spam", attackers=with_role(Spammer(MALLORY), VERIFIER)),
    Strategy(name="challenge spam, never revealed", attackers=with_role(SilentSpammer(MALLORY), VERIFIER)),
    Strategy(
        name="client withholds the test set",
        attackers=lambda: [(Withholder(MALLORY), ())],
        client=MALLORY,
        results=frozenset({"the client withheld the test set"}),
    ),
    Strategy(
        name="client swaps test fragments",
        attackers=lambda: [(Swapper(MALLORY), ())],
        client=MALLORY,
        results=frozenset({"the client withheld the test set"}),
    ),
    Strategy(
        name="client hides the test set from all but its own",
        attackers=lambda: [
            (Hider(MALLORY), ()),
            (KnowsTheTest("mallory2"), (PROVIDER,)),
            (ServedAlone("mallory3"), (VALIDATOR,)),
        ],
        accounts=(MALLORY, "mallory2", "mallory3"),
        client=MALLORY,
        results=frozenset({"the test set could not be fetched"}),
    ),
    Strategy(
        name="client takes the test set away after the scores",
        attackers=lambda: [
            (Client(MALLORY), ()),
            (TakesTestSetAway("mallory2"), (VERIFIER,)),
        ],
        accounts=(MALLORY, "mallory2"),
        client=MALLORY,
        most_wei=-REWARD,
        why="it pays the whole reward, and its accomplice's stake",
    ),
    Strategy(
        name="client tests something else",
        attackers=lambda: [(TestsSomethingElse(MALLORY), ())],
        ahead=True,
        client=MALLORY,
        most_wei=0,
        results=frozenset({"no model beat the baseline"}),
        why="all comes back, and it has seen the models of whoever trusted its choice of fragments",
    ),
    Strategy(
        name="client tests something else, its provider knows what",
        ahead=True,
        attackers=lambda: [
            (TestsSomethingElse(MALLORY), ()),
            (KnowsTheTest("mallory2"), (PROVIDER,)),
        ],
        accounts=(MALLORY, "mallory2"),
        client=MALLORY,
    ),
    Strategy(
        name="self-dealing client",
        attackers=lambda: [(Client(MALLORY), ()), (KnowsTheTest("mallory2"), (PROVIDER,))],
        accounts=(MALLORY, "mallory2"),
        client=MALLORY,
    ),
    Strategy(
        name="spam orders, cancelled",
        attackers=lambda: [(Canceller(MALLORY), ())],
        ahead=True,
        client=MALLORY,
        results=frozenset({"cancelled by the client"}),
        most_wei=0,
        why="everything comes back, less two transactions' gas on the chain (138,668 and a claim)",
    ),
    Strategy(
        name="member signs two batches",
        accounts=("aggregator0",),
        during=two_faces,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What one seed's market gave."""

    profit_wei: int
    """Per order, of the attacker's accounts together."""
    cost_wei: int
    """Of that, what its work cost and what it was slashed."""
    honest_debits_wei: int
    """What all others were slashed."""
    results: frozenset[str]
    by_name: dict[str, int]
    """What everybody had in the end."""


def play_out(strategy: Strategy, seed: int, orders: int, world: World | None = None) -> Market:
    """A market of so many orders with somebody who tries it, to its end."""
    market = Market(seed, strategy.people(seed), world)
    market.play(orders, strategy.client)
    strategy.during(market)
    return market


def attempt(strategy: Strategy, seed: int, orders: int) -> Attempt:
    """`play_out`, and what came of it."""
    market = play_out(strategy, seed, orders)
    mine = {who(name) for name in strategy.accounts}
    return Attempt(
        profit_wei=sum(market.money[account] for account in mine) // orders,
        cost_wei=sum(market.costs[account] + market.debits[account] for account in mine) // orders,
        honest_debits_wei=sum(wei for account, wei in market.debits.items() if account not in mine),
        results=frozenset(market.results),
        by_name={agent.name: market.money[agent.account] for agent in market.agents},
    )
