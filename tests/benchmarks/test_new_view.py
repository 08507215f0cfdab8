"""The benchmark checks a change of view that holds, and would notice one that does not."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from aggregator.pbft.quorum import InvalidProof
from benchmarks._member import committee
from benchmarks.new_view import check_s, measure, new_view


def test_what_is_measured_is_a_whole_change_of_view() -> None:
    members, keys = committee(4)
    message = new_view(members, keys, 3)
    assert len(message.contents.view_changes) == members.quorum
    assert [vote.sequence for vote in message.contents.pre_prepares] == [1, 2, 3]
    check_s(replace(members), message)
    fewer = msgspec.structs.replace(message.contents, view_changes=message.contents.view_changes[1:])
    with pytest.raises(InvalidProof):
        check_s(replace(members), msgspec.structs.replace(message, contents=fewer))


def test_more_batches_make_a_larger_new_view() -> None:
    small, large = measure(4, 1), measure(4, 2)
    assert 0 < small["new_view_bytes"] < large["new_view_bytes"]
