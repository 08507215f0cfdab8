"""An ``open`` order from escrow to receipts, phase by phase, and who may do what on the way."""

from __future__ import annotations

import pytest

from aggregator.ledger.events import OrderSealed, OrderTaken, PhaseEntered
from protocol.crypto import commitment, keccak256
from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import (
    Appeal,
    Cancel,
    Challenge,
    ChallengeReveal,
    Claim,
    ClaimReveal,
    IrretrievableReport,
    TestRelease,
    Validation,
    ValidationReveal,
    Verdict,
    claim_body,
    score_body,
)
from tests.ledger.world import (
    DEPOSIT,
    FRAGMENTS,
    REWARD,
    STAKE,
    TEST_LINKS,
    World,
    answer,
    mid,
    salt,
    who,
)

TOKEN = TOKEN_WEI


@pytest.fixture
def world() -> World:
    """Four aggregators, three providers, three validators and three verifiers, all staked."""
    world = World.new()
    for number in range(3):
        world.stake(f"provider{number}", Role.PROVIDER)
        world.stake(f"validator{number}", Role.VALIDATOR)
        world.stake(f"verifier{number}", Role.VERIFIER)
    return world


def test_a_good_order_pays_the_best_model_its_validators_the_committee_and_the_runner_up(
    world: World,
) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("good", 900), "provider1": ("better", 1000)})
    world.to_challenge(
        oid,
        {
            ("validator0", "good"): answer(700_000),
            ("validator0", "better"): answer(800_000),
            ("validator1", "better"): answer(800_000),
        },
    )
    assert world.wait_out(oid) == "sealed"
    outcome = world.outcome(oid)
    assert (outcome.winner, outcome.mid, outcome.score) == (who("provider1"), mid("better"), 800_000)
    assert world.receipts(oid) == sorted(
        [
            ("provider1", "provider", "best model", 80 * TOKEN),
            ("provider0", "provider", "consolation: not the best", 5 * TOKEN),
            ("validator0", "validator", "validated the best model", 5 * TOKEN),
            ("validator1", "validator", "validated the best model", 5 * TOKEN),
            ("client", "client", "deposit returned", DEPOSIT),
            *((f"aggregator{n}", "aggregator", "tax", 125 * TOKEN // 100) for n in range(4)),
        ]
    )
    assert not outcome.slashes
    assert [str(phase) for phase, _ in world.entry(oid).task.history] == [
        "training",
        "reveal",
        "validation",
        "validation_reveal",
        "challenge",
        "sealed",
    ]
    told = [type(event) for event in world.events if getattr(event, "oid", None) == oid]
    assert told == [OrderTaken, *[PhaseEntered] * 5, OrderSealed]


def test_receipts_of_a_good_order_name_what_they_follow_from(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    vids = world.to_challenge(oid, {("validator0", "m"): answer(5)})
    world.wait_out(oid)
    refs = {item.reason: item.refs for item in world.outcome(oid).receipts}
    assert refs["best model"] == (mid("m"),)
    assert refs["validated the best model"] == (mid("m"), vids[("validator0", "m")])


def test_without_a_runner_up_the_winner_keeps_the_consolation(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): answer(5)})
    world.wait_out(oid)
    assert world.paid(oid, "provider0") == 85 * TOKEN


def test_without_a_committee_the_tax_goes_to_the_treasury() -> None:
    world = World.new(members=0)
    world.stake("provider0", Role.PROVIDER)
    world.stake("validator0", Role.VALIDATOR)
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): answer(5)})
    world.wait_out(oid)
    assert world.paid(oid, "treasury") == 5 * TOKEN


