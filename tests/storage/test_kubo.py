"""The ``ipfs`` backend: the same CIDs, nothing private in the daemon, clear words when it cannot be used."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from offchain.config import ClientConfig
from offchain.storage import EmbeddedStore, Gateway, NotStored, fetch
from offchain.storage.choice import open_store
from offchain.storage.kubo import DaemonError, DaemonUnreachable, Kubo, KuboStore, UnknownDaemon
from offchain.storage.unixfs import CHUNK_BYTES, MAX_LINKS, build
from tests.storage.kubo_rpc import KuboRpc
from tests.storage.test_unixfs import pattern

DATA = random.Random(4).randbytes(3 * CHUNK_BYTES + 10)
ROOT, BLOCKS = build(DATA)


@pytest.fixture
def daemon() -> Iterator[KuboRpc]:
    """A running daemon."""
    daemon = KuboRpc()
    yield daemon
    daemon.stop()


@pytest.fixture
def store(daemon: KuboRpc, tmp_path: Path) -> KuboStore:
    """An empty store over the daemon."""
    return KuboStore(tmp_path / "store", Kubo(daemon.address, timeout_s=10))


def private_files(store: KuboStore) -> list[Path]:
    """What lies in the store's private folder."""
    return list((store._path / "private").iterdir())


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 600_000, (MAX_LINKS + 1) * CHUNK_BYTES])
def test_a_public_file_lies_in_the_daemon_under_the_cid_of_the_embedded_backend(
    store: KuboStore, daemon: KuboRpc, tmp_path: Path, size: int
) -> None:
    data = pattern(size) if size else b""
    told: list[int] = []
    cid = store.put(data)
    store.publish(cid, told.append)
    assert cid == EmbeddedStore(tmp_path / "embedded").put(data)
    assert daemon.blocks == {str(each): block for each, block in build(data)[1].items()}
    assert daemon.pins == {str(cid)}
    assert not private_files(store), "no byte is kept twice"
    assert store.get(cid) == data and store.size(cid) == size
    assert told == sorted(told) and told[-1] == size
    assert max(daemon.imported) < (MAX_LINKS + 1) * (CHUNK_BYTES + 100)


def test_nothing_reaches_the_daemon_before_it_is_published(store: KuboStore, daemon: KuboRpc) -> None:
    cid = store.put(DATA)
    assert store.has(cid) and store.get(cid) == DATA
    assert not daemon.blocks and store.public_block(cid) is None
    assert [pin.is_public for pin in store.pins()] == [False]


def test_a_gateway_serves_out_of_the_daemon_what_was_published_and_nothing_else(
    store: KuboStore, daemon: KuboRpc
) -> None:
    other, blocks = build(b"another's")
    daemon.blocks[str(other)] = blocks[other]
    store.publish(store.put(DATA))
    gateway = Gateway(store)
    gateway.start()
    try:
        assert fetch(ROOT, [gateway.url], max_bytes=len(DATA)) == DATA
        assert httpx.get(f"{gateway.url}/ipfs/{other}").status_code == 404
        daemon.stop()
        down = httpx.get(f"{gateway.url}/ipfs/{ROOT}")
        assert down.status_code == 503 and "does not answer" in down.text
    finally:
        gateway.stop()


def test_an_interrupted_publish_goes_on_where_it_stopped(store: KuboStore, daemon: KuboRpc) -> None:
    data = random.Random(6).randbytes((MAX_LINKS + 2) * CHUNK_BYTES)
    cid = store.put(data)
    daemon.fail_at = "pin/add"
    with pytest.raises(DaemonUnreachable):
        store.publish(cid)
    del daemon.blocks[str(cid)]  # the last group did not make it either
    daemon.fail_at, daemon.imported = None, []
    store.publish(cid)
    assert len(daemon.imported) == 1 and daemon.imported[0] < 1000
    assert store.get(cid) == data


def test_what_the_daemon_collected_in_between_is_brought_again(store: KuboStore, daemon: KuboRpc) -> None:
    store.put(DATA)
    daemon.blocks = {str(ROOT): BLOCKS[ROOT]}  # the root is there, and nothing below it
    store.publish(ROOT)
    assert len(daemon.blocks) == len(BLOCKS)


