"""CARs: what another implementation writes is read and written alike, and hostile ones are refused."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.storage import CarReader, Cid, EmbeddedStore, IncompleteFile, InvalidCar, write_car
from offchain.storage.car import MAX_HEADER_BYTES, header_of
from offchain.storage.cid import DAG_PB, RAW
from offchain.storage.unixfs import (
    CHUNK_BYTES,
    MAX_BLOCK_BYTES,
    MAX_DEPTH,
    Block,
    Child,
    _encode_node,
    build,
    varint,
)
from tests.storage.test_unixfs import pattern

HELLO = Cid.parse("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")
HELLO_CAR = bytes.fromhex(
    "3aa265726f6f747381d82a58250001551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
    "6776657273696f6e012f01551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
    "68656c6c6f20776f726c64"
)
"""``ipfs-car pack --no-wrap`` (npm, 3.1.0) of ``hello world``."""

PATTERN_CAR = (600372, "c93dede6e214e4d800e6c06ff6e7dfbe757273d9283f086da2005d26b10fdd9e")
"""Size and SHA-256 of what ``ipfs-unixfs-importer`` and ``@ipld/car`` (npm) make of 600,000 bytes."""

DATA = pattern(600_000)
ROOT, BLOCKS = build(DATA)


def car(roots: list[Cid], blocks: list[Block]) -> bytes:
    """A whole CAR in memory."""
    return b"".join(write_car(roots, blocks))


def read(data: bytes) -> tuple[tuple[Cid, ...], list[Block]]:
    """Roots and blocks of a CAR in memory."""
    reader = CarReader(io.BytesIO(data))
    return reader.roots, list(reader)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    """An empty store."""
    return EmbeddedStore(tmp_path / "store")


def test_a_car_is_byte_for_byte_that_of_another_implementation(store: EmbeddedStore) -> None:
    assert car([HELLO], [(HELLO, b"hello world")]) == HELLO_CAR
    assert read(HELLO_CAR) == ((HELLO,), [(HELLO, b"hello world")])
    written = car([ROOT], list(store.blocks(store.put(DATA))))
    assert (len(written), hashlib.sha256(written).hexdigest()) == PATTERN_CAR


@pytest.mark.parametrize("count", [0, 1, 2, 23, 24, 64])
def test_any_number_of_roots_comes_back(count: int) -> None:
    roots = [Cid.of(RAW, bytes([index])) for index in range(count)]
    assert read(car(roots, [])) == (tuple(roots), [])


def test_a_header_with_the_version_first_is_read_too() -> None:
    header = b"\xa2\x67version\x01\x65roots\x80"
    assert read(varint(len(header)) + header) == ((), [])


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 600_000])
def test_what_one_store_exports_another_imports(store: EmbeddedStore, tmp_path: Path, size: int) -> None:
    data = pattern(size) if size else b""
    cid = store.put(data)
    reader = CarReader(io.BytesIO(car([cid], list(store.blocks(cid)))))
    other = EmbeddedStore(tmp_path / "other")
    other.take(reader.roots, reader)
    assert other.get(cid) == data
    assert other.public_block(cid) is None, "what is imported stays private until it is published"


def test_blocks_may_come_in_any_order_and_several_times(store: EmbeddedStore) -> None:
    blocks = [*reversed(BLOCKS.items()), *BLOCKS.items()]
    store.take([ROOT], CarReader(io.BytesIO(car([ROOT], blocks))))
    assert store.get(ROOT) == DATA


def test_blocks_that_no_root_needs_are_dropped(store: EmbeddedStore, tmp_path: Path) -> None:
    other = Cid.of(RAW, b"other")
    store.take([ROOT], [*BLOCKS.items(), (other, b"other")])
    assert not list((tmp_path / "store").rglob(str(other)))


def test_a_car_that_misses_a_block_keeps_nothing(store: EmbeddedStore, tmp_path: Path) -> None:
    for missing in BLOCKS:
        some = [(cid, block) for cid, block in BLOCKS.items() if cid != missing]
        with pytest.raises(IncompleteFile, match=str(missing)):
            store.take([ROOT], some)
    assert not store.has(ROOT)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name != "lock"]


def test_a_car_that_is_cut_off_keeps_nothing(store: EmbeddedStore) -> None:
    whole = car([ROOT], list(BLOCKS.items()))
    for size in (len(whole) - 1, len(whole) // 2, 100):
        with pytest.raises(InvalidCar, match="cut off"):
            store.take([ROOT], CarReader(io.BytesIO(whole[:size])))
    assert not store.has(ROOT)


# Hostile ones ------------------------------------------------------------------------------------------


def test_a_block_that_is_not_what_its_cid_says_is_refused() -> None:
    with pytest.raises(InvalidCar, match="other bytes"):
        read(car([HELLO], [(HELLO, b"hello w0rld")]))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "header"),
        (b"\x00", "header"),
        (varint(MAX_HEADER_BYTES + 1) + bytes(MAX_HEADER_BYTES + 1), "header"),
        (b"\xff" * 20, "malformed"),
        (b"\x80\x00", "malformed"),
        (b"\x0a\xa1\x67version\x02", "version 2"),
        (b"\x11\xa2\x65roots\x80\x67version\x07", "unknown version"),
        (b"\x08\xa1\x65roots\x80", "no map"),
        (b"\x07\xa2\x65roots", "lists no roots"),
        (header_of([HELLO]).replace(b"\x01\x55\x12\x20", b"\x01\x71\x12\x20"), "raw or dag-pb"),
        (b"\x38\xa2\x65roots\x81\xd8\x2a\x58\x23\x00\x12\x20" + bytes(32) + b"\x67version\x01", "root"),
        (header_of([]) + varint(36 + MAX_BLOCK_BYTES + 1), "at most"),
        (header_of([]) + b"\x00", "at most"),
        (header_of([]) + varint(36) + b"\x01\x71\x12\x20" + bytes(32), "raw or dag-pb"),
    ],
)
def test_what_is_no_car_is_refused_with_a_reason(bad: bytes, why: str) -> None:
    with pytest.raises(InvalidCar, match=why):
        read(bad)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_car_or_a_refusal(data: bytes) -> None:
    try:
        _, blocks = read(data)
    except InvalidCar:
        return
    assert all(cid.names(block) for cid, block in blocks)


@given(st.data())
def test_a_damaged_car_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(HELLO_CAR) - 1))
    bad = HELLO_CAR[:place] + bytes([data.draw(st.integers(0, 255))]) + HELLO_CAR[place + 1 :]
    try:
        _, blocks = read(bad)
    except InvalidCar:
        return
    assert all(cid.names(block) for cid, block in blocks)


def test_trees_that_lie_about_sizes_or_have_no_end_are_not_kept(store: EmbeddedStore) -> None:
    leaf = Child(Cid.of(RAW, b"leaf"), 4, 4)
    blocks = {leaf.cid: b"leaf", Cid.of(RAW, b""): b""}

    def node(children: list[Child], size: int) -> Child:
        block = _encode_node(children)
        blocks[Cid.of(DAG_PB, block)] = block
        return Child(Cid.of(DAG_PB, block), size, len(block))

    deep = leaf
    for _ in range(MAX_DEPTH + 1):
        deep = node([deep], 4)
    shared = node([deep, leaf], 8)
    for root, why in (
        (node([Child(leaf.cid, 5, 4)], 5), "misstates"),
        (node([Child(Cid.of(RAW, b""), 0, 0)], 0), "misstates"),
        (deep, "deep"),
        (shared, "deep"),
    ):
        with pytest.raises(IncompleteFile, match=why):
            store.take([root.cid], blocks.items())
        assert not store.has(root.cid)