def test_validators_of_the_winner_share_by_stake(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    for name, tokens in (("validator0", 5), ("validator1", 15)):
        world.validate(name, oid, "m", answer(9), tokens * TOKEN)
    world.wait_out(oid)
    for name in ("validator0", "validator1"):
        world.reveal_validation(name, oid, "m", answer(9))
    world.wait_out(oid)
    assert world.paid(oid, "validator0") * 3 == world.paid(oid, "validator1") == 75 * TOKEN // 10


# Who wins ----------------------------------------------------------------------------------------------


def _winner(world: World, claims: dict[str, tuple[str, int]], scores: dict[str, int], baseline: int) -> str:
    oid = world.place(baseline=baseline)
    world.to_validation(oid, claims)
    world.to_challenge(oid, {("validator0", model): answer(score) for model, score in scores.items()})
    world.wait_out(oid)
    winner = world.outcome(oid).winner
    return next((name for name in claims if who(name) == winner), "")


def test_the_highest_score_wins_and_negative_scores_compare_as_numbers(world: World) -> None:
    claims = {"provider0": ("a", 1), "provider1": ("b", 1)}
    assert _winner(world, claims, {"a": -5, "b": -4}, -(10**6)) == "provider1"


def test_the_smaller_file_wins_a_tie(world: World) -> None:
    claims = {"provider0": ("a", 11), "provider1": ("b", 10), "provider2": ("c", 12)}
    assert _winner(world, claims, {"a": 7, "b": 7, "c": 7}, 0) == "provider1"


def test_the_lower_hash_of_provider_and_model_wins_a_full_tie(world: World) -> None:
    claims = {name: (f"model of {name}", 10) for name in ("provider0", "provider1", "provider2")}
    lowest = min(claims, key=lambda name: keccak256(who(name) + mid(claims[name][0])))
    assert _winner(world, claims, {model: 7 for model, _ in claims.values()}, 0) == lowest


def test_two_claims_on_the_same_model_are_one_model_and_two_claims(world: World) -> None:
    claims = {"provider0": ("same", 10), "provider1": ("same", 10)}
    oid = world.place()
    world.to_validation(oid, claims)
    world.to_challenge(oid, {("validator0", "same"): answer(3)})
    world.wait_out(oid)
    lowest = min(claims, key=lambda name: keccak256(who(name) + mid("same")))
    other = next(name for name in claims if name != lowest)
    assert world.paid(oid, lowest) == 80 * TOKEN
    assert world.paid(oid, other) == 5 * TOKEN


def test_a_model_must_beat_the_baseline_not_reach_it(world: World) -> None:
    claims = {"provider0": ("a", 1), "provider1": ("b", 1)}
    oid = world.place(baseline=500)
    world.to_validation(oid, claims)
    world.to_challenge(oid, {("validator0", "a"): answer(500), ("validator0", "b"): answer(501)})
    world.wait_out(oid)
    assert world.outcome(oid).winner == who("provider1")
    assert world.paid(oid, "provider0") == 0, "who does not beat the baseline is not consoled"


# Claims ------------------------------------------------------------------------------------------------


def test_a_later_claim_replaces_the_earlier_one_and_locks_nothing_more(world: World) -> None:
    oid = world.place()
    world.claim("provider0", oid, "first")
    locked = world.state.nodes[who("provider0")].stake(Role.PROVIDER).locked
    world.claim("provider0", oid, "second")
    assert world.state.nodes[who("provider0")].stake(Role.PROVIDER).locked == locked == 5 * TOKEN
    world.wait_out(oid)
    fields = {"size_bytes": 1000, "links": (), "salt": salt("provider0")}
    world.refuse("Mismatch", "provider0", ClaimReveal, oid=oid, mid=mid("first"), **fields)
    world.accept("provider0", ClaimReveal, oid=oid, mid=mid("second"), **fields)


def test_a_claim_needs_a_provider_stake_with_enough_of_it_free(world: World) -> None:
    oid = world.place()
    committed = keccak256(b"commitment")
    assert "dtn provider register" in world.refuse(
        "NotStaked", "outsider0", Claim, oid=oid, commitment=committed
    )
    world.refuse("NotStaked", "validator0", Claim, oid=oid, commitment=committed)
    world.stake("outsider1", Role.PROVIDER, 99 * TOKEN)
    world.refuse("NotStaked", "outsider1", Claim, oid=oid, commitment=committed)
    world.stake("outsider1", Role.PROVIDER, 1 * TOKEN)
    world.accept("outsider1", Claim, oid=oid, commitment=committed)


def test_stake_that_is_locked_or_leaving_backs_no_further_claim(world: World) -> None:
    world.stake("outsider1", Role.PROVIDER, 100 * TOKEN)
    oids = [world.place() for _ in range(21)]
    for oid in oids[:20]:
        world.claim("outsider1", oid, "m")
    world.refuse("NotStaked", "outsider1", Claim, oid=oids[20], commitment=keccak256(b"c"))
    world.unstake("provider0", Role.PROVIDER, STAKE)
    world.refuse("NotStaked", "provider0", Claim, oid=oids[20], commitment=keccak256(b"c"))


def test_a_copied_commitment_is_worthless(world: World) -> None:
    oid = world.place()
    world.claim("provider0", oid, "m")
    stolen = world.entry(oid).task.claims[who("provider0")].commitment
    world.accept("provider1", Claim, oid=oid, commitment=stolen)
    world.wait_out(oid)
    world.release(oid)
    world.reveal("provider0", oid, "m")
    fields = {"mid": mid("m"), "size_bytes": 1000, "links": (), "salt": salt("provider0")}
    world.refuse("Mismatch", "provider1", ClaimReveal, oid=oid, **fields)


def test_a_commitment_of_one_order_opens_in_no_other(world: World) -> None:
    first, second = world.place(), world.place()
    committed = commitment(first, who("provider0"), claim_body(mid("m"), 1000), salt("provider0"))
    world.accept("provider0", Claim, oid=second, commitment=committed)
    world.wait_out(second)
    fields = {"mid": mid("m"), "size_bytes": 1000, "links": (), "salt": salt("provider0")}
    world.refuse("Mismatch", "provider0", ClaimReveal, oid=second, **fields)


# Who may do what, when ---------------------------------------------------------------------------------


def test_every_transaction_is_refused_outside_its_phase(world: World) -> None:
    oid = world.place()
    vid, some = keccak256(b"vid"), keccak256(b"some")
    tries = {
        Cancel: {},
        Claim: {"commitment": some},
        ClaimReveal: {"mid": some, "size_bytes": 1, "links": (), "salt": some},
        TestRelease: {"fragments": FRAGMENTS, "links": TEST_LINKS},
        Validation: {"mid": some, "commitment": some, "v_stake": 5 * TOKEN},
        ValidationReveal: {"mid": some, "score": 1, "digest": some, "salt": some},
        Challenge: {"vid": vid, "commitment": some, "c_stake": 5 * TOKEN},
        ChallengeReveal: {"vid": vid, "score": 1, "digest": some, "salt": some},
        Verdict: {"mid": some, "commitment": some},
        IrretrievableReport: {"subject": some, "role": 2},
        Appeal: {"subject": some, "role": 2},
    }
    for kind, fields in tries.items():
        if kind not in (Cancel, Claim):
            world.refuse("WrongPhase", "client", kind, oid=oid, **fields)
    world.claim("provider0", oid, "m")
    world.wait_out(oid)
    for kind, fields in tries.items():
        if kind not in (ClaimReveal, TestRelease):
            world.refuse("WrongPhase", "client", kind, oid=oid, **fields)


def test_a_transaction_for_an_order_that_is_unknown_or_sealed_is_refused(world: World) -> None:
    world.refuse("UnknownOrder", "provider0", Claim, oid=bytes(32), commitment=bytes(32))
    oid = world.place()
    world.accept("client", Cancel, oid=oid)
    world.refuse("UnknownOrder", "provider0", Claim, oid=oid, commitment=bytes(32))


def test_a_nonce_is_used_once_and_only_grows(world: World) -> None:
    oid = world.place()
    world.accept("provider0", Claim, oid=oid, commitment=bytes(32), nonce=10_000)
    reason = world.refuse("StaleNonce", "provider0", Claim, oid=oid, commitment=bytes(32), nonce=10_000)
    assert "10001" in reason
    world.refuse("StaleNonce", "provider0", Claim, oid=oid, commitment=bytes(32), nonce=9_999)
    world.accept("provider0", Claim, oid=oid, commitment=bytes(32), nonce=2**64 - 1)


def test_a_refused_transaction_uses_no_nonce(world: World) -> None:
    oid = world.place()
    world.refuse(
        "WrongPhase", "provider0", Verdict, oid=oid, mid=bytes(32), commitment=bytes(32), nonce=50_000
    )
    world.accept("provider0", Claim, oid=oid, commitment=bytes(32), nonce=50_000)


def test_the_same_transaction_twice_in_a_block_takes_effect_once(world: World) -> None:
    oid = world.place()
    data = world.signed("provider0", Claim, oid=oid, commitment=bytes(32))
    codes = [result.code for result in world.block([data, data]).results]
    assert codes == ["Accepted", "StaleNonce"]


def test_only_the_client_cancels_and_releases_the_test_set(world: World) -> None:
    oid = world.place()
    world.refuse("NotAllowed", "provider0", Cancel, oid=oid)
    world.claim("provider0", oid, "m")
    world.refuse("NotAllowed", "client", Cancel, oid=oid)
    world.wait_out(oid)
    released = {"oid": oid, "fragments": FRAGMENTS, "links": TEST_LINKS}
    world.refuse("NotAllowed", "provider0", TestRelease, **released)
    world.refuse("Mismatch", "client", TestRelease, **released | {"fragments": FRAGMENTS[::-1]})
    world.accept("client", TestRelease, **released)
    world.refuse("AlreadyDone", "client", TestRelease, **released)


def test_who_claims_neither_validates_nor_challenges(world: World) -> None:
    world.stake("both0", Role.PROVIDER)
    world.stake("both0", Role.VALIDATOR)
    world.stake("both0", Role.VERIFIER)
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1), "both0": ("other", 1)})
    fields = {"commitment": bytes(32), "v_stake": 5 * TOKEN}
    world.refuse("NotAllowed", "both0", Validation, oid=oid, mid=mid("m"), **fields)
    vids = world.to_challenge(oid, {("validator0", "m"): answer(1)})
    vid = vids[("validator0", "m")]
    world.refuse("NotAllowed", "both0", Challenge, oid=oid, vid=vid, commitment=bytes(32), c_stake=5 * TOKEN)


