"""Models and test sets that cannot be fetched: who may say so, who decides, and what each side loses."""

from __future__ import annotations

import pytest

from aggregator.ledger.tasks.disputes import decide
from protocol.crypto import commitment
from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import (
    IRRETRIEVABLE_SCORE,
    Claim,
    ClaimReveal,
    IrretrievableReport,
    Validation,
    ValidationReveal,
    claim_body,
    score_body,
)
from tests.ledger.world import (
    DEPOSIT,
    IRRETRIEVABLE,
    REWARD,
    STAKE,
    TEST_SET,
    World,
    answer,
    mid,
    salt,
    who,
)

TOKEN = TOKEN_WEI
RIGHT, BETTER = answer(500_000), answer(900_000)
THERE = answer(0, "what only somebody knows who has the test set")
VALIDATORS = ("validator0", "validator1", "validator2")
JURY = ("validator1", "validator2", "verifier1", "verifier2")


@pytest.fixture
def world() -> World:
    """Four aggregators, three providers, three validators and three verifiers with 1,000 tokens each."""
    world = World.new()
    for number in range(3):
        world.stake(f"provider{number}", Role.PROVIDER)
        world.stake(f"validator{number}", Role.VALIDATOR)
        world.stake(f"verifier{number}", Role.VERIFIER)
    return world


def two_models(world: World) -> bytes:
    """An order in validation: ``gone`` by provider 0, ``here`` by provider 1."""
    oid = world.place()
    world.to_validation(oid, {"provider0": ("gone", 1), "provider1": ("here", 1)})
    return oid


def stake_of(world: World, name: str, role: Role) -> tuple[int, int, int]:
    """Standing, locked and slashed stake in wei."""
    stake = world.state.nodes[who(name)].stake(role)
    return stake.standing, stake.locked, stake.slashed


# Upheld --------------------------------------------------------------------------------------------------


