"""Validators and jurors in league: how much stake a false score takes, and what splitting stake brings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aggregator.ledger.state import Entry
from aggregator.ledger.tasks.disputes import decide
from aggregator.ledger.tasks.open_records import mid_of
from protocol.roles import Role
from protocol.transactions import Appeal
from tests.attacks.market import V_STAKE, Agent, Juror, Market, Sending, Validator, Verifier, honest
from tests.attacks.strategies import Untrained
from tests.ledger.world import Answer, answer, mid, who

People = list[tuple[Agent, Sequence[Role]]]
LIE = answer(999_999, "lie")


class League:
    """Says the lie of the league's model and the truth of all others."""

    market: Market
    account: bytes

    def said(self, model: bytes) -> Answer:
        """Its answer on a model."""
        return LIE if model in self.market.lied_about else self.market.score(self.account, model)


class LyingProvider(Untrained):
    """Its untrained model is to win."""

    def model(self, entry: Entry) -> bytes:
        model = mid(self.market.trained(entry, self.name, quality=0))
        self.market.lied_about.add(model)
        return model


class LyingValidator(League, Validator):
    """Validates it highly."""

    def opinion(self, model: bytes) -> Answer:
        return self.said(model)


class LyingJuror(League, Juror):
    """Keeps out of the validation, so as to be on the jury."""

    def opinion(self, model: bytes) -> Answer:
        return self.said(model)

    def in_validation(self, entry: Entry, last: bool) -> Iterator[Sending]:
        yield from ()


class Overruled(Verifier):
    """Challenges what is wrong, and appeals if a jury says otherwise."""

    def in_appeal(self, entry: Entry, last: bool) -> Iterator[Sending]:
        mine = {
            mid_of(entry.task, vid): record.answer
            for vid, record in entry.task.challenges.items()
            if record.challenger == self.account
        }
        for subject, dispute in sorted(entry.task.decided.items()) if not last else ():
            if mine.get(subject) not in (None, decide(dispute, entry.parameters)):
                yield Appeal, {"subject": subject, "role": int(Role.VERIFIER)}


def league_profit(jurors: int, verifiers: int, *, seed: int, orders: int, idle: int = 0) -> tuple[int, int]:
    """Wei per order for a league of a provider, a validator and ``jurors`` jurors; and honest debits in wei.

    Everybody, honest or not, has the same stake. With ``idle`` honest providers that claim nothing and judge
    when they are asked to, the honest verifiers appeal.
    """
    people: People = honest(verifiers=0 if idle else verifiers)
    if idle:
        people += [(Overruled(f"verifier{n}"), (Role.VERIFIER,)) for n in range(verifiers)]
        people += [(Juror(f"idle{n}"), (Role.PROVIDER,)) for n in range(idle)]
    people.append((LyingProvider("mallory"), (Role.PROVIDER,)))
    people.append((LyingValidator("mallory validator"), (Role.VALIDATOR,)))
    people += [(LyingJuror(f"mallory juror {n}"), (Role.VALIDATOR,)) for n in range(jurors)]
    market = Market(seed, people)
    market.play(orders)
    league = {who(agent.name) for agent, _ in people if agent.name.startswith("mallory")}
    profit = sum(market.money[account] for account in league) // orders
    return profit, sum(wei for account, wei in market.debits.items() if account not in league)


def split_profit(parts: int, *, seed: int, orders: int) -> int:
    """Wei per order for one honest validator whose stake is split over ``parts`` accounts."""
    people: People = honest()
    names = [f"mallory {n}" for n in range(parts)]
    for name in names:
        part = Validator(name)
        part.v_stake = 4 * V_STAKE // parts
        people.append((part, (Role.VALIDATOR,)))
    market = Market(seed, people)
    market.play(orders)
    return sum(market.money[who(name)] for name in names) // orders
