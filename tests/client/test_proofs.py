"""What the SDK returns from `offchain.proofs` is proved; whoever cannot prove is passed over, or named."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aggregator.api.views import receipt_json
from offchain.network import Network, NetworkError, NotFound
from offchain.proofs import (
    Proved,
    proved_head,
    proved_node,
    proved_nonce,
    proved_order,
    proved_receipts,
)
from protocol.certificate import InvalidCertificate
from protocol.roles import Role
from protocol.state_proof import state_proof_to_json
from tests.client.test_certificates import network_of
from tests.ledger.checkpointed import MEMBERS, checkpointed
from tests.ledger.world import STAKE, who
from tests.scripts.serving import Answer, serving

MADE = checkpointed()
OLD = MADE.stable.sequence
RECEIPTS = [
    receipt_json(receipt)
    for event in MADE.world.events
    for entry in getattr(event, "entries", ())
    if entry.oid == MADE.settled
    for receipt in entry.outcome.receipts
]
Lie = Callable[[dict[str, Any]], dict[str, Any]]


def document(path: str) -> dict[str, Any] | None:
    """What an honest aggregator answers."""
    parts = path.partition("?")[0].split("/")
    if parts[-1] == "receipts":
        oid = bytes.fromhex(parts[-2][2:])
        proof = MADE.checkpoints.prove(MADE.stable, "receipt_roots", oid)
        return {"receipts": RECEIPTS, "proof": state_proof_to_json(proof)} if proof else None
    key = bytes.fromhex(parts[4][2:]) if len(parts) > 4 else b""
    proof = MADE.checkpoints.prove(MADE.stable, parts[3], key)
    return state_proof_to_json(proof) if proof else None


def answering(lie: Lie = lambda answer: answer) -> Callable[[str], Answer]:
    """An aggregator that bends what it answers."""

    def answer(path: str) -> Answer:
        found = document(path)
        if found is None:
            return 404, b'{"error": {"code": "NotCheckpointed", "reason": "not there"}}'
        return 200, json.dumps(lie(found)).encode()

    return answer


def refuse(body: bytes) -> Answer:
    return 400, b"{}"


@contextlib.contextmanager
def asking(*lies: Lie) -> Iterator[Network]:
    """A network of aggregators with these lies, asked in their order."""
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(serving(answering(lie), refuse)) for lie in lies]
        network = stack.enter_context(contextlib.closing(network_of(*urls)))
        network.trust(lambda: (MEMBERS.addresses,))
        yield network


def honest(answer: dict[str, Any]) -> dict[str, Any]:
    return answer


def test_rows_come_decoded_with_the_sequence_number_that_they_are_of() -> None:
    with asking(honest) as network:
        head = proved_head(network)
        assert head.row.sequence == head.sequence == OLD
        assert proved_node(network, who("provider0")).row.stake(Role.PROVIDER).bonded == STAKE
        nonce = MADE.world.state.nonces[who("client")]
        assert proved_nonce(network, who("client")) == Proved(row=nonce, sequence=OLD)
        assert proved_order(network, MADE.running).row.order.client == who("client")
        (refund,) = proved_receipts(network, MADE.settled).row
        assert refund.account == who("client") and refund.reason.startswith("refund")


LIES: dict[str, Lie] = {
    "another row": lambda answer: document(f"/v1/proofs/nodes/0x{who('verifier0').hex()}") or {},
    "another value": lambda answer: answer | {"value": answer["value"][:-2] + "01"},
    "too few signers": lambda answer: answer | {"signatures": answer["signatures"][:2]},
    "no proof": lambda answer: {"stakes": []},
    "nonsense": lambda answer: {"signatures": 5},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_liar_is_passed_over_for_one_who_can_prove_it(lie: Lie, caplog: pytest.LogCaptureFixture) -> None:
    with asking(lie, honest) as network:
        assert proved_node(network, who("provider0")).row.stake(Role.PROVIDER).bonded == STAKE
    assert "without proof" in caplog.text
    with asking(lie) as network, pytest.raises(InvalidCertificate):
        proved_node(network, who("provider0"))


@pytest.mark.parametrize(
    "lie",
    [
        lambda answer: answer | {"receipts": []},
        lambda answer: answer | {"receipts": answer["receipts"] * 2},
        lambda answer: answer | {"receipts": [answer["receipts"][0] | {"amountWei": "1"}]},
        lambda answer: answer | {"receipts": [answer["receipts"][0] | {"amountWei": "9" * 100}]},
        lambda answer: answer | {"receipts": [answer["receipts"][0] | {"role": "\ud800"}]},
        lambda answer: answer | {"receipts": [None]},
        lambda answer: answer | {"receipts": None},
        lambda answer: answer | {"proof": None},
        lambda answer: [],
    ],
)  # fmt: skip
def test_no_receipt_can_be_left_out_added_or_changed(lie: Lie) -> None:
    with asking(lie) as network, pytest.raises(InvalidCertificate):
        proved_receipts(network, MADE.settled)


def test_an_old_proof_is_refused_by_whoever_minds() -> None:
    with asking(honest) as network:
        proved_head(network, not_before=OLD)
        with pytest.raises(InvalidCertificate, match="before"):
            proved_head(network, not_before=OLD + 1)


def test_what_nobody_has_is_not_found_and_without_a_committee_nothing_is_believed() -> None:
    with asking(honest) as network:
        with pytest.raises(NotFound):
            proved_node(network, bytes(20))
        network.trust(lambda: ())
        with pytest.raises(InvalidCertificate, match="trust"):
            proved_head(network)
    with contextlib.closing(network_of("http://127.0.0.1:1")) as network:
        network.trust(lambda: (MEMBERS.addresses,))
        with pytest.raises(NetworkError):
            proved_head(network)