def test_the_best_model_is_out_if_a_jury_cannot_fetch_it_and_the_next_best_wins(world: World) -> None:
    oid = two_models(world)
    world.to_challenge(oid, {("validator0", "gone"): BETTER, ("validator0", "here"): RIGHT})
    report = world.report("verifier0", oid, "gone")
    assert world.wait_out(oid) == "verdict"
    assert world.verdicts(oid, "gone", dict.fromkeys(JURY, IRRETRIEVABLE)) == "appeal"
    assert world.wait_out(oid) == "sealed"
    outcome = world.outcome(oid)
    assert (outcome.winner, outcome.mid) == (who("provider1"), mid("here"))
    why = "share of a slash: model irretrievable"
    slashed = DEFAULTS["claim_stake_wei"]
    assert world.receipts(oid) == sorted(
        [
            ("provider0", "provider", "model irretrievable", -slashed),
            ("verifier0", "reporter", why, slashed * 4 // 10),
            *((juror, "juror", why, slashed // 40) for juror in JURY),
            ("treasury", "treasury", why, slashed // 2),
            ("provider1", "provider", "best model", 85 * TOKEN),
            ("validator0", "validator", "validated the best model", 10 * TOKEN),
            ("client", "client", "deposit returned", DEPOSIT),
            *((f"aggregator{n}", "aggregator", "tax", 125 * TOKEN // 100) for n in range(4)),
        ]
    )
    (proof,) = {item.refs for item in outcome.receipts if "irretrievable" in item.reason}
    assert proof == (mid("gone"), report), "each line names the model and the report"
    assert stake_of(world, "verifier0", Role.VERIFIER) == (STAKE, 0, 0)
    assert stake_of(world, "validator0", Role.VALIDATOR) == (STAKE, 0, 0), (
        "who scored it in time loses nothing"
    )
    assert stake_of(world, "provider0", Role.PROVIDER) == (STAKE - slashed, 0, slashed)


def test_a_model_that_nobody_could_fetch_is_judged_at_once_and_not_consoled(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("gone", 1)})
    world.report("validator0", oid, "gone", Role.VALIDATOR)
    assert world.wait_out(oid) == "verdict", "there is no validation to reveal or to challenge"
    world.verdicts(oid, "gone", dict.fromkeys((*JURY, "verifier0"), IRRETRIEVABLE))
    world.wait_out(oid)
    assert ("client", "client", "refund: no model was scored", REWARD + DEPOSIT) in world.receipts(oid)
    assert world.paid(oid, "provider0") == -DEFAULTS["claim_stake_wei"]


def test_all_who_claimed_a_model_that_is_gone_lose_their_claim_stake(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("gone", 1), "provider1": ("gone", 1), "provider2": ("here", 1)})
    world.to_challenge(oid, {("validator0", "here"): RIGHT})
    world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    world.verdicts(oid, "gone", dict.fromkeys((*JURY, "validator0"), IRRETRIEVABLE))
    world.wait_out(oid)
    assert world.paid(oid, "provider0") == world.paid(oid, "provider1") == -DEFAULTS["claim_stake_wei"]
    assert world.outcome(oid).winner == who("provider2")


def test_jurors_of_a_disputed_score_may_find_the_model_gone_without_a_report(world: World) -> None:
    oid = two_models(world)
    world.to_challenge(
        oid,
        {
            ("validator0", "gone"): BETTER,
            ("validator1", "gone"): answer(1),
            ("validator0", "here"): RIGHT,
        },
    )
    assert world.wait_out(oid) == "verdict"
    jury = ("validator2", "verifier0", "verifier1", "verifier2")
    world.verdicts(oid, "gone", dict.fromkeys(jury, IRRETRIEVABLE))
    world.wait_out(oid)
    assert world.outcome(oid).winner == who("provider1")
    assert {slash.account for slash in world.outcome(oid).slashes} == {who("provider0")}
    assert not any(role == "reporter" for _, role, _, _ in world.receipts(oid))


def test_the_share_slashed_is_a_parameter(world: World) -> None:
    world.set_parameter("irretrievable_bps", 1000)
    oid = world.place()
    world.set_parameter("irretrievable_bps", 10_000)  # too late for this order
    world.to_validation(oid, {"provider0": ("gone", 1)})
    world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    world.verdicts(oid, "gone", dict.fromkeys((*JURY, "validator0"), IRRETRIEVABLE))
    world.wait_out(oid)
    assert world.paid(oid, "provider0") == -DEFAULTS["claim_stake_wei"] // 10


# Refused -------------------------------------------------------------------------------------------------


def test_a_wrong_report_costs_its_stake_and_the_model_keeps_its_score(world: World) -> None:
    oid = two_models(world)
    world.to_challenge(oid, {("validator0", "gone"): BETTER, ("validator0", "here"): RIGHT})
    report = world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    world.verdicts(oid, "gone", dict.fromkeys(JURY, BETTER))
    world.wait_out(oid)
    assert world.outcome(oid).winner == who("provider0")
    stake, why = DEFAULTS["report_stake_wei"], "share of a slash: wrong report"
    lines = [line for line in world.receipts(oid) if "report" in line[2]]
    assert lines == sorted(
        [
            ("verifier0", "verifier", "wrong report", -stake),
            *((juror, "juror", why, stake // 40) for juror in JURY),
            ("treasury", "treasury", why, stake * 9 // 10),
        ]
    ), "nothing for the provider: it could otherwise go offline to provoke reports"
    refs = [item.refs for item in world.outcome(oid).receipts if item.reason == "wrong report"]
    assert refs == [(mid("gone"), report)]


def test_a_provider_that_comes_back_for_the_verdict_cannot_make_an_honest_reporter_pay(world: World) -> None:
    """Nobody had scored it: so it was not there in time, whatever the jury finds later."""
    oid = two_models(world)
    world.to_challenge(oid, {("validator0", "here"): RIGHT})
    world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    world.verdicts(oid, "gone", dict.fromkeys((*JURY, "validator0"), BETTER))
    world.wait_out(oid)
    assert world.outcome(oid).winner == who("provider0"), "the jury's score counts as any other"
    assert not world.outcome(oid).slashes
    assert stake_of(world, "verifier0", Role.VERIFIER) == (STAKE, 0, 0)
    assert world.paid(oid, "validator1") == 10 * TOKEN // 5, "the jurors did the validators' work"


def test_an_accomplice_that_alone_was_served_does_not_make_an_honest_reporter_pay(world: World) -> None:
    oid = two_models(world)
    world.to_challenge(
        oid,
        {
            ("validator0", "here"): RIGHT,
            ("validator1", "here"): RIGHT,
            ("validator2", "here"): RIGHT,
            ("validator2", "gone"): BETTER,
        },
    )
    world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    jury = ("validator0", "validator1", "verifier1", "verifier2")
    world.verdicts(oid, "gone", dict.fromkeys(jury, BETTER))
    world.wait_out(oid)
    assert not world.outcome(oid).slashes


def test_a_verdict_on_a_reported_model_also_judges_its_scores(world: World) -> None:
    oid = two_models(world)
    world.to_challenge(oid, {("validator0", "gone"): BETTER, ("validator0", "here"): answer(600_000)})
    world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    world.verdicts(oid, "gone", dict.fromkeys(JURY, RIGHT))
    world.wait_out(oid)
    wrong = ("validator0", "validator", "wrong score", -DEFAULTS["min_validation_stake_wei"])
    assert wrong in world.receipts(oid)
    assert world.paid(oid, "verifier0") == -DEFAULTS["report_stake_wei"]
    assert world.outcome(oid).winner == who("provider1")


# Nobody decides ------------------------------------------------------------------------------------------


def test_without_a_quorum_everyone_gets_the_stake_back_and_the_validators_score_stands(world: World) -> None:
    oid = two_models(world)
    world.to_challenge(oid, {("validator0", "gone"): BETTER, ("validator0", "here"): RIGHT})
    world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    assert world.verdicts(oid, "gone", {"validator1": IRRETRIEVABLE, "verifier1": BETTER}) == "verdict"
    assert world.wait_out(oid) == "sealed", "the larger round found none either; there is nothing to appeal"
    assert world.outcome(oid).winner == who("provider0"), "else a report that nobody judges would win"
    assert not world.outcome(oid).slashes
    for name, role in (("verifier0", Role.VERIFIER), ("provider0", Role.PROVIDER)):
        assert stake_of(world, name, role) == (STAKE, 0, 0)


def test_a_reclaimed_order_gives_the_reporters_stake_back(world: World) -> None:
    oid = two_models(world)
    world.report("verifier0", oid, "gone")
    assert stake_of(world, "verifier0", Role.VERIFIER)[1] == DEFAULTS["report_stake_wei"]
    world.reclaim(oid)
    assert stake_of(world, "verifier0", Role.VERIFIER) == (STAKE, 0, 0)


# The test set --------------------------------------------------------------------------------------------


def test_a_test_set_that_cannot_be_fetched_is_one_that_was_withheld(world: World) -> None:
    oid = two_models(world)
    report = world.report("validator0", oid, TEST_SET, Role.VALIDATOR)
    assert world.wait_out(oid) == "verdict"
    jury = (*JURY, "verifier0")
    assert world.verdicts(oid, TEST_SET, dict.fromkeys(jury, IRRETRIEVABLE)) == "appeal"
    world.wait_out(oid)
    what = "the test set could not be fetched"
    assert world.outcome(oid).reason == what
    assert world.receipts(oid) == sorted(
        [
            ("client", "client", f"refund: {what}", 95 * TOKEN),
            ("validator0", "reporter", f"share of the deposit: {what}", 4 * TOKEN),
            *((juror, "juror", f"share of the deposit: {what}", TOKEN // 5) for juror in jury),
            *((f"provider{n}", "provider", f"forfeited deposit: {what}", 25 * TOKEN // 10) for n in (0, 1)),
            *((f"provider{n}", "provider", f"consolation: {what}", 25 * TOKEN // 10) for n in (0, 1)),
        ]
    )
    shares = [item.refs for item in world.outcome(oid).receipts if item.role == "reporter"]
    assert shares == [(TEST_SET, report)]


def test_a_model_that_is_gone_too_is_not_consoled_for_the_test_set(world: World) -> None:
    oid = two_models(world)
    world.report("validator0", oid, TEST_SET, Role.VALIDATOR)
    world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    gone = dict.fromkeys(JURY, IRRETRIEVABLE)
    assert world.all_verdicts(oid, {TEST_SET: gone, "gone": gone}) == "appeal"
    world.wait_out(oid)
    assert world.paid(oid, "provider0") == -DEFAULTS["claim_stake_wei"]
    assert world.paid(oid, "provider1") == 10 * TOKEN, (
        "all of what is left of the deposit, and the consolation"
    )


def test_a_test_set_that_a_jury_fetches_costs_the_reporter_if_somebody_had_scored_with_it(
    world: World,
) -> None:
    oid = two_models(world)
    world.validate("validator0", oid, "here", RIGHT)
    world.report("verifier0", oid, TEST_SET)
    world.wait_out(oid)
    world.reveal_validation("validator0", oid, "here", RIGHT)
    assert world.wait_out(oid) == "verdict"
    world.verdicts(oid, TEST_SET, dict.fromkeys(JURY, THERE))
    world.wait_out(oid)
    assert world.outcome(oid).winner == who("provider1")
    assert world.paid(oid, "verifier0") == -DEFAULTS["report_stake_wei"]


def test_once_somebody_has_scored_the_test_set_cannot_be_reported_any_more(world: World) -> None:
    """Else a client could look at models and scores, take the test set away and keep most of the reward."""
    oid = two_models(world)
    world.to_challenge(oid, {("validator0", "here"): RIGHT})
    fields = {"subject": TEST_SET, "role": int(Role.VERIFIER)}
    reason = world.refuse("NotAllowed", "verifier0", IrretrievableReport, oid=oid, **fields)
    assert "scored" in reason


# Who may, and how often ----------------------------------------------------------------------------------


def test_a_report_is_of_something_revealed_by_somebody_staked_who_is_not_its_source(world: World) -> None:
    oid = two_models(world)
    world.stake("client", Role.VERIFIER)

    def refused(code: str, name: str, subject: bytes, role: int) -> None:
        world.refuse(code, name, IrretrievableReport, oid=oid, subject=subject, role=role)

    refused("UnknownThing", "verifier0", mid("nothing"), Role.VERIFIER)
    refused("NotStaked", "verifier0", mid("gone"), Role.VALIDATOR)
    refused("NotStaked", "outsider0", mid("gone"), Role.VERIFIER)
    refused("NotAllowed", "verifier0", mid("gone"), Role.AGGREGATOR)
    refused("NotAllowed", "verifier0", mid("gone"), 77)
    refused("NotAllowed", "provider0", mid("gone"), Role.PROVIDER)
    refused("NotAllowed", "client", TEST_SET, Role.VERIFIER)
    world.report("client", oid, "gone")  # who pays for a model may say that it cannot have it
    refused("AlreadyDone", "verifier0", mid("gone"), Role.VERIFIER)
    world.report("provider0", oid, "here", Role.PROVIDER)


def test_a_report_locks_free_stake(world: World) -> None:
    world.stake("outsider0", Role.VERIFIER, DEFAULTS["min_stake_verifier_wei"])
    world.set_parameter("report_stake_wei", 30 * TOKEN)
    oid = two_models(world)
    world.report("outsider0", oid, "gone")
    fields = {"subject": mid("here"), "role": int(Role.VERIFIER)}
    world.refuse("NotStaked", "outsider0", IrretrievableReport, oid=oid, **fields)


def test_an_order_takes_a_bounded_number_of_reports(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.ledger.tasks.open_transactions.MAX_IRRETRIEVABLE_REPORTS", 1)
    oid = two_models(world)
    world.report("verifier0", oid, "gone")
    fields = {"subject": mid("here"), "role": int(Role.VERIFIER)}
    world.refuse("OrderFull", "verifier1", IrretrievableReport, oid=oid, **fields)
    world.report("verifier1", oid, TEST_SET)  # of which there is one, and which nobody can crowd out


def test_reporter_claimants_and_client_do_not_judge_a_report(world: World) -> None:
    world.stake("client", Role.VERIFIER)
    world.stake("provider1", Role.VALIDATOR)
    oid = two_models(world)
    world.report("verifier0", oid, "gone")
    world.report("validator0", oid, TEST_SET, Role.VALIDATOR)
    world.wait_out(oid)
    seats = {
        subject: {juror for juror, _ in d.jurors} for subject, d in world.entry(oid).task.disputes.items()
    }
    everyone = {who(name) for name in (*VALIDATORS, "verifier0", "verifier1", "verifier2")}
    assert seats == {mid("gone"): everyone - {who("verifier0")}, TEST_SET: everyone - {who("validator0")}}


def test_who_cannot_fetch_a_model_validates_nothing(world: World) -> None:
    oid = two_models(world)
    body = score_body(mid("gone"), *IRRETRIEVABLE)
    committed = commitment(oid, who("validator0"), body, salt("validator0"))
    fields = {"mid": mid("gone"), "commitment": committed, "v_stake": 5 * TOKEN}
    world.accept("validator0", Validation, oid=oid, **fields)
    world.wait_out(oid)
    opened = {"score": IRRETRIEVABLE_SCORE, "digest": bytes(32), "salt": salt("validator0")}
    world.refuse("NotAllowed", "validator0", ValidationReveal, oid=oid, mid=mid("gone"), **opened)


def test_no_model_takes_the_name_of_the_test_set(world: World) -> None:
    oid = world.place()
    committed = commitment(oid, who("provider0"), claim_body(TEST_SET, 1), salt("provider0"))
    world.accept("provider0", Claim, oid=oid, commitment=committed)
    world.wait_out(oid)
    fields = {"mid": TEST_SET, "size_bytes": 1, "links": (), "salt": salt("provider0")}
    world.refuse("NotAllowed", "provider0", ClaimReveal, oid=oid, **fields)


def test_jurors_who_disagree_about_why_it_is_there_still_need_one_answer(world: World) -> None:
    """A quorum is for one answer: "it can be fetched" with two scores decides nothing."""
    oid = two_models(world)
    world.to_challenge(oid, {("validator0", "gone"): BETTER})
    world.report("verifier0", oid, "gone")
    world.wait_out(oid)
    split = {"validator1": BETTER, "validator2": BETTER, "verifier1": RIGHT, "verifier2": RIGHT}
    assert world.verdicts(oid, "gone", split) == "verdict"
    task = world.entry(oid).task
    assert task.verdict_round == 1 and decide(task.disputes[mid("gone")], world.entry(oid).parameters) is None
