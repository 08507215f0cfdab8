"""An order that a wallet placed for a task prepared here is looked after like one of `dtn put`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from offchain.client import Client, ClientDaemon, PreparedTask, TaskFile
from offchain.client.task_file import Model, Source, Windows
from offchain.client.task_file import Test as TestSplit
from offchain.config import ClientConfig
from offchain.storage import Unavailable, fetch, parse_link
from protocol.crypto import Key, keccak256
from protocol.keyfile import write_private
from protocol.task import test_indices, train_indices
from tests.answers import open_order, put_fields
from tests.scripts.loading import load_script
from tests.scripts.serving import Answer, serving

put = load_script("put")
OIDS = ["0x" + keccak256(b"order %d" % place).hex() for place in range(3)]
BLOCK_HASH = keccak256(b"a block")
ADDRESS = "0x" + "11" * 20

TASK = TaskFile(
    model=Model(family="mlp", hidden=(8,)),
    data=Source(dataset="digits"),
    windows=Windows(train_s=20, validate_s=8, challenge_s=6),
    test=TestSplit(fragments=3, of=12),
)


class Ledger:
    """What the aggregator says: orders by OID with the task hash and the phase of each."""

    def __init__(self) -> None:
        self.orders: dict[str, tuple[bytes, str]] = {}

    def __call__(self, path: str) -> Answer:
        path = path.partition("?")[0]
        if path == "/v1/orders":
            return 200, json.dumps({"orders": [open_order(oid=oid) for oid in self.orders]}).encode()
        oid = path.rpartition("/")[2]
        if oid not in self.orders:
            return 404, b'{"error": {"code": "UnknownOrder", "reason": "no such order"}}'
        task_hash, phase = self.orders[oid]
        order = put_fields(taskHash="0x" + task_hash.hex())
        detail = open_order(
            oid=oid, phase=phase, blockHash="0x" + BLOCK_HASH.hex(), order=order, result="won"
        )
        return 200, json.dumps(detail).encode()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def config(tmp_path: Path, ledger: Ledger) -> Iterator[ClientConfig]:
    with serving(ledger) as api:
        names = ("parameters", "token", "registry", "orders", "committee", "settlement", "treasury")
        book = dict.fromkeys(names, ADDRESS) | {"chain_id": 31337, "block": 1}
        network = {"rpc_url": "http://127.0.0.1:9", "address_book": book, "aggregators": [api]}
        (tmp_path / "network.json").write_text(json.dumps(network))
        write_private(tmp_path / "client.key", Key.generate().secret.hex())
        (tmp_path / "client.toml").write_text(
            'key_file = "client.key"\ndata_dir = "data"\nnetwork = "network.json"\n'
        )
        yield ClientConfig.read(tmp_path / "client.toml")


@pytest.fixture
def daemon(config: ClientConfig) -> Iterator[ClientDaemon]:
    running = ClientDaemon(config)
    running.gateway.start()
    yield running
    running.close()


def prepare(config: ClientConfig, gateway: str) -> PreparedTask:
    """The task, prepared with no chain at hand."""
    client = Client.open(config.network, key_file=config.key_file, data_dir=config.data_dir)
    try:
        return client.prepare(TASK, gateway=gateway)
    finally:
        client.network.close()


def published(prepared: PreparedTask, gateway: str) -> list[int]:
    """Which fragments others can fetch."""
    found = []
    for index, fragment in enumerate(prepared.document.data.fragments):
        _, cid = parse_link(f"{gateway}/ipfs/{fragment.cid}")
        try:
            fetch(cid, [gateway], max_bytes=fragment.size_bytes)
        except Unavailable:
            continue
        found.append(index)
    return found


def test_a_prepared_task_can_be_put_by_the_script_and_none_of_its_data_is_public_yet(
    config: ClientConfig, daemon: ClientDaemon
) -> None:
    prepared = prepare(config, daemon.url)
    data = put.fetch_document(prepared.link)
    assert data == prepared.document.canonical()
    assert put.data_root(json.loads(data)) == keccak256(b"".join(prepared.document.fragment_digests()))
    assert published(prepared, daemon.url) == []


def test_the_daemon_publishes_the_training_data_of_a_wallets_order(
    config: ClientConfig, daemon: ClientDaemon, ledger: Ledger
) -> None:
    prepared = prepare(config, daemon.url)
    daemon.act()
    assert daemon.records.all() == {}
    ledger.orders[OIDS[0]] = (prepared.document.digest(), "training")
    daemon.act()
    split = prepared.document.data
    assert published(prepared, daemon.url) == list(train_indices(split, BLOCK_HASH))
    assert not set(test_indices(split, BLOCK_HASH)) & set(published(prepared, daemon.url))
    assert daemon.records.all()[bytes.fromhex(OIDS[0][2:])].training_published


def test_an_order_is_taken_in_once_and_followed_to_its_end(
    config: ClientConfig, daemon: ClientDaemon, ledger: Ledger
) -> None:
    prepared = prepare(config, daemon.url)
    for oid in OIDS[:2]:
        ledger.orders[oid] = (prepared.document.digest(), "training")
    daemon.act()
    ledger.orders[OIDS[0]] = (prepared.document.digest(), "settled")
    daemon.act()
    daemon.act()
    finished = {oid: record.finished for oid, record in daemon.records.all().items()}
    assert finished == {bytes.fromhex(OIDS[0][2:]): True, bytes.fromhex(OIDS[1][2:]): False}


def test_an_order_whose_data_is_elsewhere_is_left_alone(daemon: ClientDaemon, ledger: Ledger) -> None:
    ledger.orders[OIDS[2]] = (bytes(32), "training")
    daemon.act()
    daemon.act()
    assert daemon.records.all() == {}
