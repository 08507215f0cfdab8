"""Fetching from strangers: every byte checked, every wait and every download bounded, the next source tried.

Real HTTP servers on loopback, some honest, some not.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from offchain.storage import (
    EmbeddedStore,
    Gateway,
    InvalidCid,
    StorageFull,
    Unavailable,
    fetch,
    fetch_file,
    link_to,
    parse_link,
)
from offchain.storage.cid import DAG_PB, RAW, Cid
from offchain.storage.fetch import MAX_UNDER_WAY
from offchain.storage.unixfs import CHUNK_BYTES, MAX_BLOCK_BYTES, MAX_LINKS, Child, _encode_node, build

DATA = bytes(range(256)) * 3000
ROOT, BLOCKS = build(DATA)
VARIED = random.Random(5).randbytes(3 * CHUNK_BYTES - 1000)
"""Three leaves that differ."""
VARIED_ROOT, VARIED_BLOCKS = build(VARIED)

Answer = Callable[[BaseHTTPRequestHandler, str], None]


class Server:
    """A gateway that answers as a test wants; counts what it was asked for."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = self.path.partition("/ipfs/")[2].partition("?")[0]
                outer.asked.append(text)
                try:
                    answer(self, text)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def reply(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """Send an answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def serving(blocks: dict[Cid, bytes]) -> Answer:
    """Serve these blocks and nothing else."""
    by_text = {str(cid): block for cid, block in blocks.items()}

    def answer(handler: BaseHTTPRequestHandler, text: str) -> None:
        block = by_text.get(text)
        reply(handler, block or b"", 200 if block is not None else 404)

    return answer


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    """Starts servers and stops them after the test."""
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


Serve = Callable[[Answer], Server]


# Good days ---------------------------------------------------------------------------------------------


def test_a_published_file_is_fetched_from_a_gateway_and_a_private_one_is_not(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    gateway = Gateway(store)
    gateway.start()
    try:
        cid, private = store.put(DATA), store.put(b"private")
        store.publish(cid)
        assert fetch(cid, [gateway.url], max_bytes=len(DATA)) == DATA
        with pytest.raises(Unavailable, match="404"):
            fetch(private, [gateway.url], max_bytes=100)
        answer = httpx.get(link_to(gateway.url, cid), params={"format": "raw"})
        assert answer.headers["content-type"] == "application/vnd.ipld.raw"
        assert httpx.head(link_to(gateway.url, cid)).status_code == 200
        assert httpx.get(gateway.url + "/ipfs/nonsense").status_code == 400
        for path in ("/ipfs/../private/x", "/ipfs/%2e%2e%2fprivate", "/", "/docs", "/openapi.json"):
            assert httpx.get(gateway.url + path).status_code in (400, 404)
    finally:
        gateway.stop()


def test_an_empty_file_is_a_file(serve: Serve) -> None:
    cid, blocks = build(b"")
    server = serve(lambda handler, _: reply(handler, b""))
    assert fetch(cid, [server.url], max_bytes=0) == b""
    assert blocks == {cid: b""}


def test_fetching_works_inside_a_running_event_loop(serve: Serve) -> None:
    server = serve(serving(BLOCKS))

    async def inside() -> bytes:
        return fetch(ROOT, [server.url], max_bytes=len(DATA))

    assert asyncio.run(inside()) == DATA


def test_the_next_source_is_tried(serve: Serve) -> None:
    dead = "http://127.0.0.1:9"
    without = serve(serving({}))
    lying = serve(lambda handler, _: reply(handler, b"other bytes"))
    good = serve(serving(BLOCKS))
    sources = [dead, without.url, lying.url, "ftp://x", "http://", "nonsense", good.url]
    assert fetch(ROOT, sources, max_bytes=len(DATA)) == DATA


def test_when_nobody_has_the_file_the_error_says_what_each_did(serve: Serve) -> None:
    without = serve(serving({}))
    with pytest.raises(Unavailable) as refused:
        fetch(ROOT, ["http://127.0.0.1:9", without.url], max_bytes=len(DATA))
    assert "127.0.0.1:9" in str(refused.value) and "404" in str(refused.value)
    with pytest.raises(Unavailable, match="no gateway is known"):
        fetch(ROOT, [], max_bytes=1)


# Any holder continues ------------------------------------------------------------------------------------


def test_what_one_source_began_another_continues(serve: Serve) -> None:
    """Each has one part of the file only; none is asked for what another has given."""
    leaves = [cid for cid in VARIED_BLOCKS if cid != VARIED_ROOT]
    first = serve(serving({VARIED_ROOT: VARIED_BLOCKS[VARIED_ROOT], leaves[0]: VARIED_BLOCKS[leaves[0]]}))
    second = serve(serving({leaves[1]: VARIED_BLOCKS[leaves[1]]}))
    third = serve(serving({leaves[2]: VARIED_BLOCKS[leaves[2]]}))
    assert fetch(VARIED_ROOT, [first.url, second.url, third.url], max_bytes=len(VARIED)) == VARIED
    assert second.asked == [str(leaves[1]), str(leaves[2])] and third.asked == [str(leaves[2])]


def test_an_interrupted_download_goes_on_where_it_stopped(serve: Serve, tmp_path: Path) -> None:
    target = tmp_path / "new" / "model"
    leaves = [cid for cid in VARIED_BLOCKS if cid != VARIED_ROOT]
    half = serve(serving({VARIED_ROOT: VARIED_BLOCKS[VARIED_ROOT], leaves[0]: VARIED_BLOCKS[leaves[0]]}))
    with pytest.raises(Unavailable, match="404"):
        fetch_file(VARIED_ROOT, [half.url], target, max_bytes=len(VARIED))
    assert not target.exists(), "a file under its name is whole"
    whole, told = serve(serving(VARIED_BLOCKS)), []
    fetch_file(VARIED_ROOT, [whole.url], target, max_bytes=len(VARIED), progress=told.append)
    assert target.read_bytes() == VARIED
    assert str(leaves[0]) not in whole.asked and len(whole.asked) == len(VARIED_BLOCKS) - 1
    assert told[-1] == len(VARIED) and told == sorted(told)
    assert [path.name for path in target.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("damage", ["first leaf", "last leaf", "too long", "other file"])
def test_nothing_on_the_disk_is_believed_unchecked(serve: Serve, tmp_path: Path, damage: str) -> None:
    target, partial = tmp_path / "model", tmp_path / "model.part"
    wrong = bytearray(VARIED)
    wrong[0 if damage == "first leaf" else -1] ^= 1
    partial.write_bytes(
        {"too long": VARIED + b"more", "other file": b"x" * 3_000_000}.get(damage, bytes(wrong))
    )
    server = serve(serving(VARIED_BLOCKS))
    fetch_file(VARIED_ROOT, [server.url], target, max_bytes=len(VARIED))
    assert target.read_bytes() == VARIED
    assert len(server.asked) == {"too long": 1, "other file": len(VARIED_BLOCKS)}.get(damage, 2)


def test_a_small_and_an_empty_file_are_fetched_to_the_disk(serve: Serve, tmp_path: Path) -> None:
    for data in (b"", b"small"):
        cid, blocks = build(data)
        fetch_file(cid, [serve(serving(blocks)).url], tmp_path / "file", max_bytes=10)
        assert (tmp_path / "file").read_bytes() == data


def test_a_download_that_cannot_be_written_is_a_typed_error(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageFull):
        fetch_file(
            VARIED_ROOT,
            [serve(serving(VARIED_BLOCKS)).url],
            tmp_path / "file" / "model",
            max_bytes=len(VARIED),
        )


# Several at once -----------------------------------------------------------------------------------------


class Crowd:
    """Serves blocks, and holds each answer for a while so that others may come; counts how many do."""

    def __init__(self, blocks: dict[Cid, bytes], hold_s: float = 0.1) -> None:
        self._answer = serving(blocks)
        self._hold_s = hold_s
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __call__(self, handler: BaseHTTPRequestHandler, text: str) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(self._hold_s)
        with self._lock:
            self._inside -= 1
        self._answer(handler, text)


def long_file(leaves: int) -> tuple[bytes, Cid, dict[Cid, bytes]]:
    """A file of leaves that differ."""
    data = random.Random(7).randbytes(leaves * CHUNK_BYTES - 77)
    return data, *build(data)


def test_several_leaves_are_under_way_at_once_but_never_more_than_allowed(
    serve: Serve, tmp_path: Path
) -> None:
    data, root, blocks = long_file(12)
    for where in ("memory", "disk"):
        crowd = Crowd(blocks, hold_s=0.3)
        server = serve(crowd)
        if where == "memory":
            assert fetch(root, [server.url], max_bytes=len(data)) == data
        else:
            fetch_file(root, [server.url], tmp_path / "model", max_bytes=len(data))
            assert (tmp_path / "model").read_bytes() == data
        assert crowd.most == MAX_UNDER_WAY > 1
        assert sorted(server.asked) == sorted(map(str, blocks)), "nothing is asked for twice"


def test_a_source_that_is_slow_with_a_block_is_asked_for_one_at_a_time(serve: Serve) -> None:
    data, root, blocks = long_file(4)
    crowd = Crowd(blocks, hold_s=0.6)
    server = serve(crowd)
    assert fetch(root, [server.url], max_bytes=len(data), timeout_s=4) == data
    assert crowd.most == 1 and len(server.asked) == len(blocks)


def test_what_fails_while_others_are_under_way_decides_nothing(serve: Serve) -> None:
    """A source that refuses a leaf while another is under way is used to the end, one at a time."""
    data, root, blocks = long_file(8)
    lock, honest = threading.Lock(), serving(blocks)

    def answer(handler: BaseHTTPRequestHandler, text: str) -> None:
        if not lock.acquire(blocking=False):
            reply(handler, b"", 404)
            return
        try:
            time.sleep(0.05)
        finally:
            lock.release()
        honest(handler, text)

    server = serve(answer)
    assert fetch(root, [server.url], max_bytes=len(data)) == data
    assert len(server.asked) < 2 * MAX_UNDER_WAY * len(blocks)


def test_what_lies_on_the_disk_is_not_asked_for_early(serve: Serve, tmp_path: Path) -> None:
    data, root, blocks = long_file(12)
    (tmp_path / "model.part").write_bytes(data[: 6 * CHUNK_BYTES])
    server = serve(Crowd(blocks))
    fetch_file(root, [server.url], tmp_path / "model", max_bytes=len(data))
    assert (tmp_path / "model").read_bytes() == data
    leaves = [str(cid) for cid in blocks if cid != root]
    assert sorted(server.asked) == sorted([str(root), *leaves[6:]])


def test_a_source_that_is_busy_is_asked_again_and_one_that_stays_busy_is_given_up(serve: Serve) -> None:
    refusals, honest = iter([True, True, False, True]), serving(VARIED_BLOCKS)

    def answer(handler: BaseHTTPRequestHandler, text: str) -> None:
        if next(refusals, False):
            reply(handler, b"", 503)
        else:
            honest(handler, text)

    assert fetch(VARIED_ROOT, [serve(answer).url], max_bytes=len(VARIED)) == VARIED
    busy = serve(lambda handler, _: reply(handler, b"", 503))
    assert "no whole block" in refused(busy, VARIED_ROOT, len(VARIED), timeout_s=1.5)
    assert 1 < len(busy.asked) < 10


# Bad days ----------------------------------------------------------------------------------------------


def refused(server: Server, cid: Cid, max_bytes: int = len(DATA), timeout_s: float = 10.0) -> str:
    """The reason why a fetch from this server fails."""
    with pytest.raises(Unavailable) as reason:
        fetch(cid, [server.url], max_bytes=max_bytes, timeout_s=timeout_s)
    return str(reason.value)


def test_wrong_bytes_are_refused(serve: Serve) -> None:
    last = list(BLOCKS)[-2]
    server = serve(serving(BLOCKS | {last: b"x" * len(BLOCKS[last])}))
    assert "other bytes" in refused(server, ROOT)


def test_a_truncated_block_is_refused(serve: Serve) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"short")
        handler.close_connection = True

    refused(serve(answer), ROOT)


def test_a_file_larger_than_allowed_is_refused_before_its_leaves_are_fetched(serve: Serve) -> None:
    server = serve(serving(BLOCKS))
    assert "larger" in refused(server, ROOT, len(DATA) - 1)
    assert server.asked == [str(ROOT)]


def test_a_tree_that_understates_its_leaves_is_refused_at_the_first_of_them(serve: Serve) -> None:
    leaf = bytes(1000)
    child = Child(Cid.of(RAW, leaf), 1, 1)
    node = _encode_node([child] * 10)
    root = Cid.of(DAG_PB, node)
    server = serve(serving({root: node, child.cid: leaf}))
    assert "misstates" in refused(server, root, 3000)
    assert len(server.asked) <= 2


def test_leaves_that_are_too_many_bytes_are_refused_whatever_their_nodes_say(serve: Serve) -> None:
    leaf = bytes(1000)
    child = Child(Cid.of(RAW, leaf), 1000, 1000)
    inner = _encode_node([child] * 10)
    outer = _encode_node([Child(Cid.of(DAG_PB, inner), 1, 1)] * 10)
    root = Cid.of(DAG_PB, outer)
    server = serve(serving({root: outer, Cid.of(DAG_PB, inner): inner, child.cid: leaf}))
    assert "larger" in refused(server, root, 3000)
    assert len(server.asked) <= 2


def test_an_endless_block_is_cut_off(serve: Serve) -> None:
    sent = 0

    def answer(handler: BaseHTTPRequestHandler, _: str) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(65536))
            sent += 65536

    assert "larger" in refused(serve(answer), ROOT)
    assert sent < 64 * MAX_BLOCK_BYTES


def test_a_compressed_bomb_is_not_unpacked(serve: Serve) -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024))
    reason = refused(serve(lambda handler, _: reply(handler, bomb, Content_Encoding="gzip")), ROOT)
    assert "other bytes" in reason or "larger" in reason


def test_redirects_are_not_followed(serve: Serve) -> None:
    target = serve(serving(BLOCKS))
    server = serve(lambda handler, text: reply(handler, b"", 302, Location=f"{target.url}/ipfs/{text}"))
    assert "302" in refused(server, ROOT)
    assert not target.asked


@pytest.mark.parametrize("slow", ["silent", "drips its body", "drips its headers"])
def test_a_source_that_stalls_is_given_up(serve: Serve, slow: str) -> None:
    stop = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, _: str) -> None:
        if slow == "drips its headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            piece = b"X-Slow: y\r\n"
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            piece = b"x" if slow == "drips its body" else b""
        while not stop.wait(0.05):
            handler.wfile.write(piece)
            handler.wfile.flush()

    server = serve(answer)
    good = serve(serving(BLOCKS))
    given_up = threading.Event()

    def watchdog() -> None:
        if not given_up.wait(20):
            stop.set()  # lets a reader without a deadline of its own end, and the test fail

    guard = threading.Thread(target=watchdog)
    guard.start()
    try:
        assert fetch(ROOT, [server.url, good.url], max_bytes=len(DATA), timeout_s=0.5) == DATA
        assert not stop.is_set(), "the source was never given up"
    finally:
        given_up.set()
        guard.join()
        stop.set()


def _chain(depth: int, leaf: bytes) -> tuple[Cid, dict[Cid, bytes]]:
    child = Child(Cid.of(RAW, leaf), len(leaf), len(leaf))
    blocks = {child.cid: leaf}
    for _ in range(depth):
        node = _encode_node([child])
        child = Child(Cid.of(DAG_PB, node), len(leaf), len(node))
        blocks[child.cid] = node
    return child.cid, blocks


def test_a_deep_tree_is_refused(serve: Serve) -> None:
    root, blocks = _chain(200, b"leaf")
    server = serve(serving(blocks))
    assert "deep" in refused(server, root)
    assert len(server.asked) < 20


def test_a_wide_tree_of_empty_leaves_costs_a_bounded_number_of_requests(serve: Serve) -> None:
    child = Child(Cid.of(RAW, b""), 0, 0)
    blocks = {child.cid: b""}
    for _ in range(5):
        node = _encode_node([child] * MAX_LINKS)
        child = Child(Cid.of(DAG_PB, node), 0, 0)
        blocks[child.cid] = node
    server = serve(serving(blocks))
    assert "more blocks" in refused(server, child.cid, 10 * CHUNK_BYTES)
    assert len(server.asked) < 200


def test_a_block_that_is_no_file_node_is_refused(serve: Serve) -> None:
    block = b"\x0a\x02\x08\x01"  # a UnixFS folder
    root = Cid.of(DAG_PB, block)
    assert "no file node" in refused(serve(serving({root: block})), root)


def test_a_slow_source_that_never_stalls_is_given_up_when_the_whole_file_takes_too_long(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["offchain.storage.fetch"]  # the package exports the function under this name
    monkeypatch.setattr(module, "MIN_RATE_BYTES_S", 10**9)
    monkeypatch.setattr(module, "GRACE_S", 0.3)
    honest = serving(BLOCKS)

    def answer(handler: BaseHTTPRequestHandler, text: str) -> None:
        time.sleep(0.2)
        honest(handler, text)

    server = serve(answer)
    assert "slow" in refused(server, ROOT)
    assert len(server.asked) < len(BLOCKS)


# Links -------------------------------------------------------------------------------------------------


def test_a_link_names_gateway_and_cid() -> None:
    assert parse_link(link_to("http://127.0.0.1:80/", ROOT)) == ("http://127.0.0.1:80", ROOT)


@pytest.mark.parametrize(
    "link",
    ["", "x", "/ipfs/" + str(ROOT), f"file:///ipfs/{ROOT}", f"http://x/{ROOT}", "http://x/ipfs/", "http://x/ipfs/../a",
     f"http://x/ipfs/{ROOT}/more", f"http://x/ipfs/{ROOT}?format=car"],
)  # fmt: skip
def test_what_is_no_link_is_refused(link: str) -> None:
    with pytest.raises(InvalidCid):
        parse_link(link)
