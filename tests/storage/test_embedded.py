"""The embedded store: what is kept comes back, what is private stays private, processes may share it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offchain.storage import Cid, EmbeddedStore, NotStored, StorageFull
from offchain.storage.unixfs import CHUNK_BYTES, build

ROOT = Path(__file__).parents[2]


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Bytes in which no two chunks are alike."""

    return random.Random(seed).randbytes(size)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    """An empty store."""
    return EmbeddedStore(tmp_path / "store")


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 5])
def test_what_is_put_is_got_back_under_the_same_cid(store: EmbeddedStore, size: int) -> None:
    data = random_bytes(size)
    cid = store.put(data)
    assert cid == build(data)[0] == store.put(data)
    assert store.has(cid)
    assert store.get(cid) == data


def test_what_was_never_put_is_not_there(store: EmbeddedStore) -> None:
    cid, _ = build(b"never")
    assert not store.has(cid)
    for action in (store.get, store.publish, store.unpin):
        with pytest.raises(NotStored):
            action(cid)


def test_private_blocks_are_not_served_and_public_ones_are(store: EmbeddedStore) -> None:
    data = random_bytes(2 * CHUNK_BYTES)
    cid, blocks = build(data)
    store.put(data)
    assert all(store.public_block(each) is None for each in blocks)
    store.publish(cid)
    store.publish(cid)
    assert all(store.public_block(each) == block for each, block in blocks.items())


def test_a_file_that_shares_blocks_with_a_public_one_stays_private(store: EmbeddedStore) -> None:
    shared, secret = random_bytes(CHUNK_BYTES), random_bytes(10, seed=1)
    public, private = store.put(shared), store.put(shared + secret)
    store.publish(public)
    assert store.public_block(private) is None
    assert store.public_block(build(secret)[0]) is None


def test_unpinning_keeps_the_blocks_that_other_files_share(store: EmbeddedStore) -> None:
    shared, more = random_bytes(CHUNK_BYTES), random_bytes(10, seed=1)
    small, large = store.put(shared), store.put(shared + more)
    store.publish(small)
    store.publish(large)
    store.unpin(large)
    assert not store.has(large)
    assert store.public_block(large) is None and store.public_block(build(more)[0]) is None
    assert store.get(small) == shared and store.public_block(small) == shared
    store.unpin(small)
    with pytest.raises(NotStored):
        store.get(small)


def test_a_damaged_block_is_never_returned_and_putting_the_file_again_heals_it(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    data = random_bytes(CHUNK_BYTES + 1)
    cid = store.put(data)
    store.publish(cid)
    for leaf in build(data)[1]:
        (tmp_path / "store" / "private" / str(leaf)).write_bytes(b"rotten")
    with pytest.raises(NotStored):
        store.get(cid)
    assert store.public_block(cid) is None
    store.put(data)
    store.publish(cid)
    assert store.get(cid) == data
    assert store.public_block(cid) is not None


def test_half_written_files_of_a_killed_process_do_no_harm(store: EmbeddedStore, tmp_path: Path) -> None:
    cid = store.put(b"kept")
    for folder in ("private", "roots"):
        (tmp_path / "store" / folder / ".new-abc").write_bytes(b"[")
    store.unpin(cid)
    assert not store.has(cid)


def test_two_stores_on_one_folder_are_one_store(tmp_path: Path) -> None:
    first, second = EmbeddedStore(tmp_path / "s"), EmbeddedStore(tmp_path / "s")
    cid = first.put(b"shared")
    assert second.get(cid) == b"shared"
    second.publish(cid)
    assert first.public_block(cid) == b"shared"
    first.unpin(cid)
    assert not second.has(cid)


_WORKER = """
import random, sys
from pathlib import Path
from offchain.storage import Cid, EmbeddedStore
store, seed = EmbeddedStore(Path(sys.argv[1])), int(sys.argv[2])
chooser = random.Random(seed)
common = [random.Random(n).randbytes(262144) for n in range(3)]
for _ in range(40):
    data = b"".join(chooser.sample(common, 2)) + bytes([seed])
    cid = store.put(data)
    store.publish(cid)
    assert store.get(cid) == data, "a block that another process shares was taken away"
    store.unpin(cid)
kept = store.put(common[0] + common[1] + bytes([seed, 255]))
assert store.get(kept)
"""


def test_processes_that_share_blocks_do_not_take_them_from_each_other(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path / "s"), str(seed)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2, 3)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    store = EmbeddedStore(tmp_path / "s")
    common = [random_bytes(262144, seed=n) for n in range(2)]
    for seed in (1, 2, 3):
        data = common[0] + common[1] + bytes([seed, 255])
        assert store.get(build(data)[0]) == data


