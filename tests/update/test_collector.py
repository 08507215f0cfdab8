"""Signatures on a settlement: by members only, over the own ledger's report, as the contract reads it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from aggregator.ledger.settlement import typed_report
from aggregator.ledger.state import Committee, PendingReport
from aggregator.update.collector import MAX_EARLY, Bundle, SignatureCollector
from protocol.crypto import Key, keccak256, recover
from protocol.errors import InvalidSignature
from protocol.merkle import credit_leaf, root
from protocol.roles import Role
from protocol.transactions import Report
from protocol.typed_data import Domain, digest_of

DOMAIN = Domain(31337, b"\x11" * 20)
KEYS = sorted((Key(keccak256(b"member %d" % n)) for n in range(7)), key=lambda key: key.address)
MEMBERS = tuple(key.address for key in KEYS)
COMMITTEE = Committee(epoch=3, members=MEMBERS, threshold=5)
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eip712.json").read_text(encoding="utf-8"))


def report(epoch: int = 1, committee_epoch: int = 3, credit: int = 10) -> PendingReport:
    """A small report."""
    return PendingReport(
        epoch=epoch,
        committee_epoch=committee_epoch,
        made_ms=5,
        orders=(bytes(32),),
        slashes=((b"\1" * 20, Role.VALIDATOR, 3),),
        releases=((b"\2" * 20, Role.PROVIDER, 4),),
        credits=((b"\3" * 20, credit),),
    )


def signature(key: Key, about: PendingReport) -> tuple[bytes, bytes]:
    """Digest and signature as another member sends them."""
    digest = digest_of(DOMAIN, typed_report(about))
    return digest, key.sign(digest)


def accepted_by_the_contract(bundle: Bundle, committee: Committee) -> bool:
    """The rules of ``Settlement._requireSigned`` and ``MemberSignatures``, once more."""
    signed = bundle.signers.bit_count()
    if bundle.report.committee_epoch != committee.epoch or bundle.signers >> len(committee.members):
        return False
    if signed < committee.threshold or len(bundle.signatures) != 65 * signed:
        return False
    digest = digest_of(DOMAIN, bundle.report)
    expected = [member for place, member in enumerate(committee.members) if bundle.signers >> place & 1]
    found = [recover(digest, bundle.signatures[65 * n : 65 * n + 65]) for n in range(signed)]
    return found == expected


@pytest.mark.parametrize("seed", range(20))
def test_any_threshold_of_members_makes_a_bundle_that_the_contract_takes(seed: int) -> None:
    chooser = random.Random(seed)
    own = chooser.choice(KEYS)
    collector = SignatureCollector(DOMAIN, own)
    assert collector.start(report(), COMMITTEE) == signature(own, report())[1]
    others = chooser.sample([key for key in KEYS if key is not own], 6)
    for count, key in enumerate(others, start=2):
        assert collector.bundle() is None or count > COMMITTEE.threshold
        collector.add(*signature(key, report()), MEMBERS)
    bundle = collector.bundle()
    assert bundle is not None
    assert accepted_by_the_contract(bundle, COMMITTEE)
    assert bundle.signers.bit_count() == COMMITTEE.threshold, "more signatures only cost gas"


def test_a_stranger_does_not_count_and_is_an_error() -> None:
    collector = SignatureCollector(DOMAIN, KEYS[0])
    collector.start(report(), COMMITTEE)
    stranger = Key(keccak256(b"stranger"))
    with pytest.raises(InvalidSignature, match="no member"):
        collector.add(*signature(stranger, report()), MEMBERS)
    digest, good = signature(KEYS[1], report())
    with pytest.raises(InvalidSignature):
        collector.add(digest, good[:64] + b"\0", MEMBERS)
    with pytest.raises(InvalidSignature):
        collector.add(digest_of(DOMAIN, typed_report(report(credit=11))), good, MEMBERS)
    assert collector.bundle() is None


def test_one_member_counts_once() -> None:
    collector = SignatureCollector(DOMAIN, KEYS[0])
    collector.start(report(), COMMITTEE)
    for _ in range(10):
        collector.add(*signature(KEYS[1], report()), MEMBERS)
    assert collector.bundle() is None


def test_signatures_over_another_report_do_not_count_for_this_one() -> None:
    collector = SignatureCollector(DOMAIN, KEYS[0])
    collector.start(report(), COMMITTEE)
    for key in KEYS[1:]:
        collector.add(*signature(key, report(credit=1_000_000)), MEMBERS)
    assert collector.bundle() is None


def test_signatures_that_come_early_count_once_the_own_ledger_has_made_the_report() -> None:
    collector = SignatureCollector(DOMAIN, KEYS[0])
    for key in KEYS[1:]:
        collector.add(*signature(key, report()), MEMBERS)
    assert collector.bundle() is None
    collector.start(report(), COMMITTEE)
    bundle = collector.bundle()
    assert bundle is not None and accepted_by_the_contract(bundle, COMMITTEE)


def test_one_member_cannot_crowd_out_the_early_signatures_of_others() -> None:
    collector = SignatureCollector(DOMAIN, KEYS[0])
    for credit in range(1, MAX_EARLY + 10):
        collector.add(*signature(KEYS[6], report(epoch=2, credit=credit)), MEMBERS)
    for key in KEYS[1:6]:
        collector.add(*signature(key, report()), MEMBERS)
    collector.start(report(), COMMITTEE)
    assert collector.bundle() is not None


def test_a_report_made_again_for_another_committee_needs_new_signatures() -> None:
    collector = SignatureCollector(DOMAIN, KEYS[0])
    collector.start(report(), COMMITTEE)
    for key in KEYS[1:]:
        collector.add(*signature(key, report()), MEMBERS)
    smaller = Committee(epoch=4, members=MEMBERS[:4], threshold=3)
    collector.start(report(committee_epoch=4), smaller)
    assert collector.bundle() is None
    for key in KEYS[1:]:
        collector.add(*signature(key, report(committee_epoch=4)), MEMBERS)
    bundle = collector.bundle()
    assert bundle is not None and accepted_by_the_contract(bundle, smaller)


def test_who_is_no_member_any_more_does_not_sign_the_bundle() -> None:
    collector = SignatureCollector(DOMAIN, KEYS[0])
    without_me = Committee(epoch=3, members=MEMBERS[1:], threshold=6)
    collector.start(report(), without_me)
    for key in KEYS[1:6]:
        collector.add(*signature(key, report()), MEMBERS)
    assert collector.bundle() is None, "six signed, but one of them is no member"
    collector.add(*signature(KEYS[6], report()), MEMBERS)
    bundle = collector.bundle()
    assert bundle is not None and accepted_by_the_contract(bundle, without_me)


def test_after_the_settlement_there_is_nothing_to_submit() -> None:
    collector = SignatureCollector(DOMAIN, KEYS[0])
    collector.start(report(), COMMITTEE)
    for key in KEYS[1:]:
        collector.add(*signature(key, report()), MEMBERS)
    collector.stop()
    assert collector.bundle() is None
    assert collector.digest == b""


# Packing -----------------------------------------------------------------------------------------------


def test_a_report_is_packed_as_the_golden_one() -> None:
    golden = {name: bytes.fromhex(GOLDEN["report"][name][2:]) for name in ("orders", "slashes", "credits")}
    words = [golden["credits"][at : at + 32] for at in range(0, len(golden["credits"]), 32)]
    pending = PendingReport(
        epoch=42,
        committee_epoch=7,
        made_ms=0,
        orders=tuple(golden["orders"][at : at + 32] for at in range(0, len(golden["orders"]), 32)),
        slashes=((golden["slashes"][:20], Role.VALIDATOR, 7 * 10**18),),
        releases=(),
        credits=tuple((word[:20], int.from_bytes(word[20:], "big")) for word in words),
    )
    packed = typed_report(pending)
    assert packed == Report(epoch=42, committee_epoch=7, releases=b"", **golden)
    domain = Domain(GOLDEN["domain"]["chainId"], bytes.fromhex(GOLDEN["domain"]["verifyingContract"][2:]))
    assert digest_of(domain, packed).hex() == GOLDEN["report"]["digest"][2:]
    assert root([credit_leaf(*credit) for credit in pending.credits])
