"""The gateway after the trustless gateway specification: forms, parts, caching, refusals; nothing private."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from offchain.storage import CarReader, Cid, EmbeddedStore, Gateway, InvalidCar
from offchain.storage.cid import RAW
from offchain.storage.unixfs import CHUNK_BYTES, build

DATA = random.Random(3).randbytes(3 * CHUNK_BYTES + 10)
ROOT, BLOCKS = build(DATA)
LEAVES = [cid for cid in BLOCKS if cid.codec == RAW]
TWINS = bytes(2 * CHUNK_BYTES)
TWIN_ROOT, TWIN_BLOCKS = build(TWINS)
EMPTY = build(b"")[0]
RAW_TYPE, CAR_TYPE = "application/vnd.ipld.raw", "application/vnd.ipld.car"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedStore:
    """Three public files, and one that is not."""
    store = EmbeddedStore(tmp_path_factory.mktemp("store"))
    for data in (DATA, TWINS, b""):
        store.publish(store.put(data))
    store.put(b"private")
    return store


@pytest.fixture(scope="module")
def client(store: EmbeddedStore) -> Iterator[httpx.Client]:
    """Asks a running gateway."""
    gateway = Gateway(store)
    gateway.start()
    with httpx.Client(base_url=gateway.url, headers={"Accept": ""}) as client:
        yield client
    gateway.stop()


def blocks_in(answer: httpx.Response) -> list[Cid]:
    """The CIDs of the checked blocks in a CAR, in their order."""
    assert answer.status_code == 200, answer.text
    reader = CarReader(io.BytesIO(answer.content))
    return [cid for cid, _ in reader]


def test_a_block_is_answered_raw_and_may_be_kept_for_ever(client: httpx.Client) -> None:
    for cid, block in BLOCKS.items():
        for how in ({"params": {"format": "raw"}}, {"headers": {"Accept": RAW_TYPE}}):
            answer = client.get(f"/ipfs/{cid}", **how)  # type: ignore[arg-type]
            assert answer.content == block
            assert answer.headers["content-type"] == RAW_TYPE
            assert answer.headers["cache-control"] == "public, max-age=29030400, immutable"
            assert answer.headers["content-disposition"] == f'attachment; filename="{cid}.bin"'
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_car_has_the_whole_file_depth_first_each_block_once(client: httpx.Client) -> None:
    answer = client.get(f"/ipfs/{ROOT}", params={"format": "car"})
    assert blocks_in(answer) == [ROOT, *LEAVES]
    assert answer.headers["content-type"] == f"{CAR_TYPE}; version=1; order=dfs; dups=n"
    assert blocks_in(client.get(f"/ipfs/{TWIN_ROOT}", params={"format": "car"})) == list(
        reversed(TWIN_BLOCKS)
    )


@pytest.mark.parametrize(
    "how",
    [
        {"params": {"format": "car", "car-dups": "y"}},
        {"params": {"format": "car"}, "headers": {"Accept": f"{CAR_TYPE}; version=1; order=dfs; dups=y"}},
        {"headers": {"Accept": f"text/html, {CAR_TYPE};dups=y;q=0.9, {RAW_TYPE};q=0.5"}},
    ],
)
def test_blocks_are_repeated_on_demand(client: httpx.Client, how: dict[str, dict[str, str]]) -> None:
    answer = client.get(f"/ipfs/{TWIN_ROOT}", **how)  # type: ignore[arg-type]
    assert answer.headers["content-type"].endswith("dups=y")
    assert len(blocks_in(answer)) == 3


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"dag-scope": "block"}, [ROOT]),
        ({"dag-scope": "entity"}, [ROOT, *LEAVES]),
        ({"entity-bytes": "0:*"}, [ROOT, *LEAVES]),
        ({"entity-bytes": "0:0"}, [ROOT, LEAVES[0]]),
        ({"entity-bytes": f"{CHUNK_BYTES}:{2 * CHUNK_BYTES - 1}"}, [ROOT, LEAVES[1]]),
        ({"entity-bytes": f"{CHUNK_BYTES - 1}:{CHUNK_BYTES}"}, [ROOT, *LEAVES[:2]]),
        ({"entity-bytes": "-10:*"}, [ROOT, LEAVES[3]]),
        ({"entity-bytes": "-11:-1"}, [ROOT, *LEAVES[2:]]),
        ({"entity-bytes": f"{3 * CHUNK_BYTES}:99999999"}, [ROOT, LEAVES[3]]),
    ],
)
def test_a_car_may_hold_what_a_part_of_the_file_needs(
    client: httpx.Client, query: dict[str, str], expected: list[Cid]
) -> None:
    assert blocks_in(client.get(f"/ipfs/{ROOT}", params={"format": "car", **query})) == expected


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, len(DATA) - 1),
        ("bytes=-5", len(DATA) - 5, len(DATA) - 1),
        ("bytes=-99999999", 0, len(DATA) - 1),
        (f"bytes={CHUNK_BYTES - 3}-{CHUNK_BYTES + 3}", CHUNK_BYTES - 3, CHUNK_BYTES + 3),
        ("bytes=100-99999999", 100, len(DATA) - 1),
    ],
)
def test_a_part_of_the_file_itself_is_answered(
    client: httpx.Client, wanted: str, first: int, last: int
) -> None:
    answer = client.get(f"/ipfs/{ROOT}", headers={"Range": wanted})
    assert answer.status_code == 206
    assert answer.content == DATA[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"


@pytest.mark.parametrize("ignored", ["lines=1-2", "bytes=0-1,5-6", "bytes=x", "bytes=-", "nonsense"])
def test_the_whole_file_is_answered_to_who_asks_for_no_range_we_know(
    client: httpx.Client, ignored: str
) -> None:
    answer = client.get(f"/ipfs/{ROOT}", headers={"Range": ignored})
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["accept-ranges"] == "bytes"
    stale = client.get(f"/ipfs/{ROOT}", headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert stale.content == DATA


@pytest.mark.parametrize("beyond", [f"bytes={len(DATA)}-", "bytes=5-4", "bytes=-0"])
def test_a_range_that_is_not_there_is_refused_with_the_size(client: httpx.Client, beyond: str) -> None:
    answer = client.get(f"/ipfs/{ROOT}", headers={"Range": beyond})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_each_form_has_a_tag_of_its_own_and_is_not_sent_twice(client: httpx.Client) -> None:
    queries: list[dict[str, str]] = [
        {},
        {"format": "raw"},
        {"format": "car"},
        {"format": "car", "dag-scope": "block"},
        {"format": "car", "entity-bytes": "0:5"},
        {"format": "car", "car-dups": "y"},
    ]
    tags = set()
    for query in queries:
        tag = client.get(f"/ipfs/{ROOT}", params=query).headers["etag"]
        tags.add(tag)
        for seen in (tag, f'"other", W/{tag}', "*"):
            again = client.get(f"/ipfs/{ROOT}", params=query, headers={"If-None-Match": seen})
            assert (again.status_code, again.content) == (304, b"")
    assert len(tags) == len(queries)


def test_head_answers_like_get_without_the_body(client: httpx.Client) -> None:
    for query in ({}, {"format": "raw"}, {"format": "car"}):
        head, get = (client.request(each, f"/ipfs/{ROOT}", params=query) for each in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "etag", "cache-control", "content-disposition"):
            assert head.headers[name] == get.headers[name]
    assert client.head(f"/ipfs/{ROOT}").headers["content-length"] == str(len(DATA))


def test_an_empty_file_is_answered_in_every_form(client: httpx.Client) -> None:
    assert client.get(f"/ipfs/{EMPTY}").content == b""
    assert client.get(f"/ipfs/{EMPTY}", params={"format": "raw"}).content == b""
    car = client.get(f"/ipfs/{EMPTY}", params={"format": "car", "entity-bytes": "0:*"})
    assert blocks_in(car) == [EMPTY]


def test_a_probe_is_told_that_this_is_a_trustless_gateway(client: httpx.Client) -> None:
    raw = client.get("/ipfs/bafkqaaa", params={"format": "raw"})
    assert (raw.status_code, raw.content) == (200, b"")
    car = client.get("/ipfs/bafkqaaa", params={"format": "car"})
    assert car.status_code == 200 and car.content.endswith(b"\x67version\x01")


@pytest.mark.parametrize(
    ("path", "how", "status"),
    [
        ("nonsense", {}, 400),
        ("QmUK8LtfWZ6QDd7H3vQdC6hfK49MHUNt1xMpz8XXeRWDxT", {}, 400),
        (f"{ROOT}/folder/file", {}, 404),
        (f"{ROOT}", {"params": {"format": "tar"}}, 400),
        (f"{ROOT}", {"params": {"format": "car", "car-version": "2"}}, 406),
        (f"{ROOT}", {"params": {"format": "car", "car-order": "bfs"}}, 406),
        (f"{ROOT}", {"params": {"format": "car", "dag-scope": "some"}}, 400),
        (f"{ROOT}", {"params": {"format": "car", "entity-bytes": "5"}}, 400),
        (f"{ROOT}", {"params": {"format": "car", "entity-bytes": "9999999:*"}}, 400),
        (f"{ROOT}", {"params": {"format": "car", "entity-bytes": "9:5"}}, 400),
        (f"{ROOT}", {"headers": {"Accept": "text/html"}}, 406),
        (f"{ROOT}", {"headers": {"Accept": f"{CAR_TYPE};version=2"}}, 406),
        (f"{ROOT}", {"headers": {"Accept": f"{RAW_TYPE};q=0"}}, 406),
        (f"{build(b'private')[0]}", {}, 404),
        (f"{build(b'private')[0]}", {"params": {"format": "car"}}, 404),
        (f"{build(b'nobody')[0]}", {"headers": {"Cache-Control": "only-if-cached"}}, 412),
    ],
)
def test_what_is_not_served_is_refused_with_the_status_that_says_why(
    client: httpx.Client, path: str, how: dict[str, dict[str, str]], status: int
) -> None:
    answer = client.get(f"/ipfs/{path}", **how)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert answer.text and "immutable" not in answer.headers.get("cache-control", "")


def test_a_file_that_is_damaged_in_the_middle_is_cut_off_not_made_up(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    store.publish(store.put(DATA))
    (tmp_path / "public" / str(LEAVES[2])).write_bytes(b"rotten")
    gateway = Gateway(store)
    gateway.start()
    try:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{gateway.url}/ipfs/{ROOT}")
        with pytest.raises((httpx.RemoteProtocolError, InvalidCar)):
            blocks_in(httpx.get(f"{gateway.url}/ipfs/{ROOT}", params={"format": "car"}))
    finally:
        gateway.stop()
