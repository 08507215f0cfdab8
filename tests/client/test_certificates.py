"""A participant believes that its transaction was ordered only when a quorum of the committee says so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest

from aggregator.pbft.messages import Batch, VoteKind, cast
from offchain import network as network_room
from offchain.network import LedgerRefused, Network, NetworkError, NetworkFile
from protocol.certificate import MemberSignature, TransactionCertificate, certificate_to_json
from protocol.crypto import Key
from protocol.transactions import Cancel, transaction_from_json
from tests.chain import chainless_network
from tests.pbft.network import committee
from tests.scripts.serving import Answer, serving

MEMBERS, KEYS = committee(4)
SENDER = Key(b"\x09" * 32)


def network_of(*apis: str) -> Network:
    """A network whose domain is the test committee's."""
    file = chainless_network(*apis)
    domain = MEMBERS.domain
    book = file.address_book.model_copy(
        update={"chain_id": domain.chain_id, "parameters": "0x" + domain.verifying_contract.hex()}
    )
    return Network(NetworkFile(rpc_url=file.rpc_url, address_book=book, aggregators=apis), SENDER)


def test_who_asks_after_the_end_is_told_so() -> None:
    network = network_of("http://127.0.0.1:1")
    network.close()
    with pytest.raises(NetworkError, match="this process is ending"):
        network.get("/v1/status")


def ordering(signers: tuple[int, ...]) -> Callable[[bytes], Answer]:
    """An aggregator that orders what it is sent, with commit votes of these members."""

    def answer(body: bytes) -> Answer:
        data = transaction_from_json(json.loads(body)).encode()
        batch = Batch(1_700_000_000_000, None, (), (data,))
        votes = [cast(MEMBERS.domain, KEYS[i], i, VoteKind.COMMIT, 0, 5, batch.digest()) for i in signers]
        certificate = TransactionCertificate(
            view=0,
            sequence=5,
            unanimous=False,
            header=batch.outline.header,
            index=0,
            path=(),
            signatures=tuple(MemberSignature(member=v.signer, signature=v.signature) for v in votes),
        )
        return 200, json.dumps(
            {"status": "accepted", "sequence": 5, "certificate": certificate_to_json(certificate)}
        ).encode()

    return answer


def claiming(body: bytes) -> Answer:
    """An aggregator that says yes to everything and proves nothing."""
    return 200, b'{"status": "accepted", "sequence": 1, "certificate": null}'


def refusing(body: bytes) -> Answer:
    """An aggregator that refuses everything."""
    return 409, b'{"error": {"code": "NotStaked", "reason": "stake more"}}'


def nothing(path: str) -> Answer:
    return 404, b"{}"


def submit(network: Network) -> int:
    with contextlib.closing(network):
        network.trust(lambda: (MEMBERS.addresses,))
        return int(network.submit(Cancel, oid=bytes(32))["sequence"])


def test_a_quorum_is_believed() -> None:
    with serving(nothing, ordering((0, 1, 2))) as honest:
        assert submit(network_of(honest)) == 5


def test_a_liar_is_passed_over_for_one_who_can_prove_it(caplog: pytest.LogCaptureFixture) -> None:
    with serving(nothing, claiming) as liar, serving(nothing, ordering((1, 2, 3))) as honest:
        assert submit(network_of(liar, honest)) == 5
    assert "claims that a transaction was ordered" in caplog.text


@pytest.mark.parametrize("answer", [claiming, ordering((0, 1)), ordering((2, 2, 2))])
def test_without_proof_nothing_counts_as_ordered(
    answer: Callable[[bytes], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_room, "MAX_ATTEMPTS", 3)
    with serving(nothing, answer) as liar, pytest.raises(NetworkError, match="not ordered in time"):
        submit(network_of(liar))


@pytest.mark.parametrize("place", range(4))
def test_one_liar_s_refusal_stops_no_transaction(place: int) -> None:
    with serving(nothing, refusing) as liar, serving(nothing, ordering((0, 1, 2))) as honest:
        urls = [f"{honest}/{number}" for number in range(4)]
        urls[place] = liar
        assert submit(network_of(*urls)) == 5


def test_as_many_refusals_as_need_one_honest_member_are_final() -> None:
    with serving(nothing, refusing) as one, serving(nothing, refusing) as two:
        network = network_of("http://127.0.0.1:1", one, "http://127.0.0.1:2", two)
        with pytest.raises(LedgerRefused, match="stake more") as refused:
            submit(network)
    assert refused.value.code == "NotStaked"


def test_a_lone_refusal_is_told_but_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_room, "MAX_ATTEMPTS", 4)
    with serving(nothing, refusing) as liar:
        dead = [f"http://127.0.0.1:{port}" for port in (1, 2, 3)]
        with pytest.raises(NetworkError, match="refuses it: stake more"):
            submit(network_of(liar, *dead))
