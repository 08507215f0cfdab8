"""What waits for a peer: votes overtake transactions, every lane keeps its order, no frame is torn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.links.frames import Frames, frame
from aggregator.links.tls import MAX_DATA_BYTES
from aggregator.links.waiting import MAX_QUEUED, Waiting
from aggregator.pbft.messages import Fetch, Forward
from tests.links.peers import Ear, closed, opened, run

SIZES = st.sampled_from([0, 1, 40, 300, MAX_DATA_BYTES - 5, MAX_DATA_BYTES, 3 * MAX_DATA_BYTES + 7])


def numbered(number: int, size: int, bulk: bool) -> bytes:
    return bytes([bulk]) + number.to_bytes(4, "big") + bytes(size)


@given(st.lists(st.one_of(st.none(), st.tuples(SIZES, st.booleans())), max_size=60))
def test_lanes_keep_their_order_and_pieces_fit_and_join(steps: list[tuple[int, bool] | None]) -> None:
    """A step adds a message, or takes a piece."""
    waiting, frames, put, seen = Waiting(), Frames(), {False: 0, True: 0}, {False: 0, True: 0}

    def take() -> None:
        piece = waiting.next_piece()
        assert 0 < len(piece) <= MAX_DATA_BYTES
        frames.feed(bytes(piece))
        for message in frames.take(1_000):
            bulk, number = bool(message[0]), int.from_bytes(message[1:5], "big")
            assert number == seen[bulk], "in order, none lost, none twice"
            seen[bulk] += 1

    for step in steps:
        if step is not None:
            size, bulk = step
            assert waiting.put(frame(numbered(put[bulk], size, bulk)), bulk=bulk)
            put[bulk] += 1
        elif waiting:
            take()
    while waiting:
        take()
    assert seen == put


def test_a_vote_waits_for_the_rest_of_one_message_at_most() -> None:
    waiting = Waiting()
    for number in range(100):
        waiting.put(frame(numbered(number, 3 * MAX_DATA_BYTES, True)), bulk=True)
    waiting.next_piece()  # the first has begun to leave
    waiting.put(frame(b"a vote"), bulk=False)
    pieces = [bytes(waiting.next_piece()) for _ in range(3)]
    assert pieces[2].startswith(bytes(9) + frame(b"a vote")), "right after the rest of the first"


def test_a_full_lane_leaves_the_other_its_room() -> None:
    waiting = Waiting()
    assert all(waiting.put(frame(b"transaction"), bulk=True) for _ in range(MAX_QUEUED))
    assert not waiting.put(frame(b"transaction"), bulk=True)
    assert waiting.put(frame(b"a vote"), bulk=False)


def test_a_new_connection_begins_with_a_whole_frame() -> None:
    waiting, long = Waiting(), frame(bytes(range(256)) * 256)
    waiting.put(long, bulk=True)
    waiting.next_piece()
    waiting.begin_again()
    pieces = []
    while waiting:
        pieces.append(bytes(waiting.next_piece()))
    assert b"".join(pieces) == long


@pytest.mark.parametrize("count", [1, 50])
def test_what_waited_for_a_connection_leaves_with_votes_first(count: int) -> None:
    async def scenario() -> None:
        (first, second), _ = opened(2)
        for number in range(count):
            first.send(1, Forward((b"transaction %d" % number,)))
        first.send(1, Fetch(7))
        ear = Ear(second)
        assert await ear.hear() == (0, Fetch(7))
        for number in range(count):
            assert await ear.hear() == (0, Forward((b"transaction %d" % number,)))
        await closed(first, second)

    run(scenario)
