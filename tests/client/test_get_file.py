"""The winning model goes to the disk from any of its holders, and only if it is the order's MID."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.client import Client
from offchain.storage import EmbeddedStore, Gateway, StorageFull, Unavailable, link_to
from offchain.storage.unixfs import CHUNK_BYTES, build
from protocol.crypto import sha256
from tests.chain import chainless_network

MODEL = random.Random(8).randbytes(2 * CHUNK_BYTES + 9)
CID, BLOCKS = build(MODEL)
OID = b"\x22" * 32


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Serves the model, and another file."""
    store = EmbeddedStore(tmp_path / "store")
    for data in (MODEL, b"another model"):
        store.publish(store.put(data))
    gateway = Gateway(store)
    gateway.start()
    yield gateway
    gateway.stop()


def client_told(folder: Path, links: list[str], monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whom f + 1 aggregators tell this of the winner."""
    client = Client(chainless_network("http://127.0.0.1:1"), None, folder)
    answer = {
        "mid": "0x" + sha256(MODEL).hex(),
        "winner": "0x",
        "score": "1",
        "sizeBytes": str(len(MODEL)),
        "links": links,
    }
    told: Any = SimpleNamespace(agreed=lambda path, select, committee: answer)
    monkeypatch.setattr(client, "network", told)
    monkeypatch.setattr(client, "_committee", lambda: None)
    return client


def test_the_model_comes_from_whoever_has_it(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = link_to(gateway.url, build(b"another model")[0])
    links = ["nonsense", other, link_to("http://127.0.0.1:9", CID), link_to(gateway.url, CID)]
    client = client_told(tmp_path, links, monkeypatch)
    told: list[int] = []
    assert client.get_file(OID, tmp_path / "out" / "model", told.append)["links"] == links
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
    assert (tmp_path / "out" / "model").read_bytes() == MODEL == client.get(OID)[0]
    assert told[-1] == len(MODEL)


def test_a_file_that_is_not_the_order_s_model_is_never_left_under_the_name(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_told(tmp_path, [link_to(gateway.url, build(b"another model")[0])], monkeypatch)
    (tmp_path / "model").write_bytes(b"what was there")
    with pytest.raises(Unavailable, match="another file"):
        client.get_file(OID, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == b"what was there"
    assert not list(tmp_path.glob("model.*"))


def test_a_place_that_cannot_be_written_is_a_typed_error(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_told(tmp_path, [link_to(gateway.url, CID)], monkeypatch)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageFull):
        client.get_file(OID, tmp_path / "folder")
