"""The public API over a real aggregator: what it shows, what it refuses, how it stands hostile requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregator.api.writes import MAX_BATCH_BODY_BYTES
from aggregator.ledger.root import state_root
from aggregator.pbft.messages import MAX_FORWARDED
from protocol.certificate import InvalidCertificate, certificate_from_json
from protocol.chain_events import Settled
from protocol.crypto import commitment, keccak256
from protocol.merkle import credit_leaf, root, verify
from protocol.state_proof import state_proof_from_json
from protocol.state_rows import decode_row
from protocol.transactions import (
    Cancel,
    Claim,
    ClaimReveal,
    claim_body,
    sign_transaction,
    transaction_from_json,
    transaction_to_json,
)
from protocol.version import SUPPORTED
from tests.api.network import Network, assert_error, running
from tests.ledger.world import DEPOSIT, DOMAIN, REWARD, key, mid, salt, who

Scenario = Callable[[Network], Awaitable[None]]


def run(folder: Path, scenario: Scenario) -> None:
    """Run a scenario against a fresh network."""

    async def whole() -> None:
        async with running(folder) as network:
            await scenario(network)

    asyncio.run(whole())


def hexed(value: bytes) -> str:
    """0x-hex."""
    return "0x" + value.hex()


def signed(name: str, kind: Any, nonce: int, **fields: Any) -> dict[str, Any]:
    """A transaction's JSON."""
    body = kind(sender=who(name), nonce=nonce, **fields)
    return transaction_to_json(sign_transaction(DOMAIN, body, key(name)))


# What it shows -----------------------------------------------------------------------------------------


