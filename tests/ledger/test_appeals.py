"""Appeals: one larger round against a verdict, for a bond; after it the verdict is final."""

from __future__ import annotations

import pytest

from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Appeal
from tests.ledger.world import DEPOSIT, IRRETRIEVABLE, STAKE, World, answer, mid, who

TOKEN = TOKEN_WEI
RIGHT, WRONG = answer(500_000), answer(990_000)
BOND = DEFAULTS["appeal_bond_wei"]
JURY = ("validator1", "validator2", "verifier1", "verifier2")
OTHERS = ("outsider0", "outsider1", "outsider2", "outsider3", "outsider4")
"""Providers who claim nothing: only the larger rounds hear them."""


@pytest.fixture
def world() -> World:
    """One provider, three validators, three verifiers and five idle providers with 1,000 tokens each."""
    world = World.new()
    world.stake("provider0", Role.PROVIDER)
    for number in range(3):
        world.stake(f"validator{number}", Role.VALIDATOR)
        world.stake(f"verifier{number}", Role.VERIFIER)
    for name in OTHERS:
        world.stake(name, Role.PROVIDER)
    return world


def misjudged(world: World, verdict: tuple[int, bytes] = WRONG) -> bytes:
    """An order whose one right validation was challenged, and a jury found for the challenger."""
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    vid = world.to_challenge(oid, {("validator0", "m"): RIGHT})[("validator0", "m")]
    world.challenge("verifier0", oid, vid, "m", WRONG)
    assert world.wait_out(oid) == "challenge_reveal"
    world.reveal_challenge("verifier0", oid, vid, WRONG)
    assert world.verdicts(oid, "m", dict.fromkeys(JURY, verdict)) == "appeal"
    return oid


def test_a_verdict_that_nobody_appeals_against_takes_effect_when_the_window_is_over(world: World) -> None:
    oid = misjudged(world)
    assert world.wait_out(oid) == "sealed"
    assert world.outcome(oid).score == WRONG[0]
    assert world.paid(oid, "validator0") == -5 * TOKEN


def test_an_appeal_that_changes_the_verdict_restores_the_wronged_and_returns_the_bond(world: World) -> None:
    oid = misjudged(world)
    world.appeal("validator0", oid, "m")
    assert world.phase(oid) == "verdict", "there is nothing left to appeal against"
    stake = world.state.nodes[who("validator0")].stake(Role.VALIDATOR)
    assert stake.locked == BOND + 5 * TOKEN and stake.slashed == 0, "nothing is taken before the last word"
    jury = {juror for juror, _ in world.entry(oid).task.disputes[mid("m")].jurors}
    assert jury == {who(name) for name in (*JURY, *OTHERS)}, "all of the first, and more"
    assert world.verdicts(oid, "m", dict.fromkeys(OTHERS, RIGHT)) == "sealed"
    stake = world.state.nodes[who("validator0")].stake(Role.VALIDATOR)
    assert (stake.standing, stake.locked) == (STAKE, 0)
    why = "share of a slash: wrong challenge"
    assert world.receipts(oid) == sorted(
        [
            ("provider0", "provider", "best model", 85 * TOKEN),
            ("validator0", "validator", "validated the best model", 10 * TOKEN),
            ("validator0", "validator", why, 2 * TOKEN),
            ("verifier0", "verifier", "wrong challenge", -5 * TOKEN),
            *((juror, "juror", why, TOKEN // 10) for juror in OTHERS),
            ("treasury", "treasury", why, 25 * TOKEN // 10),
            ("client", "client", "deposit returned", DEPOSIT),
            *((f"aggregator{n}", "aggregator", "tax", 125 * TOKEN // 100) for n in range(4)),
        ]
    )


def test_an_appeal_that_confirms_the_verdict_costs_the_bond_and_its_jurors_share_it(world: World) -> None:
    oid = misjudged(world, RIGHT)
    appeal = world.appeal("verifier0", oid, "m", Role.VERIFIER)
    judges = (*JURY, "outsider0")
    assert world.verdicts(oid, "m", dict.fromkeys(judges, RIGHT)) == "sealed"
    why = "share of a slash: appeal without effect"
    lines = [line for line in world.receipts(oid) if "appeal" in line[2]]
    assert lines == sorted(
        [
            ("verifier0", "verifier", "appeal without effect", -BOND),
            *((juror, "juror", why, BOND // 50) for juror in judges),
            ("treasury", "treasury", why, BOND * 9 // 10),
        ]
    )
    assert world.paid(oid, "verifier0") == -BOND - 5 * TOKEN, "and the wrong challenge costs what it costs"
    assert {item.refs for item in world.outcome(oid).receipts if "appeal" in item.reason} == {
        (mid("m"), appeal)
    }


def test_an_appeal_without_a_quorum_leaves_the_verdict_and_takes_the_bond(world: World) -> None:
    """Else calling everybody together once more, and holding the order up, would be free."""
    oid = misjudged(world)
    world.appeal("validator0", oid, "m")
    assert world.verdicts(oid, "m", {"outsider0": RIGHT, "outsider1": RIGHT}) == "sealed"
    assert world.outcome(oid).score == WRONG[0]
    assert world.paid(oid, "validator0") == -BOND - 5 * TOKEN
    why = "share of a slash: appeal without effect"
    assert ("treasury", "treasury", why, BOND) in world.receipts(oid), "nobody confirmed it"


def test_an_appeal_to_an_empty_room_takes_the_bond_too(world: World) -> None:
    oid = misjudged(world)
    world.appeal("validator0", oid, "m")
    assert world.wait_out(oid) == "sealed"
    assert world.paid(oid, "validator0") == -BOND - 5 * TOKEN


def test_there_is_one_appeal_and_it_is_final(world: World) -> None:
    world.stake("provider1", Role.PROVIDER)
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1), "provider1": ("n", 1)})
    world.to_challenge(
        oid,
        {
            ("validator0", "m"): WRONG,
            ("validator1", "m"): RIGHT,
            ("validator0", "n"): RIGHT,
            ("validator1", "n"): RIGHT,
        },
    )
    world.report("verifier0", oid, "n")
    world.wait_out(oid)
    first = dict.fromkeys(("validator2", "verifier1", "verifier2", "verifier0"), RIGHT)
    second = dict.fromkeys(("validator2", "verifier1", "verifier2"), RIGHT)
    assert world.all_verdicts(oid, {"m": first, "n": second}) == "appeal"
    world.appeal("validator0", oid, "m")
    fields = {"subject": mid("m"), "role": int(Role.VALIDATOR)}
    world.refuse("AlreadyDone", "validator2", Appeal, oid=oid, **fields)
    assert world.wait_out(oid) == "verdict", "only one of two verdicts was appealed: the window stayed open"
    assert set(world.entry(oid).task.disputes) == {mid("m")}
    assert world.verdicts(oid, "m", dict.fromkeys((*OTHERS, "validator2"), RIGHT)) == "sealed"
    assert [str(phase) for phase, _ in world.entry(oid).task.history].count("appeal") == 1
    debits = {(name, why): wei for name, _, why, wei in world.receipts(oid) if wei < 0}
    assert debits == {
        ("validator0", "wrong score"): -5 * TOKEN,
        ("validator0", "appeal without effect"): -BOND,
        ("verifier0", "wrong report"): -DEFAULTS["report_stake_wei"],
    }, "what nobody appealed against stands as it was"


def test_a_verdict_of_the_second_round_may_be_appealed_against(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): WRONG, ("validator1", "m"): RIGHT})
    world.wait_out(oid)
    assert world.verdicts(oid, "m", {"validator2": RIGHT}) == "verdict"
    assert world.verdicts(oid, "m", dict.fromkeys(OTHERS, WRONG)) == "appeal"
    world.appeal("validator1", oid, "m")
    assert world.entry(oid).task.verdict_round == 2
    judges = ("validator2", "verifier0", "verifier1", "verifier2", *OTHERS[:1])
    assert world.verdicts(oid, "m", dict.fromkeys(judges, RIGHT)) == "sealed"
    assert world.outcome(oid).score == RIGHT[0]
    assert world.paid(oid, "validator0") == -5 * TOKEN


def test_a_provider_whose_model_was_called_irretrievable_may_appeal(world: World) -> None:
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1)})
    world.to_challenge(oid, {("validator0", "m"): RIGHT})
    world.report("verifier0", oid, "m")
    world.wait_out(oid)
    assert world.verdicts(oid, "m", dict.fromkeys(JURY, IRRETRIEVABLE)) == "appeal"
    world.appeal("provider0", oid, "m", Role.PROVIDER)
    assert world.verdicts(oid, "m", dict.fromkeys(OTHERS, RIGHT)) == "sealed"
    assert world.outcome(oid).winner == who("provider0")
    assert world.paid(oid, "provider0") == 85 * TOKEN
    assert world.paid(oid, "verifier0") == -DEFAULTS["report_stake_wei"]