def test_a_validation_is_of_a_revealed_model_once_and_with_enough_stake(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    fields = {"commitment": bytes(32), "v_stake": 5 * TOKEN}
    world.refuse("UnknownThing", "validator0", Validation, oid=oid, mid=mid("unknown"), **fields)
    world.refuse("NotStaked", "outsider0", Validation, oid=oid, mid=mid("m"), **fields)
    for v_stake in (0, 5 * TOKEN - 1, STAKE + 1, 2**96 - 1):
        world.refuse(
            "NotStaked", "validator0", Validation, oid=oid, mid=mid("m"), **fields | {"v_stake": v_stake}
        )
    world.accept("validator0", Validation, oid=oid, mid=mid("m"), **fields)
    world.refuse("AlreadyDone", "validator0", Validation, oid=oid, mid=mid("m"), **fields)


def test_a_validation_opens_only_to_what_it_committed_to(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    score, digest = answer(41)
    world.validate("validator0", oid, "m", (score, digest))
    world.wait_out(oid)
    good = {"mid": mid("m"), "score": score, "digest": digest, "salt": salt("validator0")}
    for change in ({"score": 42}, {"digest": bytes(32)}, {"salt": bytes(32)}):
        world.refuse("Mismatch", "validator0", ValidationReveal, oid=oid, **good | change)
    world.refuse("UnknownThing", "validator1", ValidationReveal, oid=oid, **good)
    world.accept("validator0", ValidationReveal, oid=oid, **good)


def test_a_challenge_names_a_revealed_validation_and_contradicts_it(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    vids = world.to_challenge(oid, {("validator0", "m"): answer(7)})
    vid = vids[("validator0", "m")]
    fields = {"commitment": bytes(32), "c_stake": 5 * TOKEN}
    world.refuse("UnknownThing", "verifier0", Challenge, oid=oid, vid=bytes(32), **fields)
    world.refuse("NotStaked", "verifier0", Challenge, oid=oid, vid=vid, **fields | {"c_stake": 1})
    world.refuse("NotStaked", "validator1", Challenge, oid=oid, vid=vid, **fields)
    world.challenge("verifier0", oid, vid, "m", answer(7))
    world.refuse("AlreadyDone", "verifier1", Challenge, oid=oid, vid=vid, **fields)
    world.wait_out(oid)
    score, digest = answer(7)
    reveal = {"vid": vid, "score": score, "digest": digest}
    world.refuse("UnknownThing", "verifier1", ChallengeReveal, oid=oid, **reveal, salt=salt("verifier1"))
    world.refuse("Mismatch", "verifier0", ChallengeReveal, oid=oid, **reveal, salt=bytes(32))
    reason = world.refuse("Mismatch", "verifier0", ChallengeReveal, oid=oid, **reveal, salt=salt("verifier0"))
    assert "same" in reason, "a challenge that agrees would make the jury work for nothing"


def test_a_validator_does_not_challenge_itself(world: World) -> None:
    world.stake("both0", Role.VALIDATOR)
    world.stake("both0", Role.VERIFIER)
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    vid = world.to_challenge(oid, {("both0", "m"): answer(7)})[("both0", "m")]
    committed = commitment(oid, who("both0"), score_body(mid("m"), *answer(8)), salt("both0"))
    world.refuse("NotAllowed", "both0", Challenge, oid=oid, vid=vid, commitment=committed, c_stake=5 * TOKEN)


# Time --------------------------------------------------------------------------------------------------


def test_time_never_runs_backwards_and_a_stalled_committee_eats_nobodys_window(world: World) -> None:
    oid = world.place()
    world.claim("provider0", oid, "m")
    before = world.state.now_ms
    world.block(at_ms=before - 10_000)
    assert world.state.now_ms == before
    world.wait(10 * 24 * 3600)
    assert world.phase(oid) == "reveal", "the reveal window begins only now"
    world.wait(DEFAULTS["reveal_s"] - 1)
    assert world.phase(oid) == "reveal"


def test_a_phase_ends_in_the_block_at_its_deadline_before_that_blocks_transactions(world: World) -> None:
    oid = world.place()
    world.claim("provider0", oid, "m")
    late = world.signed("provider1", Claim, oid=oid, commitment=bytes(32))
    deadline = world.entry(oid).taken_ms + 60_000
    assert world.block(at_ms=deadline - 1).state.table[oid].task.phase == "training"
    (result,) = world.block([late], at_ms=deadline).results
    assert result.code == "WrongPhase"


def test_an_order_keeps_the_parameters_of_the_moment_it_was_taken_in(world: World) -> None:
    oid = world.place()
    world.set_parameter("claim_stake_wei", 50 * TOKEN)
    world.set_parameter("validator_bps", 0)
    world.set_parameter("reveal_s", 1)
    later = world.place()
    world.claim("provider0", oid, "m", 1)
    assert world.state.nodes[who("provider0")].stake(Role.PROVIDER).locked == 5 * TOKEN
    world.claim("provider0", later, "m", 1)
    assert world.state.nodes[who("provider0")].stake(Role.PROVIDER).locked == 55 * TOKEN
    world.wait_out(oid)
    world.release(oid)
    world.reveal("provider0", oid, "m", 1)
    world.to_challenge(oid, {("validator0", "m"): answer(5)})
    world.wait_out(oid)
    assert world.paid(oid, "validator0") == REWARD // 10


def test_two_orders_at_once_do_not_touch_each_other(world: World) -> None:
    first, second = world.place(), world.place(client="client2", reward=40 * TOKEN)
    for oid in (first, second):
        world.claim("provider0", oid, f"m of {oid.hex()}", 1)
    world.wait_out(first)
    assert world.phase(second) == "reveal"
    for oid, client in ((first, "client"), (second, "client2")):
        world.release(oid, client)
        world.reveal("provider0", oid, f"m of {oid.hex()}", 1)
        world.validate("validator0", oid, f"m of {oid.hex()}", answer(5))
    world.wait_out(first)
    for oid in (first, second):
        world.reveal_validation("validator0", oid, f"m of {oid.hex()}", answer(5))
    world.wait_out(first)
    assert world.paid(first, "provider0") == 85 * TOKEN
    assert world.paid(second, "provider0") == 34 * TOKEN
