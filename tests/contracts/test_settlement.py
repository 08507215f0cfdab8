"""Settlement: only the committee settles, nothing is created or stranded, what was earned stays earned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ape
import pytest
from contract_network import (
    PROVIDER,
    TOKEN,
    Network,
    committee_keys,
    make_order,
    make_report,
    pack_credits,
    pack_entry,
    proof_of,
    settle,
    sign,
)

from protocol import merkle
from protocol.crypto import Key

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def test_one_report_consumes_slashes_releases_and_credits(
    network: Network,
    client: Any,
    provider: Any,
    validator: Any,
    treasury: Any,
    members: list[Key],
    placed: bytes,
    staked: Callable[[int], None],
) -> None:
    staked(200 * TOKEN)
    network.registry.requestUnstake(PROVIDER, 50 * TOKEN, sender=provider)
    earned = [(provider, 60 * TOKEN), (validator, 40 * TOKEN), (treasury, 15 * TOKEN)]
    receipt = settle(
        network,
        client,
        members,
        orders=placed,
        slashes=pack_entry(provider, PROVIDER, 10 * TOKEN),
        releases=pack_entry(provider, PROVIDER, 50 * TOKEN),
        credits=pack_credits(earned),
    )
    settled = next(log for log in receipt.events if log.event_name == "Settled")
    assert (settled.epoch, settled.credited, settled.consumed, settled.slashed) == (
        1,
        115 * TOKEN,
        105 * TOKEN,
        10 * TOKEN,
    )
    assert settled.root == network.settlement.roots(1) != bytes(32)
    assert network.settlement.lastEpoch() == 1
    assert network.token.balanceOf(network.settlement) == 115 * TOKEN
    assert tuple(network.registry.stakeOf(provider, PROVIDER)) == (140 * TOKEN, 0, 50 * TOKEN)
    for account, amount in earned:
        before = network.token.balanceOf(account)
        network.settlement.claim(account, [1], [amount], [proof_of(earned, account)], sender=client)
        assert network.token.balanceOf(account) == before + amount
    assert network.token.balanceOf(network.settlement) == 0


def test_a_report_with_a_slash_and_no_order_pays_out_of_the_slash_alone(
    network: Network,
    stranger: Any,
    provider: Any,
    validator: Any,
    treasury: Any,
    members: list[Key],
    staked: Callable[[int], None],
) -> None:
    staked(200 * TOKEN)
    earned = [(validator, 40 * TOKEN), (treasury, 60 * TOKEN)]
    receipt = settle(
        network,
        stranger,
        members,
        slashes=pack_entry(provider, PROVIDER, 100 * TOKEN),
        credits=pack_credits(earned),
    )
    settled = next(log for log in receipt.events if log.event_name == "Settled")
    assert (settled.credited, settled.consumed, settled.slashed) == (100 * TOKEN, 0, 100 * TOKEN)
    assert tuple(network.registry.stakeOf(provider, PROVIDER)) == (100 * TOKEN, 0, 0)
    for account, amount in earned:
        before = network.token.balanceOf(account)
        network.settlement.claim(account, [1], [amount], [proof_of(earned, account)], sender=stranger)
        assert network.token.balanceOf(account) == before + amount
    assert network.token.balanceOf(network.settlement) == 0


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 8, 9])
def test_trees_of_any_shape_pay_each_of_their_accounts(
    network: Network, stranger: Any, members: list[Key], placed: bytes, count: int
) -> None:
    earned = [(bytes([place]) * 20, (105 // count) * TOKEN) for place in range(1, count)]
    earned.append((bytes([count]) * 20, 105 * TOKEN - sum(amount for _, amount in earned)))
    settle(network, stranger, members, orders=placed, credits=pack_credits(earned))
    for account, amount in earned:
        network.settlement.claim(account, [1], [amount], [proof_of(earned, account)], sender=stranger)
        assert network.token.balanceOf(account) == amount


def test_all_of_the_largest_committee_may_sign(network: Network, deployer: Any, stranger: Any) -> None:
    keys = committee_keys(256)
    network.committee.change([key.address for key in keys], 256, sender=deployer)
    report = make_report(network)
    signatures = sign(network, report, keys)
    with ape.reverts(network.settlement.Settlement__TooFewSigners, have=255, need=256):
        network.settlement.update(report, 2**256 - 2, signatures[65:], sender=stranger)
    network.settlement.update(report, 2**256 - 1, signatures, sender=stranger)
    assert network.settlement.lastEpoch() == 1


def test_a_signature_counts_on_one_chain_only(network: Network, stranger: Any, members: list[Key]) -> None:
    """A fork takes another chain id: what is signed there settles nothing here, nor the other way round."""
    provider, report = ape.networks.provider, make_report(network)
    here, home = bytes(network.settlement.digestOf(report)), provider.chain_id
    provider.make_request("anvil_setChainId", [home + 1])
    try:
        forked = bytes(network.settlement.digestOf(report))
    finally:
        provider.make_request("anvil_setChainId", [home])
    assert forked != here == bytes(network.settlement.digestOf(report))
    signatures = b"".join(key.sign(forked) for key in members[:3])
    with ape.reverts(network.settlement.Settlement__SignatureInvalid):
        network.settlement.update(report, 0b0111, signatures, sender=stranger)


def test_an_empty_report_moves_nothing_and_has_no_root(
    network: Network, stranger: Any, members: list[Key]
) -> None:
    receipt = settle(network, stranger, members)
    assert receipt.events == [
        network.settlement.Settled(epoch=1, root=merkle.EMPTY_ROOT, credited=0, consumed=0, slashed=0)
    ]


def test_reports_are_applied_in_order_and_once(network: Network, stranger: Any, members: list[Key]) -> None:
    report = make_report(network)
    signatures = sign(network, report, members[:3])
    network.settlement.update(report, 0b0111, signatures, sender=stranger)
    with ape.reverts(network.settlement.Settlement__EpochMismatch, have=1, need=2):
        network.settlement.update(report, 0b0111, signatures, sender=stranger)
    skipped = make_report(network, epoch=3)
    with ape.reverts(network.settlement.Settlement__EpochMismatch, have=3, need=2):
        network.settlement.update(skipped, 0b0111, sign(network, skipped, members[:3]), sender=stranger)


def test_a_report_of_an_earlier_committee_is_refused(
    network: Network, deployer: Any, stranger: Any, members: list[Key]
) -> None:
    report = make_report(network)
    network.committee.change([key.address for key in members], 3, sender=deployer)
    with ape.reverts(network.settlement.Settlement__CommitteeMismatch, have=1, need=2):
        network.settlement.update(report, 0b0111, sign(network, report, members[:3]), sender=stranger)


@pytest.mark.parametrize("places", [(0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_any_quorum_settles(
    network: Network, stranger: Any, members: list[Key], places: tuple[int, ...]
) -> None:
    report = make_report(network)
    signers = sum(1 << place for place in places)
    signatures = sign(network, report, [members[place] for place in places])
    network.settlement.update(report, signers, signatures, sender=stranger)


def test_fewer_than_the_threshold_do_not_settle(network: Network, stranger: Any, members: list[Key]) -> None:
    report = make_report(network)
    with ape.reverts(network.settlement.Settlement__TooFewSigners, have=2, need=3):
        network.settlement.update(report, 0b0011, sign(network, report, members[:2]), sender=stranger)


def test_one_member_counts_once(network: Network, stranger: Any, members: list[Key]) -> None:
    report = make_report(network)
    thrice = sign(network, report, [members[0]] * 3)
    with ape.reverts(network.settlement.Settlement__SignatureInvalid):
        network.settlement.update(report, 0b0111, thrice, sender=stranger)


def test_a_place_without_a_member_is_refused(network: Network, stranger: Any, members: list[Key]) -> None:
    report = make_report(network)
    with ape.reverts(network.settlement.Settlement__SignerUnknown, have=0b10111, need=4):
        network.settlement.update(report, 0b10111, sign(network, report, members), sender=stranger)


@pytest.mark.parametrize("length", [0, 65 * 3 - 1, 65 * 3 + 1, 65 * 4])
def test_signatures_fill_65_bytes_each(
    network: Network, stranger: Any, members: list[Key], length: int
) -> None:
    report = make_report(network)
    signatures = sign(network, report, members)[:length]
    with ape.reverts(network.settlement.Settlement__SignaturesLength, have=length, need=65 * 3):
        network.settlement.update(report, 0b0111, signatures, sender=stranger)


def test_signatures_of_strangers_or_over_another_report_are_refused(
    network: Network, stranger: Any, members: list[Key]
) -> None:
    report = make_report(network)
    for signatures in (
        sign(network, report, committee_keys(7)[4:]),
        sign(network, make_report(network, epoch=9), members[:3]),
        sign(network, report, [members[1], members[0], members[2]]),
        b"\0" * 195,
    ):
        with ape.reverts(network.settlement.Settlement__SignatureInvalid):
            network.settlement.update(report, 0b0111, signatures, sender=stranger)


def test_only_the_low_s_form_of_a_signature_counts(
    network: Network, stranger: Any, members: list[Key]
) -> None:
    report = make_report(network)
    signatures = sign(network, report, members[:3])
    s = int.from_bytes(signatures[32:64], "big")
    assert s <= HALF_ORDER
    twin = signatures[:32] + (CURVE_ORDER - s).to_bytes(32, "big") + bytes([55 - signatures[64]])
    with ape.reverts(network.settlement.Settlement__SignatureInvalid):
        network.settlement.update(report, 0b0111, twin + signatures[65:], sender=stranger)


@pytest.mark.parametrize(
    ("credited", "error"),
    [(105 * TOKEN - 1, "NotConserved"), (105 * TOKEN + 1, "NotConserved"), (0, "CreditInvalid")],
)
def test_credits_equal_what_came_in(
    network: Network, client: Any, members: list[Key], placed: bytes, credited: int, error: str
) -> None:
    with ape.reverts(getattr(network.settlement, f"Settlement__{error}")):
        settle(network, client, members, orders=placed, credits=pack_credits([(client, credited)]))
    assert network.orders.escrowOf(placed)[1] == 105 * TOKEN


def test_escrow_is_never_stranded_without_credits(
    network: Network, client: Any, members: list[Key], placed: bytes
) -> None:
    with ape.reverts(network.settlement.Settlement__NotConserved, have=0, need=105 * TOKEN):
        settle(network, client, members, orders=placed)


def test_a_report_never_pays_from_an_earlier_ones_tokens(
    network: Network, client: Any, stranger: Any, members: list[Key], placed: bytes
) -> None:
    settle(network, client, members, orders=placed, credits=pack_credits([(client, 105 * TOKEN)]))
    with ape.reverts(network.settlement.Settlement__NotConserved, have=TOKEN, need=0):
        settle(network, client, members, credits=pack_credits([(stranger, TOKEN)]))


def test_credits_are_whole_words_in_ascending_order(
    network: Network, client: Any, stranger: Any, members: list[Key], placed: bytes
) -> None:
    words = pack_credits([(client, 50 * TOKEN), (stranger, 55 * TOKEN)])
    with ape.reverts(network.settlement.Settlement__CreditsUnpacked, have=63):
        settle(network, client, members, orders=placed, credits=words[:63])
    with ape.reverts(network.settlement.Settlement__CreditInvalid, index=1):
        settle(network, client, members, orders=placed, credits=words[32:] + words[:32])
    with ape.reverts(network.settlement.Settlement__CreditInvalid, index=1):
        settle(network, client, members, orders=placed, credits=words[:32] * 2)


def test_several_epochs_are_claimed_at_once_by_anyone(
    network: Network, client: Any, provider: Any, stranger: Any, members: list[Key]
) -> None:
    proofs = []
    for nonce in (1, 2, 3):
        order = make_order(client, nonce=nonce)
        network.orders.put(order, sender=client)
        earned = [(provider, (100 + nonce) * TOKEN), (client, (5 - nonce) * TOKEN)]
        oid = bytes(network.orders.oidOf(order))
        settle(network, stranger, members, orders=oid, credits=pack_credits(earned))
        proofs.append(proof_of(earned, provider))
    before = network.token.balanceOf(provider)
    amounts = [101 * TOKEN, 102 * TOKEN, 103 * TOKEN]
    receipt = network.settlement.claim(provider, [1, 2, 3], amounts, proofs, sender=stranger)
    claimed = [log for log in receipt.events if log.event_name == "Claimed"]
    assert [(log.account, log.epoch, log.amount) for log in claimed] == [
        (provider.address, epoch, amount) for epoch, amount in zip((1, 2, 3), amounts, strict=True)
    ]
    assert network.token.balanceOf(provider) == before + 306 * TOKEN
    assert all(network.settlement.claimed(provider, epoch) for epoch in (1, 2, 3))
    assert not network.settlement.claimed(client, 1)


def test_a_credit_is_claimed_once_exactly_and_by_its_proof(
    network: Network, client: Any, provider: Any, stranger: Any, members: list[Key], placed: bytes
) -> None:
    earned = [(provider, 100 * TOKEN), (client, 5 * TOKEN)]
    settle(network, client, members, orders=placed, credits=pack_credits(earned))
    claim, proof = network.settlement.claim, proof_of(earned, provider)
    for account, epoch, amount, given in (
        (provider, 1, 100 * TOKEN + 1, proof),
        (stranger, 1, 100 * TOKEN, proof),
        (provider, 2, 100 * TOKEN, proof),
        (provider, 1, 100 * TOKEN, []),
        (provider, 1, 100 * TOKEN, [*proof, bytes(32)]),
    ):
        with ape.reverts(network.settlement.Settlement__ProofInvalid, account=account, epoch=epoch):
            claim(account, [epoch], [amount], [given], sender=stranger)
    with ape.reverts(network.settlement.Settlement__AlreadyClaimed, account=provider, epoch=1):
        claim(provider, [1, 1], [100 * TOKEN] * 2, [proof] * 2, sender=stranger)
    claim(provider, [1], [100 * TOKEN], [proof], sender=stranger)
    with ape.reverts(network.settlement.Settlement__AlreadyClaimed, account=provider, epoch=1):
        claim(provider, [1], [100 * TOKEN], [proof], sender=stranger)


def test_only_the_order_book_asks_for_refunds(network: Network, deployer: Any, placed: bytes) -> None:
    with ape.reverts(network.settlement.Settlement__NotOrderBook, have=deployer, need=network.orders):
        network.settlement.refund(deployer, 105 * TOKEN, sender=deployer)


def test_claim_lists_have_one_length(network: Network, stranger: Any) -> None:
    with ape.reverts(network.settlement.Settlement__ClaimLengths, have=0, need=1):
        network.settlement.claim(stranger, [1], [], [[]], sender=stranger)
    with ape.reverts(network.settlement.Settlement__ClaimLengths, have=0, need=1):
        network.settlement.claim(stranger, [1], [1], [], sender=stranger)


def test_a_later_committee_cannot_touch_what_was_earned(
    network: Network, client: Any, deployer: Any, members: list[Key], placed: bytes
) -> None:
    earned = [(client, 105 * TOKEN)]
    settle(network, client, members, orders=placed, credits=pack_credits(earned))
    root = network.settlement.roots(1)
    usurpers = committee_keys(7)[:4]
    network.committee.change([key.address for key in usurpers], 3, sender=deployer)
    settle(network, client, usurpers)
    assert network.settlement.roots(1) == root
    network.settlement.claim(client, [1], [105 * TOKEN], [proof_of(earned, client)], sender=client)