def test_an_order_is_seen_from_the_chain_to_its_settlement(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        listed = (await net.get("/v1/orders"))["orders"]
        assert [item["oid"] for item in listed] == [hexed(oid)]
        assert listed[0]["rewardWei"] == str(REWARD) and listed[0]["phase"] == "training"
        detail = await net.get(f"/v1/orders/{hexed(oid)}")
        assert detail["order"]["reward"] == str(REWARD) and detail["phases"][0]["phase"] == "training"
        assert (await net.get(f"/v1/orders/{hexed(oid)}/model", 409))["error"]["code"] == "NotSealed"
        await net.send("client", Cancel, oid=oid)
        await net.until(lambda: net.node.state.report is not None)
        pending = await net.get(f"/v1/accounts/{hexed(who('client'))}")
        assert [item["amountWei"] for item in pending["pending"]] == [str(REWARD + DEPOSIT)]
        assert (await net.get(f"/v1/orders/{hexed(oid)}/model", 409))["error"]["code"] == "NoWinner"
        net.chain.blocks.append(
            [Settled(epoch=1, root=bytes(32), transaction_hash=keccak256(b"t"), gas_used=7)]
        )
        await net.until(lambda: net.node.state.settled_epoch == 1)
        assert (await net.get("/v1/orders", phase="settled"))["orders"][0]["oid"] == hexed(oid)
        detail = await net.get(f"/v1/orders/{oid.hex()}")
        assert detail["phase"] == "settled" and detail["settlement"]["gasUsed"] == 7
        account = await net.get(f"/v1/accounts/{hexed(who('client'))}")
        assert account["receipts"][0]["tx"] == hexed(keccak256(b"t")) and not account["pending"]
        (credit,) = account["credits"]
        leaf = credit_leaf(who("client"), int(credit["amountWei"]))
        paid = net.node.archive.settlements[1].report.credits
        proof = [bytes.fromhex(item[2:]) for item in credit["proof"]]
        assert verify(leaf, proof, root([credit_leaf(*each) for each in paid]))
        settlements = (await net.get("/v1/settlements"))["settlements"]
        assert [item["epoch"] for item in settlements] == [1]

    run(tmp_path, scenario)


def test_a_commitment_shows_nothing_but_that_it_exists(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        body = claim_body(mid("m"), 5)
        committed = commitment(oid, who("provider0"), body, salt("provider0"))
        await net.send("provider0", Claim, oid=oid, commitment=committed)
        text = json.dumps(await net.get(f"/v1/orders/{hexed(oid)}"))
        assert mid("m").hex() not in text and salt("provider0").hex() not in text
        assert committed.hex() in text

    run(tmp_path, scenario)


def test_rows_and_receipts_come_with_proofs_that_need_no_trust_in_who_serves_them(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        missing = await net.get("/v1/proofs/head", 404)
        assert missing["error"]["code"] == "NotCheckpointed", "there is no checkpoint yet"
        members = (who("aggregator0"),)
        oid = await net.place()
        await net.send("client", Cancel, oid=oid)
        await net.until(lambda: net.node.state.report is not None)
        net.chain.blocks.append(
            [Settled(epoch=1, root=bytes(32), transaction_hash=keccak256(b"t"), gas_used=7)]
        )
        await net.until(lambda: net.node.state.settled_epoch == 1)
        settled_at = net.node.state.sequence
        while net.node.replica.low < settled_at:
            await net.place()
        for path in (
            "head",
            f"nodes/{hexed(who('provider0'))}",
            f"nonces/{hexed(who('client'))}",
            f"receipt_roots/{oid.hex()}",
        ):
            proof = state_proof_from_json(await net.get(f"/v1/proofs/{path}"))
            proof.verify(DOMAIN, members)
            assert proof.section == path.split("/")[0] and settled_at <= proof.sequence
        answer = await net.get(f"/v1/orders/{hexed(oid)}/receipts")
        proof = state_proof_from_json(answer["proof"])
        proof.verify(DOMAIN, members)
        assert decode_row("receipt_roots", proof.value) == net.node.state.receipt_roots[oid]
        assert [item["amountWei"] for item in answer["receipts"]] == [str(REWARD + DEPOSIT)]
        for path, code in (
            (f"/v1/proofs/nodes/{'00' * 20}", "NotCheckpointed"),
            (f"/v1/proofs/nowhere/{'00' * 20}", "UnknownSection"),
            (f"/v1/orders/{'00' * 32}/receipts", "UnknownOrder"),
        ):
            assert (await net.get(path, 404))["error"]["code"] == code
        assert (await net.get("/v1/proofs/nodes/00", 400))["error"]["code"] == "BadRequest"

    run(tmp_path, scenario)


def test_status_nodes_and_parameters(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        status = await net.get("/v1/status")
        assert status["active"] and status["members"] == [hexed(who("aggregator0"))] and not status["alarms"]
        nodes = (await net.get("/v1/nodes"))["nodes"]
        assert {role["role"] for node in nodes for role in node["stakes"]} == {
            "provider",
            "validator",
            "verifier",
        }
        assert (await net.get("/v1/parameters"))["tax_bps"] == "500"
        assert (await net.http.get("/healthz")).text == (await net.http.get("/readyz")).text == "ok"
        assert status["protocolVersion"] in SUPPORTED and status["protocolUpgrade"] is None
        assert status["protocolSupported"] == [SUPPORTED.low, SUPPORTED.high]
        net.alarms.append("the disk is almost full")
        sick = await net.http.get("/healthz")
        assert sick.status_code == 503 and "disk" in sick.text
        assert (await net.http.get("/readyz")).status_code == 200, "an alarm is for its operator"
        assert "/v1/orders" in (await net.get("/openapi.json"))["paths"]

    run(tmp_path, scenario)


def test_orders_come_by_reward_per_second_of_training(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        slow = await net.place(train_window=1000)
        rich = await net.place(reward=2 * REWARD)
        plain = await net.place()
        listed = (await net.get("/v1/orders"))["orders"]
        assert [item["oid"] for item in listed] == [hexed(oid) for oid in (rich, plain, slow)]
        assert len((await net.get("/v1/orders", limit=1))["orders"]) == 1
        mine = await net.get("/v1/orders", client=hexed(who("client2")))
        assert mine == {"orders": [], "next": None}

    run(tmp_path, scenario)


# Transactions ------------------------------------------------------------------------------------------


def test_an_answer_about_a_transaction_carries_proof_of_its_order(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        document = signed("provider0", Claim, 500, oid=oid, commitment=b"\x01" * 32)
        answer = (await net.http.post("/v1/transactions", json=document, params={"wait_s": 20})).json()
        certificate = certificate_from_json(answer["certificate"])
        data = transaction_from_json(document).encode()
        members = net.node.members.addresses
        certificate.verify(DOMAIN, members, data)
        assert certificate.sequence == answer["sequence"]
        with pytest.raises(InvalidCertificate):
            certificate.verify(DOMAIN, members, data[:-1])
        with pytest.raises(InvalidCertificate):
            certificate.verify(DOMAIN, (who("provider0"),), data)

    run(tmp_path, scenario)


def test_a_transactions_way_is_answered_and_can_be_asked_for_later(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        answer = await net.send("provider0", Claim, oid=oid, commitment=bytes(32))
        assert answer["status"] == "accepted" and answer["sequence"] > 0
        assert await net.get(f"/v1/transactions/{answer['id']}") == answer
        await net.get(f"/v1/transactions/{hexed(bytes(32))}", 404)
        account = await net.get(f"/v1/accounts/{hexed(who('provider0'))}")
        assert account["nextNonce"] == str(net.nonce + 1)

    run(tmp_path, scenario)


def test_sending_a_transaction_again_is_harmless(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        document = signed("provider0", Claim, 1, oid=oid, commitment=bytes(32))
        answers = [
            await net.http.post("/v1/transactions", json=document, params={"wait_s": 20}) for _ in range(3)
        ]
        assert {(item.status_code, item.text) for item in answers} == {(200, answers[0].text)}

    run(tmp_path, scenario)


def test_what_the_ledger_refuses_is_refused_at_the_door_with_its_reason(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        refused = await net.send("outsider0", Claim, 409, oid=oid, commitment=bytes(32))
        assert (
            refused["error"]["code"] == "NoStanding" and "dtn provider register" in refused["error"]["reason"]
        )
        reveal = {"mid": bytes(32), "size_bytes": 1, "links": (), "salt": bytes(32)}
        assert (await net.send("provider0", ClaimReveal, 409, oid=oid, **reveal))["error"][
            "code"
        ] == "WrongPhase"
        assert (await net.send("provider0", Cancel, 409, oid=bytes(32)))["error"]["code"] == "UnknownOrder"
        assert len(net.node.mempool) == 0

    run(tmp_path, scenario)


# Hostile requests --------------------------------------------------------------------------------------

GOOD = signed("provider0", Claim, 1, oid=bytes(32), commitment=bytes(32))
REVEAL = signed(
    "provider0", ClaimReveal, 1, oid=bytes(32), mid=bytes(32), size_bytes=1, links=(), salt=bytes(32)
)
HOSTILE: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "a long number": b"9" * 100_000,
    "a number": b"5",
    "null": b"null",
    "a list": b"[]",
    "no fields": b"{}",
    "NaN": b'{"type": NaN, "message": Infinity, "signature": -Infinity}',
    "an unknown type": json.dumps(GOOD | {"type": "Steal"}).encode(),
    "a type that is no text": json.dumps(GOOD | {"type": {"a": 1}}).encode(),
    "an order": json.dumps(GOOD | {"type": "Order"}).encode(),
    "a lone surrogate": json.dumps(REVEAL | {"message": REVEAL["message"] | {"links": ["\ud800"]}}).encode(),
    "a huge nonce": json.dumps(GOOD | {"message": GOOD["message"] | {"nonce": "9" * 4000}}).encode(),
    "a float nonce": json.dumps(GOOD | {"message": GOOD["message"] | {"nonce": 1.5}}).encode(),
    "a negative nonce": json.dumps(GOOD | {"message": GOOD["message"] | {"nonce": -1}}).encode(),
    "a nonce above 64 bits": json.dumps(GOOD | {"message": GOOD["message"] | {"nonce": 2**64}}).encode(),
    "a true nonce": json.dumps(GOOD | {"message": GOOD["message"] | {"nonce": True}}).encode(),
    "another's signature": json.dumps(
        GOOD | {"signature": signed("validator0", Claim, 1, oid=bytes(32), commitment=bytes(32))["signature"]}
    ).encode(),
    "a zero signature": json.dumps(GOOD | {"signature": "0x" + "00" * 65}).encode(),
    "an extra field": json.dumps(GOOD | {"extra": 1}).encode(),
    "too many links": json.dumps(REVEAL | {"message": REVEAL["message"] | {"links": ["x"] * 2000}}).encode(),
    "a long link": json.dumps(REVEAL | {"message": REVEAL["message"] | {"links": ["x" * 5000]}}).encode(),
}


def test_hostile_bodies_are_refused_in_one_shape_and_change_nothing(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        before = state_root(net.node.state)
        for name, body in HOSTILE.items():
            answer = await net.http.post("/v1/transactions", content=body)
            assert answer.status_code == 400, (name, answer.status_code, answer.text)
            assert_error(answer)
            assert len(answer.text) < 2000, name
        assert state_root(net.node.state) == before and len(net.node.mempool) == 0

    run(tmp_path, scenario)


def test_bodies_that_are_too_large_or_of_unknown_size_are_refused_unread(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        async def chunks() -> Any:
            yield b"{}"

        large = await net.http.post("/v1/transactions", content=bytes(300_000))
        unknown = await net.http.post("/v1/transactions", content=chunks())
        for answer in (large, unknown):
            assert answer.status_code == 413
            assert_error(answer)

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/orders/0x12", "/v1/orders/zz", "/v1/orders/0x" + "g" * 64, "/v1/accounts/0x", "/v1/accounts/1",
        "/v1/transactions/0x00", "/v1/orders?client=abc", "/v1/orders?limit=0", "/v1/orders?limit=501",
        "/v1/orders?limit=x", "/v1/settlements?limit=-1", "/v1/orders/" + "a" * 3000,
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_read_is_refused_in_one_shape(tmp_path: Path, path: str) -> None:
    async def scenario(net: Network) -> None:
        answer = await net.http.get(path)
        assert answer.status_code == 400
        assert_error(answer)

    run(tmp_path, scenario)


def test_what_is_not_there_is_not_found_in_one_shape(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = "0x" + "00" * 32
        for path in (
            "/v1/nonsense",
            f"/v1/orders/{oid}",
            f"/v1/orders/{oid}/model",
            f"/v1/orders/{oid}/validations",
        ):
            await net.get(path, 404)
        answer = await net.http.delete("/v1/orders")
        assert answer.status_code == 405
        assert_error(answer)
        nobody = await net.get("/v1/accounts/0x" + "00" * 20)
        assert nobody["stakes"] == nobody["receipts"] == nobody["credits"] == []

    run(tmp_path, scenario)


def test_an_order_of_an_unknown_kind_can_be_looked_at(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place(kind="alchemy")
        detail = await net.get(f"/v1/orders/{hexed(oid)}")
        assert detail["phase"] == "sealed" and detail["kind"] == "alchemy"
        await net.get(f"/v1/orders/{hexed(oid)}/model", 409)
        await net.get(f"/v1/orders/{hexed(oid)}/validations", 404)

    run(tmp_path, scenario)


def test_many_transactions_at_once_each_get_their_own_answer(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()

        def claim(nonce: int, name: str = "provider0") -> bytes:
            body = Claim(sender=who(name), nonce=nonce, oid=oid, commitment=bytes(32))
            return sign_transaction(DOMAIN, body, key(name)).encode()

        forged = claim(7)[:-8] + b'AAAAAA"]'
        items = [claim(5), b"garbage", claim(6), claim(6), forged, claim(9, "stranger")]
        answer = await net.http.post("/v1/transactions/batch", content=msgspec.msgpack.encode(items))
        assert answer.status_code == 202, answer.text
        first, garbage, second, repeated, bad, unstaked = answer.json()["transactions"]
        assert first["status"] == second["status"] == "waiting" and first["id"] != second["id"]
        assert repeated["id"] == second["id"], "a repeated one changes nothing"
        assert garbage == {**garbage, "id": None, "status": "refused", "code": "InvalidEncoding"}
        assert bad["status"] == "refused" and bad["code"] in ("InvalidEncoding", "InvalidSignature")
        assert unstaked["status"] == "refused" and unstaked["code"] == "NoStanding" and unstaked["reason"]
        await net.until(lambda: net.node.state.nonces.get(who("provider0")) == 6)
        again = await net.http.post("/v1/transactions/batch", content=msgspec.msgpack.encode(items[:1]))
        assert again.json()["transactions"][0]["status"] == "accepted"

    run(tmp_path, scenario)


def test_a_batch_is_bounded_in_count_and_bytes_and_must_be_msgpack(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        many = msgspec.msgpack.encode([b"x"] * (MAX_FORWARDED + 1))
        large = msgspec.msgpack.encode([bytes(MAX_BATCH_BODY_BYTES)])
        for content, status in ((many, 413), (large, 413), (b"[]", 400), (b"\xc1", 400), (b"", 400)):
            answer = await net.http.post("/v1/transactions/batch", content=content)
            assert answer.status_code == status, answer.text
            assert_error(answer)
        empty = await net.http.post("/v1/transactions/batch", content=msgspec.msgpack.encode([]))
        assert empty.status_code == 202 and empty.json() == {"transactions": []}

    run(tmp_path, scenario)


def test_a_restarted_aggregator_shows_the_same_ledger(tmp_path: Path) -> None:
    roots = []

    async def first(net: Network) -> None:
        oid = await net.place()
        await net.send("provider0", Claim, oid=oid, commitment=bytes(32))
        roots.append((net.node.state.sequence, state_root(net.node.state)))

    async def second(net: Network) -> None:
        assert net.node.state.sequence >= roots[0][0]
        assert [item["phase"] for item in (await net.get("/v1/orders"))["orders"]] == ["training"]

    run(tmp_path, first)

    async def again() -> None:
        async with running(tmp_path) as network:
            await second(network)

    asyncio.run(again())