def test_a_dropped_file_is_forgotten_by_the_daemon_when_it_collects(
    store: KuboStore, daemon: KuboRpc
) -> None:
    shared = store.put(DATA[:CHUNK_BYTES])
    for cid in (store.put(DATA), shared):
        store.publish(cid)
    store.unpin(ROOT)
    store.collect()
    assert set(daemon.blocks) == {str(shared)} and daemon.pins == {str(shared)}
    assert store.get(shared) == DATA[:CHUNK_BYTES]
    with pytest.raises(NotStored):
        store.get(ROOT)
    store.publish(shared)
    daemon.pins.clear()  # somebody else has unpinned it already
    store.unpin(shared)
    assert not store.pins()


def test_blocks_that_private_files_share_stay_here_too(store: KuboStore, daemon: KuboRpc) -> None:
    private = store.put(DATA[:CHUNK_BYTES] + b"more")
    store.publish(store.put(DATA))
    store.unpin(ROOT)
    store.collect()
    assert not daemon.blocks
    assert store.get(private) == DATA[:CHUNK_BYTES] + b"more"


def test_a_store_that_was_embedded_goes_on_with_a_daemon(daemon: KuboRpc, tmp_path: Path) -> None:
    before = EmbeddedStore(tmp_path)
    before.publish(before.put(DATA))
    store = KuboStore(tmp_path, Kubo(daemon.address, timeout_s=10))
    assert store.get(ROOT) == DATA and store.public_block(ROOT) == BLOCKS[ROOT]
    store.publish(ROOT)
    assert not private_files(store) and store.get(ROOT) == DATA
    assert len(daemon.blocks) == len(BLOCKS)


# Daemons that cannot be used -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.43.1", "0.8.0", "0.4.22", "0.22.0-dev", "kubo", "0.1.1"])
def test_an_unknown_version_is_refused_with_what_to_do(daemon: KuboRpc, version: str) -> None:
    daemon.version = version
    with pytest.raises(UnknownDaemon, match="ipfs_any_version = true") as refused:
        Kubo(daemon.address, timeout_s=10).pin(ROOT)
    assert version in str(refused.value)
    assert daemon.calls == ["version"], "nothing was asked of it"


def test_an_unknown_version_is_used_by_who_wants_it(daemon: KuboRpc, tmp_path: Path) -> None:
    daemon.version = "0.43.1"
    store = KuboStore(tmp_path, Kubo(daemon.address, timeout_s=10, any_version=True))
    store.publish(store.put(DATA))
    assert store.get(ROOT) == DATA


def test_a_daemon_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    store = KuboStore(tmp_path, Kubo("/ip4/127.0.0.1/tcp/9/http", timeout_s=1))
    cid = store.put(DATA)
    with pytest.raises(DaemonUnreachable, match="start it"):
        store.publish(cid)
    assert store.get(cid) == DATA, "what is kept here is not lost"
    for wrong in ("http://127.0.0.1:5001", "/ip4/127.0.0.1", ""):
        with pytest.raises(DaemonError, match="ipfs_rpc"):
            Kubo(wrong, timeout_s=1)


def test_a_daemon_that_falls_silent_is_given_up(daemon: KuboRpc, monkeypatch: pytest.MonkeyPatch) -> None:
    kubo = Kubo(daemon.address, timeout_s=0.3)
    kubo.check()
    stop = threading.Event()
    monkeypatch.setattr(KuboRpc, "_block", lambda *_: stop.wait(20) and b"")
    try:
        with pytest.raises(DaemonUnreachable):
            kubo.block(ROOT)
    finally:
        stop.set()


def test_bytes_from_the_daemon_are_not_believed(store: KuboStore, daemon: KuboRpc) -> None:
    store.publish(store.put(DATA))
    daemon.blocks[str(ROOT)] = b"other bytes"
    assert store.public_block(ROOT) is None
    daemon.blocks[str(ROOT)] = bytes(5 * 2**20)
    with pytest.raises(NotStored):
        store.get(ROOT)


def test_the_configuration_chooses(daemon: KuboRpc, tmp_path: Path) -> None:
    def settings(**given: object) -> ClientConfig:
        files = dict.fromkeys(("key_file", "network"), tmp_path / "x")
        return ClientConfig.model_validate({**files, "data_dir": tmp_path, **given})

    assert type(open_store(settings())) is EmbeddedStore
    assert isinstance(open_store(settings(storage="ipfs", ipfs_rpc=daemon.address)), KuboStore)
    with pytest.raises(DaemonUnreachable):
        open_store(settings(storage="ipfs", ipfs_rpc="/ip4/127.0.0.1/tcp/9/http"))
