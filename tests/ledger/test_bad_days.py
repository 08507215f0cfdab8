"""The bad days of an ``open`` order at the ledger: who pays, who is paid, and where every wei goes."""

from __future__ import annotations

import pytest

from aggregator.ledger.settlement import MAX_REPORT_RELEASES
from aggregator.ledger.tasks.disputes import Round
from aggregator.ledger.tasks.open_records import Phase
from protocol.chain_events import Staked, UnstakeRequested
from protocol.crypto import keccak256
from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import INVALID_SCORE, Cancel, Claim, ClaimReveal, Validation, Verdict
from tests.ledger.world import DEPOSIT, REWARD, STAKE, World, answer, mid, salt, who

TOKEN = TOKEN_WEI
RIGHT, WRONG = answer(500_000), answer(990_000)
INVALID = (INVALID_SCORE, bytes(32))


@pytest.fixture
def world() -> World:
    """Four aggregators, three providers, three validators and three verifiers with 1,000 tokens each."""
    world = World.new()
    for number in range(3):
        world.stake(f"provider{number}", Role.PROVIDER)
        world.stake(f"validator{number}", Role.VALIDATOR)
        world.stake(f"verifier{number}", Role.VERIFIER)
    return world


def refund(reason: str, amount: int = REWARD + DEPOSIT) -> tuple[str, str, str, int]:
    """The client's receipt for a refund."""
    return ("client", "client", f"refund: {reason}", amount)


# Nobody delivers ---------------------------------------------------------------------------------------


def test_no_claims_refund_everything(world: World) -> None:
    oid = world.place()
    assert world.wait_out(oid) == "sealed"
    assert world.receipts(oid) == [refund("nobody claimed")]


def test_a_cancelled_order_refunds_everything_at_once(world: World) -> None:
    oid = world.place()
    world.accept("client", Cancel, oid=oid)
    assert world.receipts(oid) == [refund("cancelled by the client")]


def test_an_unknown_kind_of_order_is_refunded_at_once(world: World) -> None:
    oid = world.place(kind="alchemy")
    assert world.receipts(oid) == [refund("no task protocol is called 'alchemy'")]
    assert world.entry(oid).task is None
    world.settle()
    assert oid not in world.state.table