_FULL = """
import io, resource, sys
from pathlib import Path
from offchain.storage import Cid, EmbeddedStore, NotStored, StorageFull
from offchain.storage.unixfs import build
store = EmbeddedStore(Path(sys.argv[1]))
kept = store.put(b"small")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
data = bytes(5000)
root, blocks = build(data)
try:
    if sys.argv[2] == "put":
        store.put(data)
    elif sys.argv[2] == "take":
        store.take([root], blocks.items())
    else:
        store.put_file(io.BytesIO(data))
except StorageFull as reason:
    print(reason)
assert not store.has(build(data)[0])
assert store.get(kept) == b"small"
left = [path.name for path in Path(sys.argv[1]).rglob(".new-*")]
assert not left, left
"""


@pytest.mark.parametrize("way", ["put", "put_file", "take"])
def test_a_full_disk_is_a_typed_error_and_leaves_nothing_behind(tmp_path: Path, way: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / "s"), way],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr
    assert "free some space" in told.stdout


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageFull):
        EmbeddedStore(tmp_path / "file" / "store")


# Files larger than memory, collection --------------------------------------------------------------------


def test_a_file_is_put_and_read_as_a_stream(store: EmbeddedStore, tmp_path: Path) -> None:
    data = random_bytes(3 * CHUNK_BYTES + 5)
    (tmp_path / "file").write_bytes(data)
    told: list[int] = []
    with open(tmp_path / "file", "rb") as file:
        cid = store.put_file(file, told.append)
    assert cid == build(data)[0]
    assert told == [CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES, len(data)]
    parts = list(store.read(cid))
    assert b"".join(parts) == data and max(map(len, parts)) <= CHUNK_BYTES
    assert b"".join(store.read(cid, 10, CHUNK_BYTES + 20)) == data[10 : CHUNK_BYTES + 20]
    assert store.size(cid) == len(data)


_LARGE = """
import resource, sys
from pathlib import Path
from offchain.storage import Cid, EmbeddedStore
store = EmbeddedStore(Path(sys.argv[1]))
with open(sys.argv[2], "rb") as file:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cid = store.put_file(file)
    size = sum(map(len, store.read(cid)))
    print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_file_needs_no_memory_of_its_size(tmp_path: Path) -> None:
    size = 400 * CHUNK_BYTES
    with open(tmp_path / "large", "wb") as file:
        file.truncate(size)  # all of it one block, so that the disk stays empty
        for index in range(40):
            file.seek(index * 10 * CHUNK_BYTES)
            file.write(index.to_bytes(2, "big"))
    told = subprocess.run(
        [sys.executable, "-c", _LARGE, str(tmp_path / "s"), str(tmp_path / "large")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    read, grown_kib = map(int, told.stdout.split())
    assert read == size
    assert grown_kib * 1024 < size / 4


def test_pins_lists_what_is_kept(store: EmbeddedStore) -> None:
    large, small = store.put(random_bytes(2 * CHUNK_BYTES)), store.put(b"small")
    store.publish(small)
    listed = {pin.cid: (pin.blocks, pin.size_bytes, pin.is_public) for pin in store.pins()}
    assert listed == {large: (3, 2 * CHUNK_BYTES, False), small: (1, 5, True)}


def test_collecting_removes_what_no_file_needs_and_nothing_else(store: EmbeddedStore, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    kept = store.put(random_bytes(CHUNK_BYTES + 1))
    store.publish(kept)
    stray = build(b"stray")[0]
    for name in ("private", "public"):
        (folder / name / str(stray)).write_bytes(b"stray")
    for name in ("private", "roots"):
        (folder / name / ".new-abc").write_bytes(b"[")
    (folder / "incoming" / ".new-dead").mkdir()
    (folder / "incoming" / ".new-dead" / "lock").touch()
    (folder / "incoming" / ".new-dead" / str(stray)).write_bytes(b"stray")
    collected = store.collect()
    assert (collected.blocks, collected.size_bytes) == (2, 6)
    assert not list(folder.rglob(str(stray))) and not list(folder.rglob(".new-*"))
    assert store.get(kept) == random_bytes(CHUNK_BYTES + 1) and store.public_block(kept) is not None
    assert store.collect().blocks == 0


def test_collecting_leaves_what_another_process_is_bringing_in(store: EmbeddedStore) -> None:
    data = random_bytes(2 * CHUNK_BYTES)
    root, blocks = build(data)

    def coming() -> Iterator[tuple[Cid, bytes]]:
        for index, (cid, block) in enumerate(blocks.items()):
            if index == 1:
                store.collect()
            yield cid, block

    store.take([root], coming())
    assert store.get(root) == data


def test_a_source_that_breaks_off_leaves_nothing_behind(store: EmbeddedStore, tmp_path: Path) -> None:
    def breaking() -> Iterator[tuple[Cid, bytes]]:
        yield next(iter(build(b"first")[1].items()))
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        store.take([build(b"first")[0]], breaking())
    assert not list((tmp_path / "store" / "incoming").iterdir())
    assert not store.pins()
