"""``dtn storage``: what one home keeps, another fetches, exports and imports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtn.app import app
from offchain.storage import EmbeddedStore, Gateway, InvalidCar, InvalidCid, NotStored, link_to
from offchain.storage.unixfs import CHUNK_BYTES, build
from protocol.crypto import Key
from tests.storage.test_unixfs import pattern

DATA = pattern(3 * CHUNK_BYTES + 7)
CID = str(build(DATA)[0])
Dtn = Callable[..., Any]


def home(folder: Path) -> Path:
    """A role's configuration file in a new folder."""
    folder.mkdir()
    (folder / "key").write_text(Key(b"\x07" * 32).secret.hex())
    text = 'key_file = "key"\ndata_dir = "data"\nnetwork = "network.json"\n'
    (folder / "role.toml").write_text(text)
    return folder / "role.toml"


def dtn(*arguments: object) -> Any:
    """What a command prints, as JSON; raises what it raises."""
    result = CliRunner().invoke(app, ["storage", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file that is carried around."""
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


@pytest.fixture
def served(tmp_path: Path, file: Path) -> Iterator[tuple[Path, str]]:
    """A home that holds the file and serves it; and the link."""
    config = home(tmp_path / "holder")
    dtn("add", file, "--public", "--config", config)
    gateway = Gateway(EmbeddedStore(config.parent / "data" / "store"))
    gateway.start()
    yield config, f"{gateway.url}/ipfs/{CID}"
    gateway.stop()


def test_a_file_travels_by_car_and_is_collected_when_it_is_dropped(tmp_path: Path, file: Path) -> None:
    here, there = home(tmp_path / "here"), home(tmp_path / "there")
    assert dtn("add", file, "--config", here)["cids"] == [CID]
    assert dtn("export", CID, tmp_path / "x.car", "--config", here)["bytes"] > len(DATA)
    assert dtn("import", tmp_path / "x.car", "--config", there)["cids"] == [CID]
    listed = {"cid": CID, "bytes": len(DATA), "blocks": 5, "public": False}
    assert dtn("ls", "--config", there) == [listed]
    dtn("publish", CID, "--config", there)
    assert dtn("ls", "--config", there) == [listed | {"public": True}]
    dtn("unpin", CID, "--config", there)
    assert dtn("ls", "--config", there) == []
    assert dtn("gc", "--config", there)["blocks"] == 0
    assert not list(tmp_path.glob("*.part"))


def test_a_file_is_fetched_and_replicated_from_any_holder(tmp_path: Path, served: tuple[Path, str]) -> None:
    _, link = served
    dead = f"http://127.0.0.1:9/ipfs/{CID}"
    dtn("fetch", dead, link, "-o", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    replica = home(tmp_path / "replica")
    assert dtn("pin", dead, link, "--public", "--config", replica) == {"cids": [CID], "public": True}
    store = EmbeddedStore(replica.parent / "data" / "store")
    assert b"".join(store.read(build(DATA)[0])) == DATA
    assert not list((replica.parent / "data" / "downloads").iterdir())


def test_what_cannot_be_done_is_refused_with_a_reason(tmp_path: Path, file: Path) -> None:
    config = home(tmp_path / "home")
    with pytest.raises(InvalidCar, match="no CAR"):
        dtn("import", file, "--config", config)
    with pytest.raises(NotStored):
        dtn("export", CID, tmp_path / "x.car", "--config", config)
    other = link_to("http://127.0.0.1:9", build(b"other")[0])
    with pytest.raises(InvalidCid, match="same file"):
        dtn("fetch", f"http://127.0.0.1:9/ipfs/{CID}", other, "-o", tmp_path / "out")
    assert not (tmp_path / "x.car").exists() and not list(tmp_path.glob("*.part"))
