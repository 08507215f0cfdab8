"""Our CIDs are the ones a real IPFS node gives to the same bytes, and hostile nodes are refused."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.storage.cid import DAG_PB, RAW, Cid, InvalidCid
from offchain.storage.unixfs import (
    CHUNK_BYTES,
    MAX_LINKS,
    Child,
    TreeBuilder,
    _encode_node,
    _field,
    blocks_of,
    build,
    children_of,
    read_range,
    varint,
)
from protocol.crypto import sha256

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

KUBO_022 = {
    262145: "QmP8yTqWQcb3qVoBcdE4pTUzxh9kazndg5ELrbXBmdj17M",
    600000: "QmXoNkP3DBcSVpFSPw5WZrxs2LvbKDGtvQSmhxNXYYVtwJ",
    45613056: "QmUK8LtfWZ6QDd7H3vQdC6hfK49MHUNt1xMpz8XXeRWDxT",
    45613057: "QmPotq2a3427kokNrBZe2YUEdAc6GfAyJcMHC37PVEEoYe",
}
"""What Kubo 0.22 (``ipfs add --cid-version=0``) names `pattern` of so many bytes."""


IPFS_UNIXFS_IMPORTER = {
    0: "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    1: "bafkreigkgwdvr5wspzwpiutssn4xpj2i7wedshnwphhnu7ohx4pqaxxipe",
    CHUNK_BYTES - 1: "bafkreiaakdbr3mk3i2fyatdvfsyktszyq74pjcglkrozlwyc4xyjg4bowi",
    CHUNK_BYTES: "bafkreieiuj5mzeuqor24l4lmo2yumm6665yv4gq7ozzp2nrfmqrjyboosy",
    CHUNK_BYTES + 1: "bafybeich6cqd6yabw3cku6edwmz4rvwe275nx2l6ootvc2bpbt5bdvarua",
    2 * CHUNK_BYTES: "bafybeid5sthfzhlnifk5fvivasemgw2rzzfdp54rapknx7eaz5j4yoae3i",
    600000: "bafybeifm6ozrt4mfvwkwdtw5yk5fk5xbro4pxhthzp4malew6f7df2kada",
    173 * CHUNK_BYTES: "bafybeibzuibim5gzdbzsymyqujsfvjzb6bzqrztm2ktf5hrzqs6kp7jzrq",
    174 * CHUNK_BYTES - 1: "bafybeibkk5qaklbnnguur6pi4yiwez6leuuyx24cmpxcwuxaem2y3pojrq",
    174 * CHUNK_BYTES: "bafybeieyf2zqlffimqqmg34gio5iuv43ebyxghdo6q56dlx6qzjodyeidi",
    174 * CHUNK_BYTES + 1: "bafybeif354qmqaid65i5xsykbdwi3zn2sxykxskolup3qkisvwmulknl2a",
    175 * CHUNK_BYTES: "bafybeigwgnwb32hcpsit46j4griqf2wlgbomuppkeaszqmj7y4ydiovnye",
    348 * CHUNK_BYTES: "bafybeiawfwsawpqzxur5foh7aquftdwkom5zfxogvt2fbmenuhohp4lscm",
    348 * CHUNK_BYTES + 1: "bafybeiebyvu6j46yzfkjv7oyruwgfb4s24yhowyzwltnolzbkemfk4b4cy",
}
"""What IPFS's own JavaScript importer (npm, 17.1.1: CIDv1, raw leaves, balanced, 174) names `pattern`."""

ZEROS = {
    174 * 174: "bafybeidxp6macmsb2fl24g2urxdvecsmmuspexpjyxcav2wyazeytjh5yi",
    174 * 174 + 1: "bafybeic3bmw3lls6npgpysoz7577inmexlh7ulmlepk4qypu72heonqfhu",
}
"""The same importer's names of so many chunks of zeros (7.9 GB); the last has 1 byte if it is one more."""