def test_claims_that_are_never_revealed_are_slashed_a_little_and_the_client_is_refunded(world: World) -> None:
    oid = world.place()
    world.to_reveal(oid, {"provider0": ("m", 1)})
    world.release(oid)
    assert world.wait_out(oid) == "sealed"
    assert world.receipts(oid) == sorted(
        [
            refund("no claim was revealed"),
            ("provider0", "provider", "claim never revealed", -TOKEN // 2),
            ("treasury", "treasury", "share of a slash: claim never revealed", TOKEN // 2),
        ]
    )


def test_a_withheld_test_set_costs_the_deposit_and_a_consolation(world: World) -> None:
    oid = world.place()
    world.to_reveal(oid, {"provider0": ("a", 1), "provider1": ("b", 1), "provider2": ("c", 1)})
    world.reveal("provider0", oid, "a", 1)
    world.reveal("provider1", oid, "b", 1)
    assert world.wait_out(oid) == "sealed"
    why = "the client withheld the test set"
    assert world.receipts(oid) == sorted(
        [
            refund(why, 95 * TOKEN),
            *((p, "provider", f"consolation: {why}", 25 * TOKEN // 10) for p in ("provider0", "provider1")),
            *((p, "provider", f"forfeited deposit: {why}", 5 * TOKEN) for p in ("provider0", "provider1")),
            ("provider2", "provider", "claim never revealed", -TOKEN // 2),
            ("treasury", "treasury", "share of a slash: claim never revealed", TOKEN // 2),
        ]
    )


def test_a_deposit_that_does_not_divide_evenly_is_shared_to_the_last_wei(world: World) -> None:
    oid = world.place(deposit=10 * TOKEN + 1)
    world.to_reveal(oid, {f"provider{n}": (f"m{n}", 1) for n in range(3)})
    for number in range(3):
        world.reveal(f"provider{number}", oid, f"m{number}", 1)
    world.wait_out(oid)
    shares = sorted(wei for _, _, reason, wei in world.receipts(oid) if reason.startswith("forfeited"))
    assert sum(shares) == 10 * TOKEN + 1
    assert shares[-1] - shares[0] <= 1


def test_a_reveal_that_does_not_open_its_commitment_is_refused_and_the_claim_is_void(world: World) -> None:
    oid = world.place()
    world.to_reveal(oid, {"provider0": ("mine", 1), "provider1": ("other", 1)})
    world.release(oid)
    world.reveal("provider1", oid, "other", 1)
    fields = {"size_bytes": 1, "links": (), "salt": salt("provider0")}
    world.refuse("Mismatch", "provider0", ClaimReveal, oid=oid, mid=mid("other"), **fields)
    world.refuse("Mismatch", "provider0", ClaimReveal, oid=oid, mid=mid("mine"), **fields | {"size_bytes": 2})
    assert world.wait_out(oid) == "validation"
    world.to_challenge(oid, {("validator0", "other"): RIGHT})
    world.wait_out(oid)
    assert world.outcome(oid).winner == who("provider1")
    assert world.paid(oid, "provider0") == -TOKEN // 2


def test_nobody_validates_refund_less_consolation(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("a", 1), "provider1": ("b", 1)})
    assert world.wait_out(oid) == "sealed"
    why = "no model was scored"
    assert world.receipts(oid) == sorted(
        [
            refund(why, 95 * TOKEN + DEPOSIT),
            ("provider0", "provider", f"consolation: {why}", 25 * TOKEN // 10),
            ("provider1", "provider", f"consolation: {why}", 25 * TOKEN // 10),
        ]
    )


def test_validations_that_are_never_revealed_are_slashed_and_count_for_nothing(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("a", 1)})
    world.validate("validator0", oid, "a", RIGHT, 20 * TOKEN)
    world.wait_out(oid)
    assert world.wait_out(oid) == "sealed"
    assert world.paid(oid, "validator0") == -2 * TOKEN
    assert world.paid(oid, "treasury") == 2 * TOKEN
    assert world.paid(oid, "provider0") == 5 * TOKEN


def test_nobody_beats_the_baseline_and_the_client_gets_everything_back(world: World) -> None:
    oid = world.place(baseline=600_000)
    world.to_validation(oid, {"provider0": ("a", 1)})
    world.to_challenge(oid, {("validator0", "a"): RIGHT})
    world.wait_out(oid)
    assert world.receipts(oid) == [refund("no model beat the baseline")]


# Invalid models ----------------------------------------------------------------------------------------


def test_a_model_that_validators_call_invalid_is_void_and_the_order_goes_on(world: World) -> None:
    oid = world.place(baseline=-(2**63))
    world.to_validation(oid, {"provider0": ("pickle", 1), "provider1": ("honest", 1)})
    world.to_challenge(oid, {("validator0", "pickle"): INVALID, ("validator0", "honest"): RIGHT})
    world.wait_out(oid)
    assert world.outcome(oid).winner == who("provider1")
    assert world.paid(oid, "provider0") == 0


def test_only_invalid_models_refund_everything_without_consolation(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("pickle", 1)})
    world.to_challenge(oid, {("validator0", "pickle"): INVALID})
    world.wait_out(oid)
    assert world.receipts(oid) == [refund("no model was scored")]


# Disputes ----------------------------------------------------------------------------------------------


def _verdict(world: World, oid: bytes, model: str, ballots: dict[str, tuple[int, bytes]]) -> str:
    """One round, and nobody appeals."""
    phase = world.verdicts(oid, model, ballots)
    return phase if phase != Phase.APPEAL else world.wait_out(oid)


def test_a_wrong_score_is_challenged_judged_and_slashed(world: World) -> None:
    oid = world.place(baseline=600_000)
    world.to_validation(oid, {"provider0": ("m", 1)})
    vid = world.to_challenge(oid, {("validator0", "m"): WRONG})[("validator0", "m")]
    world.challenge("verifier0", oid, vid, "m", RIGHT)
    assert world.wait_out(oid) == "challenge_reveal"
    world.reveal_challenge("verifier0", oid, vid, RIGHT)
    assert world.phase(oid) == "verdict"
    jurors = ("validator1", "validator2", "verifier1", "verifier2")
    seats = {juror for juror, _ in world.entry(oid).task.disputes[mid("m")].jurors}
    assert seats == {who(name) for name in jurors}
    assert _verdict(world, oid, "m", dict.fromkeys(jurors, RIGHT)) == "sealed"
    why = "share of a slash: wrong score"
    assert world.receipts(oid) == sorted(
        [
            refund("no model beat the baseline"),
            ("validator0", "validator", "wrong score", -5 * TOKEN),
            ("verifier0", "challenger", why, 2 * TOKEN),
            *((juror, "juror", why, TOKEN // 8) for juror in jurors),
            ("treasury", "treasury", why, 25 * TOKEN // 10),
        ]
    )
    stake = world.state.nodes[who("validator0")].stake(Role.VALIDATOR)
    assert (stake.standing, stake.locked, stake.slashed) == (STAKE - 5 * TOKEN, 0, 5 * TOKEN)


def test_a_verdict_that_overturns_every_validation_pays_the_jurors_for_scoring_the_winner(
    world: World,
) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    vid = world.to_challenge(oid, {("validator0", "m"): WRONG})[("validator0", "m")]
    world.challenge("verifier0", oid, vid, "m", RIGHT)
    world.wait_out(oid)
    world.reveal_challenge("verifier0", oid, vid, RIGHT)
    ballots = dict.fromkeys(("validator1", "validator2", "verifier1", "verifier2"), RIGHT)
    _verdict(world, oid, "m", ballots)
    outcome = world.outcome(oid)
    assert (outcome.winner, outcome.score) == (who("provider0"), RIGHT[0])
    assert ("validator1", "juror", "scored the best model", 25 * TOKEN // 10) in world.receipts(oid)


def test_a_wrong_challenge_is_slashed_to_the_validator_it_accused(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    vid = world.to_challenge(oid, {("validator0", "m"): RIGHT})[("validator0", "m")]
    world.challenge("verifier0", oid, vid, "m", WRONG)
    world.wait_out(oid)
    world.reveal_challenge("verifier0", oid, vid, WRONG)
    _verdict(world, oid, "m", dict.fromkeys(("validator1", "validator2", "verifier1"), RIGHT))
    assert world.wait_out(oid) == "sealed" if world.phase(oid) != "sealed" else True
    why = "share of a slash: wrong challenge"
    assert ("verifier0", "verifier", "wrong challenge", -5 * TOKEN) in world.receipts(oid)
    assert ("validator0", "validator", why, 2 * TOKEN) in world.receipts(oid)
    assert ("validator0", "validator", "validated the best model", 10 * TOKEN) in world.receipts(oid)


def test_a_challenge_that_is_never_revealed_cannot_shield_a_wrong_validation(world: World) -> None:
    oid = world.place(baseline=600_000)
    world.to_validation(oid, {"provider0": ("m", 1)})
    vid = world.to_challenge(oid, {("validator0", "m"): WRONG})[("validator0", "m")]
    world.challenge("verifier0", oid, vid, "m", RIGHT)  # an accomplice takes the one seat, and falls silent
    world.wait_out(oid)
    assert world.wait_out(oid) == "verdict"
    _verdict(world, oid, "m", dict.fromkeys(("validator1", "validator2", "verifier1", "verifier2"), RIGHT))
    assert world.outcome(oid).winner is None
    assert ("validator0", "validator", "wrong score", -5 * TOKEN) in world.receipts(oid)
    assert ("verifier0", "verifier", "challenge never revealed", -TOKEN // 2) in world.receipts(oid)
    assert world.paid(oid, "verifier0") < 0, "who never opened its accusation earns nothing by it"


def test_validators_that_disagree_are_judged_without_a_challenger(world: World) -> None:
    oid = world.place(baseline=600_000)
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    assert world.wait_out(oid) == "verdict"
    _verdict(world, oid, "m", dict.fromkeys(("validator2", "verifier0", "verifier1", "verifier2"), RIGHT))
    why = "share of a slash: wrong score"
    assert world.paid(oid, "validator0") == -5 * TOKEN
    assert ("treasury", "treasury", why, 45 * TOKEN // 10) in world.receipts(oid)


def test_the_same_score_with_another_digest_is_a_disagreement(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): answer(5), ("validator1", "m"): answer(5, "lazy")})
    assert world.wait_out(oid) == "verdict"


def test_only_the_disputed_model_waits_for_the_verdict(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1), "provider1": ("n", 1)})
    world.to_challenge(
        oid,
        {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT, ("validator0", "n"): answer(600_000)},
    )
    world.wait_out(oid)
    assert set(world.entry(oid).task.disputes) == {mid("m")}
    world.refuse("UnknownThing", "verifier0", Verdict, oid=oid, mid=mid("n"), commitment=bytes(32))
    _verdict(world, oid, "m", dict.fromkeys(("validator2", "verifier0", "verifier1", "verifier2"), RIGHT))
    assert world.outcome(oid).winner == who("provider1")


def test_without_a_quorum_a_larger_round_follows_and_then_the_model_is_unscored(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    assert world.wait_out(oid) == "verdict"
    first = {juror for juror, _ in world.entry(oid).task.disputes[mid("m")].jurors}
    assert _verdict(world, oid, "m", {"validator2": RIGHT, "verifier0": WRONG}) == "verdict"
    second = {juror for juror, _ in world.entry(oid).task.disputes[mid("m")].jurors}
    assert first < second == first | {who("provider1"), who("provider2")}
    assert _verdict(world, oid, "m", {"validator2": RIGHT, "provider1": RIGHT}) == "sealed"
    outcome = world.outcome(oid)
    assert outcome.winner is None and not outcome.slashes, "no quorum, no slash"
    assert world.paid(oid, "provider0") == 5 * TOKEN
    for number in range(3):
        assert world.state.nodes[who(f"validator{number}")].stake(Role.VALIDATOR).locked == 0


def test_the_second_round_can_still_decide(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    world.wait_out(oid)
    world.wait(3600)
    assert world.phase(oid) == "verdict" and world.entry(oid).task.verdict_round == 1, "nothing to reveal"
    judges = dict.fromkeys(("validator2", "verifier0", "verifier1", "provider1", "provider2"), RIGHT)
    _verdict(world, oid, "m", judges)
    if world.phase(oid) != "sealed":
        world.wait_out(oid)
    assert world.outcome(oid).score == RIGHT[0]
    assert world.paid(oid, "validator0") == -5 * TOKEN


def test_a_dispute_that_nobody_may_judge_ends_unscored(world: World) -> None:
    lonely = World.new()
    lonely.stake("provider0", Role.PROVIDER)
    lonely.stake("validator0", Role.VALIDATOR)
    lonely.stake("verifier0", Role.VERIFIER)
    oid = lonely.place()
    lonely.to_validation(oid, {"provider0": ("m", 1)})
    vid = lonely.to_challenge(oid, {("validator0", "m"): WRONG})[("validator0", "m")]
    lonely.challenge("verifier0", oid, vid, "m", RIGHT)
    lonely.wait_out(oid)
    lonely.reveal_challenge("verifier0", oid, vid, RIGHT)
    assert lonely.phase(oid) == "sealed"
    assert lonely.outcome(oid).reason == "no model was scored"


def test_parties_competitors_and_the_client_are_no_jurors(world: World) -> None:
    for name in ("provider1", "client"):
        world.stake(name, Role.VALIDATOR)
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1), "provider1": ("n", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    assert world.wait_out(oid) == "verdict"
    for name in ("provider1", "client", "validator0", "outsider0"):
        world.refuse("NotAllowed", name, Verdict, oid=oid, mid=mid("m"), commitment=bytes(32))


def test_stake_that_arrives_during_a_dispute_buys_no_votes(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    world.wait_out(oid)
    world.stake("outsider0", Role.VERIFIER, 10**6 * TOKEN)
    world.refuse("NotAllowed", "outsider0", Verdict, oid=oid, mid=mid("m"), commitment=bytes(32))
    assert world.entry(oid).task.disputes[mid("m")].weight(who("verifier0")) == STAKE


def test_a_juror_votes_once_and_opens_what_it_committed_to(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    world.wait_out(oid)
    world.judge("verifier0", oid, "m", RIGHT)
    world.refuse("AlreadyDone", "verifier0", Verdict, oid=oid, mid=mid("m"), commitment=bytes(32))


# Stakes ------------------------------------------------------------------------------------------------


def test_unbonding_stake_stays_slashable_and_leaves_only_when_no_lock_needs_it(world: World) -> None:
    world.set_parameter("unbonding_s", 10)
    oid = world.place(baseline=600_000)
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    world.unstake("validator0", Role.VALIDATOR, STAKE)
    world.wait(10)
    report = world.state.report
    assert report is not None
    assert report.releases == ((who("validator0"), Role.VALIDATOR, STAKE - 5 * TOKEN),)
    world.settle()
    world.wait_out(oid)
    _verdict(world, oid, "m", dict.fromkeys(("validator2", "verifier0", "verifier1", "verifier2"), RIGHT))
    world.wait(3600)
    report = world.state.report
    assert report is not None
    assert report.slashes == ((who("validator0"), Role.VALIDATOR, 5 * TOKEN),)
    assert not report.releases, "what was slashed is not released as well"
    world.settle()
    stake = world.state.nodes[who("validator0")].stake(Role.VALIDATOR)
    assert (stake.bonded, stake.unbonding, stake.locked, stake.slashed) == (0, 0, 0, 0)


def test_stake_that_a_lock_holds_makes_no_empty_settlements(world: World) -> None:
    world.set_parameter("unbonding_s", 10)
    world.stake("outsider0", Role.PROVIDER, 100 * TOKEN)
    oids = [world.place(train_window=30 * 24 * 3600) for _ in range(20)]
    for oid in oids:
        world.claim("outsider0", oid, "m", 1)
    world.unstake("outsider0", Role.PROVIDER, 100 * TOKEN)
    for _ in range(5):
        world.wait(3600)
    assert world.state.report is None, "a settlement that does nothing only costs gas"
    assert world.state.settled_epoch == 0


# Reclaimed orders ----------------------------------------------------------------------------------------


def test_a_reclaimed_running_order_gives_every_lock_back(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): RIGHT})
    world.reclaim(oid)
    assert oid not in world.state.table
    for account in ("provider0", "validator0"):
        assert all(stake.locked == 0 for _, stake in world.state.nodes[who(account)].stakes)
    world.refuse("UnknownOrder", "provider0", Claim, oid=oid, commitment=bytes(32))


def _sealed_with_a_slash(world: World) -> bytes:
    oid = world.place()
    world.to_reveal(oid, {"provider0": ("m", 1)})
    world.release(oid)
    world.wait_out(oid)
    assert world.outcome(oid).slashes
    return oid


def test_a_reclaimed_sealed_order_takes_its_slashes_back(world: World) -> None:
    world.block(events=[world.committee(2, 0)])  # nobody to settle: the order stays sealed
    oid = _sealed_with_a_slash(world)
    assert world.state.nodes[who("provider0")].stake(Role.PROVIDER).slashed == TOKEN // 2
    world.reclaim(oid)
    stake = world.state.nodes[who("provider0")].stake(Role.PROVIDER)
    assert (stake.bonded, stake.slashed) == (STAKE, 0), "the chain never took it"
    assert world.state.sealed == ()


def test_a_reclaimed_order_leaves_the_pending_report(world: World) -> None:
    first = _sealed_with_a_slash(world)
    assert world.state.report is not None
    second = world.place()
    world.wait_out(second)
    world.settle()
    world.wait(3600)
    third = _sealed_with_a_slash(world)
    report = world.state.report
    assert report is not None and report.orders == (second,) and third in world.state.sealed
    world.reclaim(second)
    report = world.state.report
    assert report is None or second not in report.orders
    assert first not in world.state.table


def test_a_report_left_without_anything_is_dropped_and_the_next_one_takes_its_epoch(world: World) -> None:
    oid = _sealed_with_a_slash(world)
    assert world.state.report is not None and world.state.report.epoch == 1
    world.reclaim(oid)
    assert world.state.report is None
    other = _sealed_with_a_slash(world)
    world.wait(3600)
    report = world.state.report
    assert report is not None and report.epoch == 1 and report.orders == (other,)
    world.settle()


# Settlements ---------------------------------------------------------------------------------------------


def test_a_report_merges_an_accounts_credits_and_slashes_over_orders(world: World) -> None:
    oids = [world.place(nonce=1000 + n) for n in range(3)]
    for oid in oids:
        world.claim("provider0", oid, "m", 1)
    world.wait_out(oids[0])
    for oid in oids:
        world.release(oid)
    world.wait_out(oids[0])
    report = world.state.report
    assert report is not None
    assert report.orders == tuple(sorted(oids))
    assert report.slashes == ((who("provider0"), Role.PROVIDER, 15 * TOKEN // 10),)
    assert dict(report.credits)[who("client")] == 3 * (REWARD + DEPOSIT)


def test_settled_orders_leave_the_ledger_and_keep_their_receipt_root(world: World) -> None:
    oid = _sealed_with_a_slash(world)
    world.settle()
    assert oid not in world.state.table and oid in world.state.receipt_roots
    assert world.state.settled_epoch == 1 and world.state.report is None


def test_one_report_at_a_time_and_one_cycle_between_them(world: World) -> None:
    _sealed_with_a_slash(world)
    report = world.state.report
    later = world.place()
    world.wait_out(later)
    world.wait(10 * 3600)
    assert world.state.report == report, "the next report waits for the chain"
    world.settle()
    world.wait(0)
    assert world.state.report is not None and world.state.report.orders == (later,)


def test_a_committee_change_makes_the_pending_report_again_for_the_new_committee(world: World) -> None:
    _sealed_with_a_slash(world)
    before = world.state.report
    assert before is not None
    world.block(events=[world.committee(2, 7)])
    after = world.state.report
    assert after is not None
    assert (after.epoch, after.committee_epoch) == (before.epoch, 2)
    assert (after.orders, after.slashes, after.credits) == (before.orders, before.slashes, before.credits)


def test_an_order_sealed_after_a_committee_change_pays_its_tax_to_the_new_committee(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): RIGHT})
    world.block(events=[world.committee(2, 5)])
    world.wait_out(oid)
    assert world.paid(oid, "aggregator4") == TOKEN


def test_a_vote_for_shares_above_the_whole_reward_cannot_make_a_debt(world: World) -> None:
    for name in ("tax_bps", "validator_bps", "consolation_bps"):
        world.set_parameter(name, 10_000)
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1), "provider1": ("n", 1)})
    world.to_challenge(oid, {("validator0", "m"): RIGHT, ("validator0", "n"): answer(1)})
    world.wait_out(oid)
    assert all(wei > 0 for *_, wei in world.receipts(oid))


def test_a_report_takes_in_a_bounded_number_of_releases(world: World) -> None:
    world.set_parameter("unbonding_s", 10)
    names = [keccak256(b"%d" % n)[:20] for n in range(MAX_REPORT_RELEASES + 3)]
    world.block(
        events=[Staked(account=n, role=1, amount=100 * TOKEN, bonded=100 * TOKEN) for n in names]
        + [UnstakeRequested(account=n, role=1, amount=100 * TOKEN) for n in names]
    )
    world.wait(10)
    report = world.state.report
    assert report is not None and len(report.releases) == MAX_REPORT_RELEASES
    world.settle()
    world.wait(3600)
    report = world.state.report
    assert report is not None and len(report.releases) == 3


# Bounds --------------------------------------------------------------------------------------------------


def test_an_order_takes_no_more_claims_and_validations_than_one_settlement_can_pay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.ledger.tasks.open_transactions.MAX_CLAIMS", 2)
    monkeypatch.setattr("aggregator.ledger.tasks.open_transactions.MAX_VALIDATIONS", 1)
    oid = world.place()
    world.claim("provider0", oid, "a", 1)
    world.claim("provider1", oid, "b", 1)
    world.refuse("OrderFull", "provider2", Claim, oid=oid, commitment=bytes(32))
    world.claim("provider0", oid, "a", 1)  # replacing one's own claim needs no room
    world.wait_out(oid)
    world.release(oid)
    world.reveal("provider0", oid, "a", 1)
    world.reveal("provider1", oid, "b", 1)
    world.validate("validator0", oid, "a", RIGHT)
    fields = {"commitment": bytes(32), "v_stake": 5 * TOKEN}
    world.refuse("OrderFull", "validator1", Validation, oid=oid, mid=mid("a"), **fields)


def test_the_heaviest_stakes_judge_when_there_are_more_than_a_settlement_can_pay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.ledger.tasks.disputes.MAX_JURORS", dict.fromkeys(Round, 2))
    world.stake("verifier2", Role.VERIFIER, 2 * TOKEN)
    world.stake("verifier1", Role.VERIFIER, TOKEN)
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    world.wait_out(oid)
    jurors = dict(world.entry(oid).task.disputes[mid("m")].jurors)
    assert jurors == {who("verifier1"): STAKE + TOKEN, who("verifier2"): STAKE + 2 * TOKEN}


def test_a_cycle_takes_in_no_more_slashes_than_one_settlement_can_apply(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.ledger.settlement.MAX_REPORT_SLASHES", 2)
    first, second = world.place(), world.place()
    for oid, number in ((first, 0), (first, 1), (second, 2)):
        world.claim(f"provider{number}", oid, "m", 1)
    world.wait_out(first)
    for oid in (first, second):
        world.release(oid)
    world.wait_out(first)
    report = world.state.report
    assert report is not None and len(report.orders) == 1 and len(world.state.sealed) == 1


def test_an_order_too_large_for_a_shared_report_has_one_of_its_own_and_blocks_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.ledger.settlement.MAX_REPORT_SLASHES", 1)
    monkeypatch.setattr("aggregator.ledger.settlement.MAX_REPORT_CREDITS", 1)
    large, small = world.place(), world.place()
    for oid, number in ((large, 0), (large, 1), (large, 2), (small, 0)):
        world.claim(f"provider{number}", oid, "m", 1)
    world.wait_out(large)
    for oid in (large, small):
        world.release(oid)
    world.wait_out(large)
    for oid, slashes in ((large, 3), (small, 1)):
        if world.state.report is None:
            world.wait(DEFAULTS["update_s"])
        report = world.state.report
        assert report is not None and report.orders == (oid,) and len(report.slashes) == slashes
        assert len(report.credits) > 1
        world.settle()
    assert not world.state.sealed and not world.state.table