def test_who_may_appeal_and_against_what(world: World) -> None:
    oid = misjudged(world)

    def refused(code: str, name: str, subject: bytes, role: int) -> None:
        world.refuse(code, name, Appeal, oid=oid, subject=subject, role=role)

    refused("UnknownThing", "validator0", mid("nothing"), Role.VALIDATOR)
    refused("NotStaked", "validator0", mid("m"), Role.VERIFIER)
    refused("NotStaked", "client", mid("m"), Role.PROVIDER)
    refused("NotAllowed", "validator0", mid("m"), Role.AGGREGATOR)
    world.appeal("outsider0", oid, "m", Role.PROVIDER)  # who is no party becomes one
    assert not world.entry(oid).task.disputes[mid("m")].weight(who("outsider0"))


def test_a_bond_is_free_stake(world: World) -> None:
    world.stake("outsider5", Role.VERIFIER, DEFAULTS["min_stake_verifier_wei"])
    world.set_parameter("appeal_bond_wei", 60 * TOKEN)
    oid = misjudged(world)
    fields = {"subject": mid("m"), "role": int(Role.VERIFIER)}
    world.refuse("NotStaked", "outsider5", Appeal, oid=oid, **fields)


def test_an_order_takes_a_bounded_number_of_appeals(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("open", "open_transactions"):
        monkeypatch.setattr(f"aggregator.ledger.tasks.{module}.MAX_APPEALS", 1)
    world.stake("provider1", Role.PROVIDER)
    oid = world.place()
    world.to_validation(oid, {"provider0": ("m", 1), "provider1": ("n", 1)})
    for name in ("m", "n"):
        world.report("verifier0", oid, name)
    world.wait_out(oid)
    everyone = (*JURY, "validator0")
    ballots = dict.fromkeys(everyone, RIGHT)
    assert world.all_verdicts(oid, {"m": ballots, "n": ballots}) == "appeal"
    world.appeal("validator0", oid, "m")
    assert world.phase(oid) == "verdict", "the window ends when no more can be taken in"


def test_a_reclaimed_order_gives_the_bond_back(world: World) -> None:
    oid = misjudged(world)
    world.appeal("validator0", oid, "m")
    world.reclaim(oid)
    stake = world.state.nodes[who("validator0")].stake(Role.VALIDATOR)
    assert (stake.standing, stake.locked) == (STAKE, 0)
