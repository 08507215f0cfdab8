"""Any mixture of wrong scores, challenges, reports, ballots and appeals in one order keeps the books.

The world checks the whole state after every block; here the order is also played to its end.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.ledger.tasks.disputes import is_irretrievable
from aggregator.ledger.tasks.open_outcome import verdict_on
from protocol.roles import Role
from tests.ledger.world import IRRETRIEVABLE, TEST_SET, Answer, World, answer, mid, who

RIGHT, WRONG = answer(500_000), answer(700_000)
MODELS = ("m", "n")
PROVIDERS = ("provider0", "provider1")
VALIDATORS = ("validator0", "validator1")
VERIFIERS = ("verifier0", "verifier1", "verifier2", "verifier3")
IDLE = ("outsider0", "outsider1")
STAKED = (
    *((name, Role.PROVIDER) for name in (*PROVIDERS, *IDLE)),
    *((name, Role.VALIDATOR) for name in VALIDATORS),
    *((name, Role.VERIFIER) for name in VERIFIERS),
)
SCORES = st.sampled_from((RIGHT, WRONG, None))
BALLOTS = st.sampled_from((RIGHT, RIGHT, WRONG, IRRETRIEVABLE, IRRETRIEVABLE, None))
SUBJECTS: tuple[str | bytes, ...] = (*MODELS, TEST_SET)


@dataclass(frozen=True)
class Plan:
    """What everybody does in one order; none means that somebody keeps out of something."""

    scores: dict[tuple[str, str], Answer | None]
    reports: dict[str | bytes, str | None]
    challenged: bool
    ballots: list[dict[tuple[str, str | bytes], Answer | None]]
    """Per round, by juror and subject."""
    appeals: dict[str | bytes, str | None]


PLANS = st.builds(
    Plan,
    scores=st.fixed_dictionaries({(name, model): SCORES for name in VALIDATORS for model in MODELS}),
    reports=st.fixed_dictionaries(
        {subject: st.sampled_from(("verifier0", "validator0", None)) for subject in SUBJECTS}
    ),
    challenged=st.booleans(),
    ballots=st.lists(
        st.fixed_dictionaries(
            {(name, subject): BALLOTS for name in (*VALIDATORS, *VERIFIERS, *IDLE) for subject in SUBJECTS}
        ),
        min_size=3,
        max_size=3,
    ),
    appeals=st.fixed_dictionaries(
        {subject: st.sampled_from(("provider0", "validator1", "outsider0", None)) for subject in SUBJECTS}
    ),
)


@settings(max_examples=60)
@given(plan=PLANS)
def test_whatever_a_jury_hears_the_receipts_sum_to_what_came_in_and_no_lock_is_left(plan: Plan) -> None:
    world = World.new()
    for name, role in STAKED:
        world.stake(name, role)
    oid = world.place()
    world.to_validation(oid, dict(zip(PROVIDERS, ((model, 1) for model in MODELS), strict=True)))
    play(world, oid, plan)
    entry, outcome = world.entry(oid), world.outcome(oid)
    task = entry.task
    assert len([phase for phase, _ in task.history if phase == "appeal"]) <= 1
    slashed = {(slash.account, slash.role): 0 for slash in outcome.slashes}
    for slash in outcome.slashes:
        slashed[slash.account, slash.role] += slash.amount_wei
    for name, role in STAKED:
        stake = world.state.nodes[who(name)].stake(role)
        assert (stake.locked, stake.slashed) == (0, slashed.get((who(name), role), 0))
    for subject in SUBJECTS:
        named = mid(subject) if isinstance(subject, str) else subject
        verdict = verdict_on(entry, named)
        if verdict is None:
            # Without a quorum nobody pays for what was said about it.
            assert not any(named in item.refs for item in outcome.receipts if item.amount_wei < 0)
        elif is_irretrievable(verdict):
            assert outcome.mid != named
        for said in (item.refs for item in outcome.receipts if item.reason == "appeal without effect"):
            assert said[0] in task.appeals
    while world.state.report is None:
        world.wait(3600)
    world.settle()
    assert oid not in world.state.table


def play(world: World, oid: bytes, plan: Plan) -> None:
    """From the validation window to the seal."""
    given = {key: said for key, said in plan.scores.items() if said is not None}
    vids = {(name, model): world.validate(name, oid, model, said) for (name, model), said in given.items()}
    for subject, reporter in plan.reports.items():
        if reporter is not None:
            role = Role.VERIFIER if reporter.startswith("verifier") else Role.VALIDATOR
            world.report(reporter, oid, subject, role)
    world.wait_out(oid)
    for (name, model), said in given.items():
        world.reveal_validation(name, oid, model, said)
    if world.phase(oid) == "challenge":
        if plan.challenged:
            (name, model), vid = sorted(vids.items())[0]
            opposite = WRONG if given[name, model] == RIGHT else RIGHT
            world.challenge("verifier1", oid, vid, model, opposite)
            world.wait_out(oid)
            world.reveal_challenge("verifier1", oid, vid, opposite)
        else:
            world.wait_out(oid)
    while world.entry(oid).outcome is None:
        if world.phase(oid) == "appeal":
            appeal(world, oid, plan)
        else:
            vote(world, oid, plan)


def vote(world: World, oid: bytes, plan: Plan) -> None:
    """One verdict round."""
    task = world.entry(oid).task
    cast: dict[str | bytes, dict[str, Answer]] = {}
    for (name, subject), said in plan.ballots[task.verdict_round].items():
        named = mid(subject) if isinstance(subject, str) else subject
        if said is not None and named in task.disputes and task.disputes[named].weight(who(name)):
            cast.setdefault(subject, {})[name] = said
    world.all_verdicts(oid, cast)


def appeal(world: World, oid: bytes, plan: Plan) -> None:
    """Whoever appeals does."""
    roles = {"provider0": Role.PROVIDER, "validator1": Role.VALIDATOR, "outsider0": Role.PROVIDER}
    for subject, appellant in plan.appeals.items():
        named = mid(subject) if isinstance(subject, str) else subject
        if appellant is not None and named in world.entry(oid).task.decided:
            world.appeal(appellant, oid, subject, roles[appellant])
    if world.phase(oid) == "appeal":
        world.wait_out(oid)
