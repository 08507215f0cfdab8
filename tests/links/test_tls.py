"""Frames and channels without sockets: however bytes are cut, the same messages come out."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.links.errors import LinkBroken, OtherVersion
from aggregator.links.frames import Frames, frame
from aggregator.links.tls import MAX_DATA_BYTES, MAX_HANDSHAKE_BYTES, Channel, context_for, welcome
from aggregator.pbft.messages import MAX_MESSAGE_BYTES
from protocol.version import SUPPORTED, Versions
from tests.links.peers import KEYS

CONTEXTS = [context_for(key) for key in KEYS[:2]]
messages = st.lists(st.binary(max_size=300), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` in pieces, cut at ``places``."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def linked() -> tuple[Channel, Channel]:
    """A dialler and whom it dialled, after the welcome."""
    dialler, other = Channel(CONTEXTS[0], dialled=True), Channel(CONTEXTS[1], dialled=False)
    while dialler.peer_key is None:
        dialler_says = dialler.advance(b"") if not dialler._taken_bytes else b""
        dialler_says = dialler.advance(other.advance(dialler_says)) or dialler_says
    tickets = other.advance(dialler_says)
    assert (dialler.peer_key, other.peer_key) == (KEYS[1].public, KEYS[0].public)
    assert not dialler.welcomed(tickets)
    assert dialler.welcomed(other.encrypt(welcome(SUPPORTED)))
    return dialler, other


@given(messages, st.lists(st.integers(0, 10_000)), st.integers(1, 5))
def test_frames_cut_anywhere_are_the_same_messages(said: list[bytes], places: list[int], limit: int) -> None:
    frames, found = Frames(), []
    for piece in cut(b"".join(map(frame, said)), places):
        frames.feed(piece)
        while some := frames.take(limit):
            found += some
    assert found == said


def test_a_frame_byte_by_byte() -> None:
    frames = Frames()
    for byte in frame(b"message")[:-1]:
        frames.feed(bytes([byte]))
        assert frames.take(9) == []
    frames.feed(b"e")
    assert frames.take(9) == [b"message"]


def test_a_frame_too_long_is_an_error_before_it_arrives() -> None:
    frames = Frames()
    frames.feed((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(LinkBroken, match="at most"):
        frames.take(1)


@given(st.lists(st.binary(min_size=1, max_size=MAX_DATA_BYTES), max_size=8), st.lists(st.integers(0, 50_000)))
def test_records_cut_anywhere_are_the_same_data(said: list[bytes], places: list[int]) -> None:
    dialler, other = linked()
    stream = b"".join(map(dialler.encrypt, said))
    assert b"".join(map(other.decrypt, cut(stream, places))) == b"".join(said)
    assert dialler.records == len(said)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    dialler, other = linked()
    stream = bytearray(dialler.encrypt(b"what was said") + dialler.encrypt(b"and more"))
    stream[place % len(stream)] ^= change
    heard = b""
    try:
        heard += other.decrypt(bytes(stream))
        heard += other.decrypt(
            dialler.encrypt(bytes(MAX_DATA_BYTES)) * 2
        )  # if a length was changed: fills it up
    except LinkBroken:
        return
    assert b"what was said" in heard, "only a header's version, which nothing depends on, was changed"


@given(st.lists(st.integers(0, 5_000)))
def test_a_handshake_cut_anywhere_succeeds(places: list[int]) -> None:
    dialler, other = Channel(CONTEXTS[0], dialled=True), Channel(CONTEXTS[1], dialled=False)
    to_other = dialler.advance(b"")
    while other.peer_key is None:
        to_dialler = b"".join(other.advance(piece) for piece in cut(to_other, places) if piece)
        if other.peer_key is None:
            to_other = b"".join(dialler.advance(piece) for piece in cut(to_dialler, places) if piece)
    assert other.peer_key == KEYS[0].public and dialler.peer_key == KEYS[1].public


@given(st.binary(max_size=400))
def test_no_garbage_is_a_handshake(data: bytes) -> None:
    other = Channel(CONTEXTS[1], dialled=False)
    with contextlib.suppress(LinkBroken):
        other.advance(data)
    assert other.peer_key is None


def test_a_handshake_of_many_bytes_is_refused() -> None:
    other = Channel(CONTEXTS[1], dialled=False)
    other.advance(b"\x16\x03\x01\x3f\x00\x01\x00\x3e\xfc" + bytes(MAX_HANDSHAKE_BYTES // 2))
    with pytest.raises(LinkBroken, match="too many bytes"):
        other.advance(bytes(MAX_HANDSHAKE_BYTES))


@pytest.mark.parametrize("said", [b"hello", b"\x01", b"\x00\x01", b"\x02\x01"])
def test_a_welcome_is_a_range_of_versions_and_nothing_else(said: bytes) -> None:
    dialler, other = linked()
    with pytest.raises(LinkBroken, match="no welcome"):
        dialler.welcomed(other.encrypt(said))


@pytest.mark.parametrize("ours", [(1, 1), (1, 2), (2, 3), (3, 3)])
@pytest.mark.parametrize("theirs", [(1, 1), (1, 2), (2, 3), (3, 3), (5, 9)])
def test_members_that_share_a_protocol_version_link_and_others_are_told(
    ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    dialler, other = linked()
    dialler._versions = Versions(*ours)
    said = other.encrypt(welcome(Versions(*theirs)))
    if set(range(ours[0], ours[1] + 1)) & set(range(theirs[0], theirs[1] + 1)):
        assert dialler.welcomed(said)
    else:
        names = rf"version {Versions(*theirs)} .* this software {Versions(*ours)}: upgrade"
        with pytest.raises(OtherVersion, match=names):
            dialler.welcomed(said)


def test_a_record_without_data_ends_the_link() -> None:
    """Key updates cost the receiver more than the sender; nobody here sends any."""
    dialler, other = linked()
    other.decrypt(dialler.encrypt(b"data"))
    dialler._tls.shutdown()  # an alert: a whole record, no data
    with pytest.raises(LinkBroken, match="record with data"):
        other.decrypt(dialler._tls.bio_read(1_000))
