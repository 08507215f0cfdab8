"""The task document: what an order asks to be trained, on which data, and how it is scored.

JSON, stored by content; the order carries its SHA-256 and a link. Guarantees: a `TaskDocument` that exists
is well formed and within bounds; `canonical` gives the one byte string that is hashed; nobody, the client
included, can choose the test set after seeing anything (`test_indices`).

Source: PoT table 1 (``type``, ``link``); PAI 4.2.2 for the split by a later block's hash; design section 3.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    ValidationError,
    model_validator,
)

from protocol.architecture import Architecture, shapes
from protocol.crypto import keccak256, sha256
from protocol.errors import InvalidDocument
from protocol.metric import Metric, reads

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MIN_FRAGMENTS: Final = 10
MAX_FRAGMENTS: Final = 1024
MAX_FRAGMENT_BYTES: Final = 1 << 30

Hash = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
Cid = Annotated[str, StringConstraints(pattern=r"^b[a-z2-7]{20,100}$")]
Gateway = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]{1,200}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FragmentReference(_Document):
    """One data fragment by content: its SHA-256 is the commitment, its CID says how to fetch it."""

    sha256: Hash
    cid: Cid
    size_bytes: Annotated[StrictInt, Field(gt=0, le=MAX_FRAGMENT_BYTES)]
    samples: Annotated[StrictInt, Field(gt=0)]

    @property
    def digest(self) -> bytes:
        """The SHA-256 as bytes."""
        return bytes.fromhex(self.sha256[2:])


class BlockHashSplit(_Document):
    """The hash of the block that contains the order picks the test fragments."""

    by: Literal["block_hash"] = "block_hash"
    test_count: Annotated[StrictInt, Field(ge=1)]


class NamedSplit(_Document):
    """The client names the test fragments (WekaCoin style)."""

    by: Literal["named"] = "named"
    test: Annotated[tuple[StrictInt, ...], Field(min_length=1)]


class Data(_Document):
    """All fragments of a task, training and test alike, in the order they are committed to."""

    format: Literal["fragments-1"] = "fragments-1"
    classes: Annotated[StrictInt, Field(ge=2, le=65_536)] | None = None
    """How many classes labels (or next tokens) tell apart; none for a regression."""
    fragments: Annotated[
        tuple[FragmentReference, ...], Field(min_length=MIN_FRAGMENTS, max_length=MAX_FRAGMENTS)
    ]
    split: Annotated[BlockHashSplit | NamedSplit, Field(discriminator="by")]
    gateways: Annotated[tuple[Gateway, ...], Field(min_length=1, max_length=8)]

    @model_validator(mode="after")
    def _split_fits(self) -> Data:
        count = len(self.fragments)
        if isinstance(self.split, BlockHashSplit):
            if self.split.test_count >= count:
                raise ValueError(
                    f"{self.split.test_count} of {count} fragments for testing leave none to train on"
                )
        else:
            test = self.split.test
            if list(test) != sorted(set(test)) or test[0] < 0 or test[-1] >= count or len(test) >= count:
                raise ValueError("test fragments are named by ascending indices and leave some to train on")
        if len({fragment.sha256 for fragment in self.fragments}) != count:
            raise ValueError("the same fragment is listed twice")
        return self


class InitialParameters(_Document):
    """Parameters to start from (PoT ``M_C``): a model file of the same architecture."""

    sha256: Hash
    cid: Cid


class TaskDocument(_Document):
    """What an ``open`` order asks for."""

    version: Literal["dtn-task-1"] = "dtn-task-1"
    title: Annotated[str, StringConstraints(max_length=200)] = ""
    architecture: Architecture
    initial_parameters: InitialParameters | None = None
    data: Data
    metric: Metric
    evaluator: Literal["exact-1"] = "exact-1"
    hints: Annotated[dict[str, str], Field(max_length=32)] = {}
    """For providers only: nothing of it is binding."""

    @model_validator(mode="after")
    def _parts_fit(self) -> TaskDocument:
        output, classes = self.architecture.output, self.data.classes
        if not reads(self.metric, output):
            raise ValueError(f"the metric {self.metric} cannot score {output}")
        if (classes is None) != (output == "regression"):
            raise ValueError(f"data.classes is for labels, and the model's output is {output}")
        if classes is not None and classes > shapes(self.architecture)[-1][-1]:
            raise ValueError(f"the model's outputs do not tell {classes} classes apart")
        return self

    def canonical(self) -> bytes:
        """The bytes that are hashed: JSON with sorted keys and no spaces, in UTF-8."""
        return json.dumps(
            self.model_dump(mode="json", exclude_none=True),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()

    def digest(self) -> bytes:
        """SHA-256 of the canonical form: the order's ``task_hash``."""
        return sha256(self.canonical())

    def fragment_digests(self) -> tuple[bytes, ...]:
        """SHA-256 of every fragment, in order: what the order's ``data_root`` commits to."""
        return tuple(fragment.digest for fragment in self.data.fragments)


def read_task(data: bytes) -> TaskDocument:
    """The task document in ``data``.

    Raises:
        InvalidDocument: too large, not JSON, or not a task document; names the field.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidDocument(f"a task document has at most {MAX_DOCUMENT_BYTES} bytes, this one {len(data)}")
    try:
        fields = json.loads(data, object_pairs_hook=_named_once)
    except (ValueError, RecursionError) as reason:
        raise InvalidDocument(f"the task document is not JSON: {reason}") from reason
    return make_task(fields)


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers differ in which of two equal names they keep: two hashes for one document.
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is given twice")
    return fields


def make_task(fields: Any) -> TaskDocument:
    """The task document with these fields; raises `InvalidDocument` naming the first field that is wrong."""
    try:
        return TaskDocument.model_validate(fields)
    except ValidationError as reason:
        first = reason.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidDocument(f"the task document's {where} is wrong: {first['msg']}") from reason


def test_indices(data: Data, block_hash: bytes) -> tuple[int, ...]:
    """Indices of the test fragments, ascending.

    With a split by block hash, the fragments with the lowest ``keccak256(block_hash, index)``: unknown to
    everyone, the client included, when the order commits to the fragments.
    """
    if isinstance(data.split, NamedSplit):
        return data.split.test
    ranked = sorted(range(len(data.fragments)), key=lambda i: keccak256(block_hash + i.to_bytes(4, "big")))
    return tuple(sorted(ranked[: data.split.test_count]))


test_indices.__test__ = False  # type: ignore[attr-defined]  # not a pytest function


def train_indices(data: Data, block_hash: bytes) -> tuple[int, ...]:
    """Indices of the training fragments, ascending."""
    test = set(test_indices(data, block_hash))
    return tuple(index for index in range(len(data.fragments)) if index not in test)