def pattern(size: int) -> bytes:
    """The bytes that Kubo was given."""
    unit = bytes((i * 31 + 7) % 251 for i in range(min(size, 1 << 20)))
    return (unit * (size // len(unit) + 1))[:size]


class _Version0:
    """A CIDv0, just enough of one to stand in a link."""

    def __init__(self, block: bytes) -> None:
        self._multihash = b"\x12\x20" + sha256(block)

    def encode(self) -> bytes:
        return self._multihash

    def __str__(self) -> str:
        number, text = int.from_bytes(self._multihash, "big"), ""
        while number:
            number, digit = divmod(number, 58)
            text = BASE58[digit] + text
        return text


def version0(data: bytes) -> str:
    """CIDv0 with wrapped leaves, from the same tree and node encoding that our own CIDs come from."""
    level = []
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        leaf = _field(1, b"\x08\x02" + _field(2, chunk) + b"\x18" + varint(len(chunk)))
        level.append(Child(_Version0(leaf), len(chunk), len(leaf)))  # type: ignore[arg-type]
    while len(level) > 1:
        parents = []
        for start in range(0, len(level), MAX_LINKS):
            children = level[start : start + MAX_LINKS]
            node = _encode_node(children)
            below = len(node) + sum(child.tree_bytes for child in children)
            parents.append(Child(_Version0(node), sum(c.file_bytes for c in children), below))  # type: ignore[arg-type]
        level = parents
    return str(level[0].cid)


@pytest.mark.parametrize("size", KUBO_022)
def test_trees_and_nodes_are_those_of_a_real_ipfs_node(size: int) -> None:
    assert version0(pattern(size)) == KUBO_022[size]


@pytest.mark.parametrize("size", IPFS_UNIXFS_IMPORTER)
def test_files_have_the_cids_that_another_implementation_gives_them(size: int) -> None:
    data = pattern(size) if size else b""
    assert str(build(data)[0]) == IPFS_UNIXFS_IMPORTER[size]


@pytest.mark.parametrize("chunks", ZEROS)
def test_so_have_files_of_two_and_three_layers_of_links(chunks: int) -> None:
    full, one = bytes(CHUNK_BYTES), bytes(1)
    leaf = Child(Cid.of(RAW, full), CHUNK_BYTES, CHUNK_BYTES)
    builder = TreeBuilder()
    blocks = []
    for _ in range(174 * 174):
        blocks += builder.leaf(leaf)
    if chunks > 174 * 174:
        blocks += builder.leaf(Child(Cid.of(RAW, one), 1, 1))
    blocks += builder.finish()
    assert str(blocks[-1][0]) == ZEROS[chunks]


class _Dripping(io.RawIOBase):
    """A file that gives few bytes at a time, as pipes and sockets do."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 50_000))


def test_how_a_file_is_read_does_not_change_its_blocks() -> None:
    data = pattern(600_000)
    assert dict(blocks_of(_Dripping(data))) == build(data)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, 600_000, 175 * CHUNK_BYTES + 5])
def test_any_part_of_a_file_is_read_with_the_blocks_it_needs(size: int) -> None:
    data = pattern(size)
    root, blocks = build(data)
    asked: list[Cid] = []

    def read(cid: Cid) -> bytes:
        asked.append(cid)
        return blocks[cid]

    places = sorted({0, 1, size // 2, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, size - 1, size})
    for start in places:
        for end in places:
            if start <= end <= size:
                asked.clear()
                assert b"".join(read_range(root, read, start, end)) == data[start:end]
                assert sum(cid.codec == RAW for cid in asked) <= (end - start) // CHUNK_BYTES + 2


def test_a_small_file_is_its_own_raw_block() -> None:
    cid, blocks = build(b"hello world")
    assert str(cid) == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    assert blocks == {cid: b"hello world"}


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, MAX_LINKS * CHUNK_BYTES + 1]
)
def test_a_tree_reads_back_as_the_bytes_it_was_built_from(size: int) -> None:
    data = pattern(size) if size else b""
    root, blocks = build(data)

    def read(cid: Cid) -> bytes:
        block = blocks[cid]
        assert cid.names(block)
        children = children_of(cid, block)
        parts = [read(child.cid) for child in children]
        assert [len(part) for part in parts] == [child.file_bytes for child in children]
        return b"".join(parts) if children else block

    assert read(root) == data
    assert root.codec == (RAW if size <= CHUNK_BYTES else DAG_PB)


# Texts and nodes ---------------------------------------------------------------------------------------


@given(st.sampled_from([RAW, DAG_PB]), st.binary(min_size=32, max_size=32))
def test_a_cid_has_one_text(codec: int, digest: bytes) -> None:
    cid = Cid(codec, digest)
    assert Cid.parse(str(cid)) == cid
    assert Cid.decode(cid.encode()) == cid


@given(st.text(max_size=70))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidCid):
        Cid.parse(text)


HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


@pytest.mark.parametrize(
    "text",
    [
        "", "b", HELLO.upper(), HELLO[:-1], HELLO + "a", HELLO[:-1] + "f", HELLO[:-1] + "1", HELLO[:-1] + "ä",
        "z" + HELLO[1:], "QmUK8LtfWZ6QDd7H3vQdC6hfK49MHUNt1xMpz8XXeRWDxT", "../" + HELLO[3:],
        HELLO[:58] + "\n", "bafybgqf" + HELLO[8:], "b" + "a" * 58,
    ],
)  # fmt: skip
def test_a_text_that_is_not_the_canonical_one_is_refused(text: str) -> None:
    with pytest.raises(InvalidCid):
        Cid.parse(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_file_node_or_a_refusal(block: bytes) -> None:
    try:
        children = children_of(Cid.of(DAG_PB, block), block)
    except InvalidCid:
        return
    assert 1 <= len(children) <= MAX_LINKS


@given(st.data())
def test_a_damaged_node_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    leaf = Child(Cid.of(RAW, b"x"), 1, 1)
    good = _encode_node([leaf] * data.draw(st.integers(1, 3)))
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    try:
        children_of(Cid.of(DAG_PB, bad), bad)
    except InvalidCid:
        return


def test_a_node_that_carries_bytes_of_its_own_is_refused() -> None:
    leaf = Child(Cid.of(RAW, b"x"), 1, 1)
    links, unixfs = _encode_node([leaf]).split(b"\x0a\x06", 1)
    assert unixfs == b"\x08\x02\x18\x01\x20\x01"
    hiding = links + _field(1, b"\x08\x02" + _field(2, b"hidden") + unixfs[2:])
    with pytest.raises(InvalidCid):
        children_of(Cid.of(DAG_PB, hiding), hiding)
