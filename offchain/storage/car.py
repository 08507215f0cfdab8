"""CAR version 1: blocks of files in one stream, to carry them between stores and IPFS nodes.

A header with the roots, then each block with its CID. Guarantees: every block that `CarReader` gives matches
its CID; a header has at most `MAX_HEADER_BYTES`, a block at most `MAX_BLOCK_BYTES`; one block is in memory at
a time. Whether the blocks make up the roots is for the store to see (`EmbeddedStore.take`).

Source: ipld.io/specs/transport/car/carv1, ipld.io/specs/codecs/dag-cbor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final

from offchain.storage.cid import Cid, InvalidCid
from offchain.storage.unixfs import MAX_BLOCK_BYTES, Block, varint
from protocol.errors import ProtocolError

CID_BYTES: Final = 36
MAX_ROOTS: Final = 64
MAX_HEADER_BYTES: Final = 4096
_VARINT_BYTES: Final = 9
_MAP_OF_TWO: Final = b"\xa2"
_ROOTS: Final = b"\x65roots"
_VERSION: Final = b"\x67version"
_LINK: Final = b"\xd8\x2a\x58\x25\x00"
"""What stands before each CID: tag 42, a byte string of 37, the multibase prefix."""
_VERSION_2: Final = b"\xa1\x67version\x02"


class InvalidCar(ProtocolError):
    """A stream that is no CAR of the kind in use; says where it goes wrong."""


def write_car(roots: Sequence[Cid], blocks: Iterable[Block]) -> Iterator[bytes]:
    """The pieces of a CAR with these blocks, in their order."""
    yield header_of(roots)
    for cid, block in blocks:
        yield varint(CID_BYTES + len(block)) + cid.encode() + block


def header_of(roots: Sequence[Cid]) -> bytes:
    """A header with its length."""
    assert len(roots) <= MAX_ROOTS, "a CAR of ours has few roots"
    listed = _head(len(roots)) + b"".join(_LINK + root.encode() for root in roots)
    header = _MAP_OF_TWO + _ROOTS + listed + _VERSION + b"\x01"
    return varint(len(header)) + header


class CarReader:
    """The roots and, iterated over once, the checked blocks of a CAR.

    Raises:
        InvalidCar: the stream is no CAR, is cut off, or holds a block that is too large, of an unknown kind
            or not what its CID says; at construction, or at the block where it shows.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0
        size = self._varint()
        if size is None or not 0 < size <= MAX_HEADER_BYTES:
            raise InvalidCar(f"no CAR: its header must have 1 to {MAX_HEADER_BYTES} bytes")
        self.roots = _decode_header(self._take(size))

    def __iter__(self) -> Iterator[Block]:
        while (size := self._varint()) is not None:
            if not CID_BYTES <= size <= CID_BYTES + MAX_BLOCK_BYTES:
                raise InvalidCar(
                    f"a block before byte {self._at} has {size} bytes; {MAX_BLOCK_BYTES} at most"
                )
            try:
                cid = Cid.decode(self._take(CID_BYTES))
            except InvalidCid as reason:
                raise InvalidCar(f"the block before byte {self._at}: {reason}") from reason
            block = self._take(size - CID_BYTES)
            if not cid.names(block):
                raise InvalidCar(f"the block before byte {self._at} holds other bytes than {cid}")
            yield cid, block

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        self._at += len(data)
        if len(data) < size:
            raise InvalidCar(f"cut off after {self._at} bytes; export it again")
        return data

    def _varint(self) -> int | None:
        """The next length; none where the stream ends."""
        value = 0
        for index in range(_VARINT_BYTES):
            byte = self._stream.read(1)
            if not byte:
                if index:
                    raise InvalidCar(f"cut off after {self._at} bytes; export it again")
                return None
            self._at += 1
            value |= (byte[0] & 0x7F) << 7 * index
            if byte[0] < 0x80:
                if index and not byte[0]:
                    break  # a length has one encoding
                return value
        raise InvalidCar(f"the length before byte {self._at} is malformed")


def _head(count: int) -> bytes:
    return bytes([0x80 + count]) if count < 24 else bytes([0x98, count])


def _decode_header(header: bytes) -> tuple[Cid, ...]:
    if header == _VERSION_2:
        raise InvalidCar("a CAR of version 2; only version 1 is read here: unwrap it with another tool")
    rest = header.removeprefix(_MAP_OF_TWO)
    found: dict[bytes, bytes] = {}
    # Deterministic encoders write the roots first; some others do not.
    for _ in range(2):
        if rest.startswith(_ROOTS) and _ROOTS not in found:
            found[_ROOTS], rest = _split_roots(rest.removeprefix(_ROOTS))
        elif rest.startswith(_VERSION) and _VERSION not in found:
            rest = rest.removeprefix(_VERSION)
            found[_VERSION], rest = rest[:1], rest[1:]
    if len(found) != 2 or rest or not header.startswith(_MAP_OF_TWO):
        raise InvalidCar("no CAR: its header is no map of roots and version")
    if found[_VERSION] != b"\x01":
        raise InvalidCar("a CAR of an unknown version; only version 1 is read here")
    roots = found[_ROOTS]
    try:
        return tuple(Cid.decode(roots[at : at + CID_BYTES]) for at in range(0, len(roots), CID_BYTES))
    except InvalidCid as reason:
        raise InvalidCar(f"a root of the CAR: {reason}") from reason


def _split_roots(data: bytes) -> tuple[bytes, bytes]:
    """The CIDs of a list of links, one after the other, and what follows."""
    count = next((count for count in range(MAX_ROOTS + 1) if data.startswith(_head(count))), None)
    if count is None:
        raise InvalidCar(f"no CAR: its header lists no roots, or more than {MAX_ROOTS}")
    data = data.removeprefix(_head(count))
    cids = b""
    for _ in range(count):
        if not data.startswith(_LINK):
            raise InvalidCar("a root of the CAR is no CIDv1 with SHA-256")
        cids += data[len(_LINK) : len(_LINK) + CID_BYTES]
        data = data[len(_LINK) + CID_BYTES :]
    return cids, data
