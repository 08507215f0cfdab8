"""Files as trees of blocks, the way ``ipfs add --cid-version=1 --raw-leaves`` builds them.

256 KiB chunks as raw leaves, balanced tree with 174 links per node, UnixFS file nodes in dag-pb. A file of
one chunk is that chunk. Guarantees: equal bytes give equal CIDs in every backend; a file of any size is built
and read with one block and one path of nodes in memory.

Source: ipfs/specs UNIXFS.md and dag-pb.md; kubo's balanced layout.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from offchain.storage.cid import DAG_PB, RAW, Cid, InvalidCid

CHUNK_BYTES: Final = 256 * 1024
MAX_LINKS: Final = 174
MAX_BLOCK_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 8
"""Levels of nodes below which no file is read; four hold 240 TB."""

Block = tuple[Cid, bytes]
_TYPE_FILE: Final = 2


@dataclass(frozen=True, slots=True)
class Child:
    """A link of a file node: the child, the bytes of file below it, and the bytes of blocks below it."""

    cid: Cid
    file_bytes: int
    tree_bytes: int


class TreeBuilder:
    """A file's tree, built from its chunks as they come; keeps at most `MAX_LINKS` links per level."""

    def __init__(self) -> None:
        self._levels: list[list[Child]] = [[]]

    def chunk(self, chunk: bytes) -> list[Block]:
        """The blocks that are known once ``chunk`` has come: its leaf, and the nodes that it fills."""
        cid = Cid.of(RAW, chunk)
        return [(cid, chunk), *self.leaf(Child(cid, len(chunk), len(chunk)))]

    def leaf(self, child: Child) -> list[Block]:
        """Takes a leaf whose block the caller has; returns the nodes that it fills."""
        return self._link(0, child)

    def finish(self) -> list[Block]:
        """The nodes that end the file, its root last; none if the only chunk is the root."""
        blocks: list[Block] = []
        level = 0
        while level < len(self._levels):
            is_top = level + 1 == len(self._levels)
            if len(self._levels[level]) > is_top:
                blocks += self._close(level)
            level += 1
        return blocks

    def _link(self, level: int, child: Child) -> list[Block]:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(child)
        return self._close(level) if len(self._levels[level]) == MAX_LINKS else []

    def _close(self, level: int) -> list[Block]:
        children, self._levels[level] = self._levels[level], []
        node = _encode_node(children)
        cid = Cid.of(DAG_PB, node)
        file_bytes = sum(child.file_bytes for child in children)
        tree_bytes = len(node) + sum(child.tree_bytes for child in children)
        return [(cid, node), *self._link(level + 1, Child(cid, file_bytes, tree_bytes))]


def blocks_of(file: BinaryIO) -> Iterator[Block]:
    """The blocks of a file, children before parents, the root last; one chunk is in memory at a time."""
    builder = TreeBuilder()
    chunk = _read_chunk(file)
    while True:
        yield from builder.chunk(chunk)
        chunk = _read_chunk(file)
        if not chunk:
            break
    yield from builder.finish()


def _read_chunk(file: BinaryIO) -> bytes:
    """The next chunk, whole even if the file gives its bytes in pieces; shorter or empty only at the end."""
    chunk = file.read(CHUNK_BYTES)
    while 0 < len(chunk) < CHUNK_BYTES and (more := file.read(CHUNK_BYTES - len(chunk))):
        chunk += more
    return chunk


def build(data: bytes) -> tuple[Cid, dict[Cid, bytes]]:
    """Root and all blocks of a file that is in memory anyway."""
    blocks: dict[Cid, bytes] = {}
    root = None
    for root, block in blocks_of(io.BytesIO(data)):
        blocks[root] = block
    assert root is not None, "even an empty file has a block"
    return root, blocks


def children_of(cid: Cid, block: bytes) -> list[Child]:
    """What a block links to; nothing for a leaf.

    Raises:
        InvalidCid: a dag-pb block that is no UnixFS file node.
    """
    return [] if cid.codec == RAW else _decode_node(block)


def walk(
    root: Cid, read: Callable[[Cid], bytes], *, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, Cid, bytes]]:
    """The blocks of a file in depth-first order, as often as they occur, each with its offset in the file.

    Args:
        read: gives a checked block, or raises. start, end: offsets of the first byte and after the last one
            of a part; only the blocks that it needs come, always the root.

    Raises:
        InvalidCid: a block is no file node, or the tree is too deep; and what ``read`` raises.
    """
    # Depth first with a stack of its own: what waits is at most the links of one path.
    waiting = [(0, root, 0)]
    while waiting:
        at, cid, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidCid("the file's tree is too deep")
        block = read(cid)
        yield at, cid, block
        wanted = []
        for child in children_of(cid, block):
            if at + child.file_bytes > start and (end is None or at < end):
                wanted.append((at, child.cid, depth + 1))
            at += child.file_bytes
        waiting += reversed(wanted)


def read_range(root: Cid, read: Callable[[Cid], bytes], start: int, end: int) -> Iterator[bytes]:
    """The bytes of a file from ``start`` to before ``end``, leaf by leaf; raises what `walk` does."""
    for at, cid, block in walk(root, read, start=start, end=end):
        if cid.codec == RAW:
            yield block[max(0, start - at) : max(0, end - at)]


def size_of(cid: Cid, block: bytes) -> int:
    """Bytes of file below a block, as it says itself; raises `InvalidCid`."""
    return len(block) if cid.codec == RAW else sum(child.file_bytes for child in _decode_node(block))


# Protobuf ----------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """An unsigned integer in base 128, least significant group first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(payload)) + payload


def _encode_node(children: list[Child]) -> bytes:
    links = b"".join(
        _field(2, _field(1, child.cid.encode()) + _field(2, b"") + b"\x18" + varint(child.tree_bytes))
        for child in children
    )
    unixfs = b"\x08" + varint(_TYPE_FILE)
    unixfs += b"\x18" + varint(sum(child.file_bytes for child in children))
    unixfs += b"".join(b"\x20" + varint(child.file_bytes) for child in children)
    return links + _field(1, unixfs)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise InvalidCid("a file node is cut off")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
        elif key & 7 == 2:
            size = number()
            if size > len(data) - at:
                raise InvalidCid("a file node is cut off")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise InvalidCid("a file node has a field of an unknown kind")


def _decode_node(block: bytes) -> list[Child]:
    links: list[tuple[Cid, int]] = []
    sizes: list[int] = []
    kind: int | bytes | None = None
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes):
            link = dict(_fields(value))
            cid, tree_bytes = link.get(1), link.get(3, 0)
            if not isinstance(cid, bytes) or not isinstance(tree_bytes, int):
                raise InvalidCid("a file node has a malformed link")
            links.append((Cid.decode(cid), tree_bytes))
        elif number == 1 and isinstance(value, bytes):
            for inner, item in _fields(value):
                if inner == 1:
                    kind = item
                elif inner == 2 and item:
                    raise InvalidCid("a file node carries bytes of its own; here only raw leaves do")
                elif inner == 4 and isinstance(item, int):
                    sizes.append(item)
    if kind != _TYPE_FILE or len(links) != len(sizes) or not links or len(links) > MAX_LINKS:
        raise InvalidCid("a block is no file node")
    return [Child(cid, size, tree) for (cid, tree), size in zip(links, sizes, strict=True)]
