"""What ``scripts/put.py`` computes by itself is what the packages compute; bad tasks cost nothing."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.exceptions import ContractCustomError

from offchain.storage import EmbeddedStore, Gateway, link_to
from offchain.storage.cid import RAW, Cid
from protocol.crypto import sha256
from protocol.task import TaskDocument, make_task
from protocol.transactions import Order, data_root, order_id
from protocol.typed_data import Domain, to_json
from tests.scripts.loading import load_script

put = load_script("put")
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "eip712.json"


def a_document(seed: int = 0) -> TaskDocument:
    """A valid task document with 12 fragments."""
    fragments = [
        {
            "sha256": "0x" + sha256(b"%d/%d" % (seed, place)).hex(),
            "cid": str(Cid.of(RAW, b"%d/%d" % (seed, place))),
            "size_bytes": 10 + place,
            "samples": 5,
        }
        for place in range(12)
    ]
    return make_task(
        {
            "title": "Ziffern, 'größer' & \"kleiner\"",
            "architecture": {
                "input_shape": [4],
                "layers": [{"kind": "dense", "features": 3}, {"kind": "softmax"}],
            },
            "data": {
                "classes": 3,
                "fragments": fragments,
                "split": {"by": "block_hash", "test_count": 3},
                "gateways": ["http://127.0.0.1:9"],
            },
            "metric": "accuracy",
        }
    )


def options(**changes: Any) -> argparse.Namespace:
    """Options as the command line gives them."""
    given = {
        "reward": 100 * 10**18,
        "train_s": 60,
        "validate_s": 20,
        "challenge_s": 10,
        "task_link": "http://127.0.0.1:9/ipfs/b",
        "baseline": 850_000,
    }
    return argparse.Namespace(**(given | changes))


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    return EmbeddedStore(tmp_path / "store")


@pytest.fixture
def gateway(store: EmbeddedStore) -> Iterator[Gateway]:
    serving = Gateway(store)
    serving.start()
    yield serving
    serving.stop()


def test_the_golden_order_has_the_golden_oid() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    order = {name: golden["order"][name] for name in golden["order"] if name != "oid"}
    for name in ("nonce", "reward", "deposit"):
        order[name] = int(order[name])
    for name in ("taskHash", "dataRoot"):
        order[name] = bytes.fromhex(order[name][2:])
    found = put.oid_of(order, golden["domain"]["chainId"], golden["domain"]["verifyingContract"])
    assert "0x" + found.hex() == golden["order"]["oid"]


def test_oids_of_random_orders_are_those_of_the_protocol() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        document = a_document(seed)
        client, contract, chain_id = rng.randbytes(20), rng.randbytes(20), rng.randrange(1, 2**32)
        order = put.make_order(
            document.canonical(),
            client=to_checksum_address(client),
            nonce=rng.randrange(2**63),
            deposit=rng.randrange(2**95),
            options=options(
                reward=rng.randrange(2**95),
                baseline=rng.choice([put.NO_BASELINE, -1, 0, rng.randrange(2**62)]),
            ),
        )
        same = Order(
            client=client,
            nonce=order["nonce"],
            kind="open",
            reward=order["reward"],
            deposit=order["deposit"],
            train_window=60,
            validate_window=20,
            challenge_window=10,
            task_hash=document.digest(),
            task_link="http://127.0.0.1:9/ipfs/b",
            data_root=data_root(document.fragment_digests()),
            baseline=order["baseline"],
        )
        found = put.oid_of(order, chain_id, to_checksum_address(contract))
        assert found == order_id(Domain(chain_id, contract), same), f"seed {seed}"
        assert [field["name"] for field in put.ORDER_FIELDS] == list(to_json(same))


def test_a_document_that_is_not_canonical_or_no_document_is_refused() -> None:
    document = a_document()
    pretty = json.dumps(json.loads(document.canonical()), indent=1).encode()
    for data in (pretty, b"", b"[]", b"{}", b'{"data":{"fragments":[{"sha256":"xx"}]}}', b"\xff"):
        with pytest.raises(put.PutError):
            put.make_order(data, client="0x", nonce=1, deposit=1, options=options())


def test_the_cid_of_one_block_is_that_of_the_store() -> None:
    for data in (b"", b"x", bytes(range(256)) * 100):
        assert put.cid_of(data) == str(Cid.of(RAW, data))


def test_a_hosted_document_is_fetched_and_compared_with_its_cid(
    store: EmbeddedStore, gateway: Gateway
) -> None:
    data = a_document().canonical()
    cid = store.put(data)
    with pytest.raises(put.PutError, match="404"):
        put.fetch_document(link_to(gateway.url, cid))
    store.publish(cid)
    assert put.fetch_document(link_to(gateway.url, cid)) == data


def test_a_link_that_is_dead_or_no_link_or_of_a_larger_file_is_refused(
    store: EmbeddedStore, gateway: Gateway
) -> None:
    large = store.put(b"0123456789" * 100_000)
    store.publish(large)
    with pytest.raises(put.PutError, match="one block"):
        put.fetch_document(link_to(gateway.url, large))
    with pytest.raises(put.PutError, match="start whoever hosts"):
        put.fetch_document(f"http://127.0.0.1:9/ipfs/{large}")
    for link in ("ipfs://abc", "", "http://127.0.0.1/abc"):
        with pytest.raises(put.PutError, match="must look like"):
            put.fetch_document(link)


def test_a_contract_error_is_shown_with_its_numbers() -> None:
    codec = Web3().codec
    selector = Web3.keccak(text="OrderBook__WindowOutOfBounds(bytes32,uint256,uint256,uint256)")[:4]
    values = codec.encode(
        ["bytes32", "uint256", "uint256", "uint256"], [b"train".ljust(32, b"\0"), 1, 10, 20]
    )
    reason = ContractCustomError("refused", data="0x" + (selector + values).hex())
    assert put.explain(reason) == "OrderBook__WindowOutOfBounds(train, 1, 10, 20)"
    assert "0xdeadbeef" in put.explain(ContractCustomError("refused", data="0xdeadbeef"))


def test_amounts_and_scores_are_read_exactly() -> None:
    assert put.amount_of("0.000000000000000001") == 1
    assert put.amount_of("100") == 100 * 10**18
    assert put.score_of("0.85") == 850_000 and put.score_of("-2.302585") == -2_302_585
    for text in ("", "x", "-1", "nan", "inf", "0.0000000000000000001"):
        with pytest.raises(argparse.ArgumentTypeError):
            put.amount_of(text)
    for text in ("", "x", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError):
            put.score_of(text)


def test_without_a_chain_or_a_key_one_line_says_so(
    tmp_path: Path, store: EmbeddedStore, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    cid = store.put(a_document().canonical())
    store.publish(cid)
    key = tmp_path / "wallet.key"
    arguments = ["--rpc", "http://127.0.0.1:9", "--orders", "0x" + "11" * 20, "--key", str(key)]
    arguments += ["--task-link", link_to(gateway.url, cid), "--reward", "100"]
    arguments += ["--train-s", "60", "--validate-s", "20", "--challenge-s", "20"]
    assert put.main(arguments) == 1
    assert "does not hold a private key" in capsys.readouterr().err
    key.write_text("11" * 32)
    assert put.main(arguments) == 1
    error = capsys.readouterr().err
    assert "no chain node answers" in error and error.count("\n") == 1
