"""Files as trees of blocks, the way ``ipfs add --cid-version=1 --raw-leaves`` builds them.

256 KiB chunks as raw leaves, balanced tree with 174 links per node, UnixFS file nodes in dag-pb. A file of
one chunk is that chunk. Guarantee: equal bytes give equal CIDs in every backend.

Source: ipfs/specs UNIXFS.md and dag-pb.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from offchain.storage.cid import DAG_PB, RAW, Cid, InvalidCid

CHUNK_BYTES: Final = 256 * 1024
MAX_LINKS: Final = 174
MAX_BLOCK_BYTES: Final = 1024 * 1024
_TYPE_FILE: Final = 2


@dataclass(frozen=True, slots=True)
class Child:
    """A link of a file node: the child, the bytes of file below it, and the bytes of blocks below it."""

    cid: Cid
    file_bytes: int
    tree_bytes: int


def build(data: bytes) -> tuple[Cid, dict[Cid, bytes]]:
    """Root and all blocks of a file."""
    blocks: dict[Cid, bytes] = {}
    level = []
    for start in range(0, max(1, len(data)), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        cid = Cid.of(RAW, chunk)
        blocks[cid] = chunk
        level.append(Child(cid, len(chunk), len(chunk)))
    while len(level) > 1:
        parents = []
        for start in range(0, len(level), MAX_LINKS):
            children = level[start : start + MAX_LINKS]
            node = _encode_node(children)
            cid = Cid.of(DAG_PB, node)
            blocks[cid] = node
            size = sum(child.file_bytes for child in children)
            parents.append(Child(cid, size, len(node) + sum(child.tree_bytes for child in children)))
        level = parents
    return level[0].cid, blocks


def children_of(cid: Cid, block: bytes) -> list[Child]:
    """What a block links to; nothing for a leaf.

    Raises:
        InvalidCid: a dag-pb block that is no UnixFS file node.
    """
    return [] if cid.codec == RAW else _decode_node(block)


# Protobuf ----------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _encode_node(children: list[Child]) -> bytes:
    links = b"".join(
        _field(2, _field(1, child.cid.encode()) + _field(2, b"") + b"\x18" + _varint(child.tree_bytes))
        for child in children
    )
    unixfs = b"\x08" + _varint(_TYPE_FILE)
    unixfs += b"\x18" + _varint(sum(child.file_bytes for child in children))
    unixfs += b"".join(b"\x20" + _varint(child.file_bytes) for child in children)
    return links + _field(1, unixfs)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def varint() -> int:
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
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            size = varint()
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
