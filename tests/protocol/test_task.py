"""Task documents: one canonical form, everything else refused with the field that is wrong; a fair split."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.crypto import keccak256, sha256
from protocol.errors import InvalidDocument
from protocol.task import (
    MAX_DOCUMENT_BYTES,
    MAX_FRAGMENT_BYTES,
    TaskDocument,
    make_task,
    read_task,
    test_indices,
    train_indices,
)

CID = "b" + "a" * 58


def fields(count: int = 12, **data: Any) -> dict[str, Any]:
    """A good task document as JSON, with changes to its data."""
    fragments = [
        {"sha256": "0x" + sha256(bytes([n])).hex(), "cid": CID, "size_bytes": 100, "samples": 5}
        for n in range(count)
    ]
    return {
        "version": "dtn-task-1",
        "title": "Zahlen – größer als 0",
        "architecture": {"input_shape": [8], "layers": [{"kind": "dense", "features": 3}]},
        "data": {
            "format": "fragments-1",
            "classes": 3,
            "fragments": fragments,
            "split": {"by": "block_hash", "test_count": 3},
            "gateways": ["http://127.0.0.1:1"],
        }
        | data,
        "metric": "accuracy",
        "evaluator": "exact-1",
        "hints": {},
    }


def encoded(document: dict[str, Any]) -> bytes:
    """JSON as a client might write it."""
    return json.dumps(document, indent=2).encode()


# Canonical form ----------------------------------------------------------------------------------------


def test_the_canonical_form_does_not_depend_on_how_the_document_was_written() -> None:
    task = read_task(encoded(fields()))
    shuffled = json.dumps(dict(reversed(fields().items())), ensure_ascii=False).encode()
    assert read_task(shuffled).canonical() == task.canonical()
    assert read_task(shuffled).digest() == task.digest() == sha256(task.canonical())


def test_the_canonical_form_reads_back_as_itself() -> None:
    task = read_task(encoded(fields()))
    assert read_task(task.canonical()) == task
    assert read_task(task.canonical()).canonical() == task.canonical()
    assert b"\xc3\xb6" in task.canonical(), "text is UTF-8, not escapes"


def test_defaults_that_are_left_out_are_part_of_the_hash() -> None:
    short = fields()
    for name in ("version", "evaluator", "hints"):
        del short[name]
    assert read_task(encoded(short)).digest() == read_task(encoded(fields())).digest()


def test_every_field_is_part_of_the_hash() -> None:
    digests = {read_task(encoded(fields())).digest()}
    changes: list[dict[str, Any]] = [{"title": "other"}, {"metric": "cross_entropy"}, {"hints": {"a": "b"}}]
    digests |= {make_task(fields() | change).digest() for change in changes}
    for change in (
        {"classes": 2},
        {"gateways": ["http://127.0.0.1:2"]},
        {"split": {"by": "named", "test": [1]}},
    ):
        digests.add(make_task(fields(**change)).digest())
    assert len(digests) == 7


def test_the_document_says_what_the_order_commits_to() -> None:
    task = make_task(fields())
    assert task.fragment_digests() == tuple(sha256(bytes([n])) for n in range(12))


# Refusals ----------------------------------------------------------------------------------------------


def _with(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(fields())
    place: Any = document
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if part.isdigit() else place[part]
    if last.isdigit():
        place[int(last)] = value
    else:
        place[last] = value
    return document


REFUSED = {
    "unknown field": ("surprise", 1, "surprise"),
    "unknown field deep inside": ("data.fragments.0.surprise", 1, "surprise"),
    "other version": ("version", "dtn-task-2", "version"),
    "other metric": ("metric", "vibes", "metric"),
    "float for an integer": ("data.classes", 3.0, "classes"),
    "float in the split": ("data.split.test_count", 3.0, "test_count"),
    "string for an integer": ("data.classes", "3", "classes"),
    "truth for an integer": ("data.classes", True, "classes"),
    "one class": ("data.classes", 1, "classes"),
    "hash without 0x": ("data.fragments.0.sha256", "00" * 32, "sha256"),
    "hash in capitals": ("data.fragments.0.sha256", "0x" + "AB" * 32, "sha256"),
    "hash with a newline": ("data.fragments.0.sha256", "0x" + "ab" * 32 + "\n", "sha256"),
    "path for a CID": ("data.fragments.0.cid", "../../etc/passwd", "cid"),
    "empty fragment": ("data.fragments.0.size_bytes", 0, "size_bytes"),
    "huge fragment": ("data.fragments.0.size_bytes", MAX_FRAGMENT_BYTES + 1, "size_bytes"),
    "file gateway": ("data.gateways.0", "file:///etc/passwd", "gateways"),
    "no gateway": ("data.gateways", [], "gateways"),
    "too many gateways": ("data.gateways", ["http://127.0.0.1:1"] * 9, "gateways"),
    "unknown split": ("data.split", {"by": "me"}, "split"),
    "no test": ("data.split.test_count", 0, "test_count"),
    "nothing to train on": ("data.split.test_count", 12, "none to train on"),
    "named split out of range": ("data.split", {"by": "named", "test": [12]}, "ascending"),
    "named split negative": ("data.split", {"by": "named", "test": [-1]}, "ascending"),
    "named split twice": ("data.split", {"by": "named", "test": [1, 1]}, "ascending"),
    "named split unsorted": ("data.split", {"by": "named", "test": [2, 1]}, "ascending"),
    "named split empty": ("data.split", {"by": "named", "test": []}, "test"),
    "named split of everything": ("data.split", {"by": "named", "test": list(range(12))}, "ascending"),
    "lone surrogate": ("title", "\ud800", "title"),
    "long title": ("title", "x" * 201, "title"),
    "too many hints": ("hints", {str(n): "" for n in range(33)}, "hints"),
}


@pytest.mark.parametrize(("path", "value", "named"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_and_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(InvalidDocument, match=named):
        make_task(_with(path, value))


def test_at_least_ten_fragments_and_none_of_them_twice() -> None:
    with pytest.raises(InvalidDocument, match="fragments"):
        make_task(fields(count=9))
    twice = fields()
    twice["data"]["fragments"][1] = twice["data"]["fragments"][0]
    with pytest.raises(InvalidDocument, match="twice"):
        make_task(twice)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"\xff\xfe", b"null", b"[]", b"5", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"NaN",
        b'{"version": ' + b"9" * 5000 + b"}", bytes(MAX_DOCUMENT_BYTES + 1), b'{"title": "\\ud800"}',
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_document_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDocument):
        read_task(data)


def test_a_document_that_says_a_thing_twice_is_refused() -> None:
    text = encoded(fields()).replace(b'"metric"', b'"metric": "cross_entropy",\n"metric"')
    with pytest.raises(InvalidDocument, match="twice"):
        read_task(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(
        ["architecture", "data", "data.split", "data.fragments", "data.fragments.3", "hints", "title"]
    ),
)
def test_any_json_in_any_place_is_a_task_or_a_refusal(value: Any, path: str) -> None:
    try:
        task = make_task(_with(path, value))
    except InvalidDocument:
        return
    assert read_task(task.canonical()) == task


# The split ---------------------------------------------------------------------------------------------


@given(block_hash=st.binary(min_size=32, max_size=32), count=st.integers(10, 40), tests=st.integers(1, 9))
def test_test_and_training_fragments_are_a_partition(block_hash: bytes, count: int, tests: int) -> None:
    data = make_task(fields(count, split={"by": "block_hash", "test_count": tests})).data
    test, train = test_indices(data, block_hash), train_indices(data, block_hash)
    assert len(test) == tests
    assert sorted((*test, *train)) == list(range(count))
    assert list(test) == sorted(test)


def test_the_block_hash_decides_which_fragments_are_tested_and_every_fragment_may_be() -> None:
    data = make_task(fields()).data
    picked = [test_indices(data, keccak256(bytes([n]))) for n in range(100)]
    assert len(set(picked)) > 50
    assert {index for each in picked for index in each} == set(range(12))


def test_a_named_split_is_what_the_client_named() -> None:
    task: TaskDocument = make_task(fields(split={"by": "named", "test": [0, 5, 11]}))
    assert test_indices(task.data, bytes(32)) == (0, 5, 11)
    assert train_indices(task.data, bytes(32)) == (1, 2, 3, 4, 6, 7, 8, 9, 10)
