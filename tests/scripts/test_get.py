"""``scripts/get.py`` believes f + 1 members, checks every block and file, and writes nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.storage import EmbeddedStore, Gateway, link_to
from offchain.storage.cid import Cid
from offchain.storage.unixfs import CHUNK_BYTES, build
from protocol.crypto import sha256
from tests.scripts.loading import load_script
from tests.scripts.serving import Answer, serving

get = load_script("get")
OID = "0x" + "ab" * 32


def saying(**changes: Any) -> Callable[[str], Answer]:
    """A member that names a winner."""
    facts = {
        "oid": OID,
        "mid": "0x01",
        "winner": "0x02",
        "score": "3",
        "sizeBytes": 4,
        "links": ["http://a/ipfs/b"],
    }
    data = json.dumps(facts | {"settlement": None} | changes).encode()
    return lambda path: (200, data)


def refusing(path: str) -> Answer:
    """A member that knows no winner yet."""
    return 409, json.dumps({"error": {"code": "NotSealed", "reason": "no winner yet"}}).encode()


def ask(*members: Callable[[str], Answer] | None) -> dict[str, Any]:
    """What `ask_committee` makes of these members; none is one that registered no API."""
    with ExitStack() as stack:
        apis = [stack.enter_context(serving(member)) if member else None for member in members]
        answer: dict[str, Any] = get.ask_committee(apis, OID)
        return answer


def test_an_answer_of_f_plus_one_members_is_believed() -> None:
    assert ask(saying(), saying())["mid"] == "0x01"
    assert ask(saying(), saying(), saying(), saying())["winner"] == "0x02"
    assert ask(saying())["score"] == "3"


def test_a_lying_a_silent_and_a_broken_member_do_not_stand_in_the_way() -> None:
    liar = saying(mid="0x66")
    assert ask(liar, saying(), saying(), None)["mid"] == "0x01"
    assert ask(refusing, None, saying(), saying())["mid"] == "0x01"
    assert ask(lambda path: (200, b"<html>"), saying(), lambda path: (500, b""), saying())["mid"] == "0x01"
    assert ask(lambda path: (200, b"[]"), saying(), saying(links=[]), saying())["mid"] == "0x01"


def test_f_liars_alone_convince_nobody() -> None:
    with pytest.raises(get.GetError, match="fewer than 2 of 4"):
        ask(saying(mid="0x66"), refusing, refusing, None)
    with pytest.raises(get.GetError, match="fewer than 3 of 7"):
        ask(saying(mid="0x66"), saying(mid="0x66"), saying(), saying(), None, None, None)


def test_the_members_reason_is_passed_on() -> None:
    with pytest.raises(get.GetError, match="2 say: no winner yet"):
        ask(refusing, refusing, None, None)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    return EmbeddedStore(tmp_path / "store")


@pytest.fixture
def gateway(store: EmbeddedStore) -> Iterator[Gateway]:
    serving_gateway = Gateway(store)
    serving_gateway.start()
    yield serving_gateway
    serving_gateway.stop()


def answer_for(data: bytes, *links: str, **changes: Any) -> dict[str, Any]:
    """A committee's answer about the file ``data``."""
    return {"mid": "0x" + sha256(data).hex(), "sizeBytes": len(data), "links": list(links)} | changes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"y" * CHUNK_BYTES,
        b"z" * (CHUNK_BYTES + 1),
        bytes(range(256)) * 4096,
        bytes(CHUNK_BYTES) * 180,
    ],
    ids=["empty", "one byte", "one block", "two blocks", "four blocks", "two layers"],
)
def test_files_of_every_shape_arrive_whole(store: EmbeddedStore, gateway: Gateway, data: bytes) -> None:
    cid = store.put(data)
    store.publish(cid)
    assert get.fetch_model(answer_for(data, link_to(gateway.url, cid))) == data


def test_cids_are_read_and_written_as_the_store_does() -> None:
    for data in (b"a", b"b" * (CHUNK_BYTES + 5)):
        root, blocks = build(data)
        assert get.cid_text(*get.parse_cid(str(root))) == str(root)
        assert get.parse_cid(str(root)) == (root.codec, root.digest)
        if len(blocks) > 1:
            assert [get.cid_text(*child) for child in get.children(blocks[root])] == [
                str(Cid.of(0x55, part)) for part in (data[:CHUNK_BYTES], data[CHUNK_BYTES:])
            ]
    for text in ("", "b", "zdj7W", "bafk!!", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"):
        with pytest.raises(get.GetError):
            get.parse_cid(text)


def test_the_next_link_is_tried_when_one_is_dead_wrong_or_another_file(
    store: EmbeddedStore, gateway: Gateway
) -> None:
    data, other = b"the model", b"not model"
    cid, other_cid = store.put(data), store.put(other)
    store.publish(cid)
    store.publish(other_cid)
    with serving(lambda path: (200, b"other bytes")) as wrong:
        links = [
            f"http://127.0.0.1:9/ipfs/{cid}",
            "no link at all",
            link_to(wrong, cid),
            link_to(gateway.url, other_cid),
            link_to(gateway.url, cid),
        ]
        assert get.fetch_model(answer_for(data, *links)) == data
        with pytest.raises(get.GetError, match="another file than the winner's"):
            get.fetch_model(answer_for(data, *links[:-1]))


def test_a_file_larger_than_claimed_or_an_endless_tree_is_given_up(
    store: EmbeddedStore, gateway: Gateway
) -> None:
    data = bytes(5 * CHUNK_BYTES)
    cid = store.put(data)
    store.publish(cid)
    with pytest.raises(get.GetError, match="larger than claimed"):
        get.fetch_model(answer_for(data, link_to(gateway.url, cid), sizeBytes=CHUNK_BYTES))


def test_a_node_that_is_no_file_node_of_links_is_refused() -> None:
    link = b"\x12\x26\x0a\x24" + Cid.of(0x55, b"leaf").encode()
    unixfs = b"\x08\x02\x18\x04\x20\x04"
    good = link + b"\x0a\x06" + unixfs
    assert get.children(good) == [(0x55, sha256(b"leaf"))]
    own_bytes = link + b"\x0a\x0a" + unixfs + b"\x12\x02hi"
    for bad in (
        b"",
        b"\x0a\x06" + unixfs,
        good[:-1],
        own_bytes,
        good + b"\x1a\x00",
        b"\x12",
        b"\xff" * 12,
        b"\x0b",
    ):
        with pytest.raises(get.GetError):
            get.children(bad)


def test_a_gateway_that_drips_its_bytes_is_given_up(
    store: EmbeddedStore, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"z" * 50
    cid = store.put(data)
    store.publish(cid)
    # A clock that has moved on by a minute whenever it is looked at again.
    minutes = iter(range(0, 10**6, 60))
    monkeypatch.setattr(get, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    with pytest.raises(get.GetError, match="took more than 20 s"):
        get.fetch_model(answer_for(data, link_to(gateway.url, cid)))


def test_without_a_chain_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "model.safetensors"
    arguments = [OID, "--rpc", "http://127.0.0.1:9", "--orders", "0x" + "11" * 20, "-o", str(target)]
    assert get.main(arguments) == 1
    assert capsys.readouterr().err == "get: no chain node answers at http://127.0.0.1:9\n"
    assert list(tmp_path.iterdir()) == []
