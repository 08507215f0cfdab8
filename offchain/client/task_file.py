"""The task file a person writes (YAML): what to train, on which data, and how to score it.

    title: Handwritten digits
    model: {family: mlp, hidden: [64]}        # or cnn, resnet, lstm, transformer, or layers: [...]
    data: {dataset: digits}                   # or npz: file with x and y, or prepared: folder
    metric: accuracy
    windows: {train_s: 60, validate_s: 20, challenge_s: 20}
    test: {fragments: 3, of: 15}              # the order's block picks which 3
    baseline: 0.90                            # optional: nobody is paid for a model that does not beat it
    initial: model.safetensors                # optional: where training starts; of the same architecture

Unknown keys are errors. Everything is checked before any money moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from offchain.client.model_section import DataForm, Model, Part
from offchain.datasets.builtin import BUILTIN
from offchain.datasets.files import read_arrays
from offchain.datasets.prepared import read_fragments, read_manifest
from offchain.datasets.samples import InvalidData, Samples
from protocol.errors import InvalidDocument
from protocol.metric import Metric

MILLION = 1_000_000
DEFAULT_FRAGMENTS = 15
NO_BASELINE = -(2**63)
MAX_BASELINE = 9 * 10**12
"""In millionths it fits into the order's 64 bits."""


class Source(Part):
    """Where the data is."""

    dataset: Literal["digits", "diabetes", "waves", "python-docs"] | None = None
    npz: Path | None = None
    prepared: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        if sum(where is not None for where in (self.dataset, self.npz, self.prepared)) != 1:
            raise ValueError("say one of `dataset`, `npz` and `prepared`")
        return self


class Windows(Part):
    """How long each phase that the client sets takes."""

    train_s: int = Field(gt=0)
    validate_s: int = Field(gt=0)
    challenge_s: int = Field(gt=0)


class Test(Part):
    """How many of how many fragments are for testing; or which, if the client names them."""

    __test__ = False  # not a pytest class

    fragments: int | None = Field(default=None, ge=1)
    of: int | None = Field(default=None, ge=10, le=1024)
    """Prepared data has as many as it was prepared with; otherwise 15 unless said."""
    named: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Test:
        if (self.fragments is None) == (self.named is None):
            raise ValueError("say either how many `fragments` the order's block picks, or which are `named`")
        return self


class TaskFile(Part):
    """The checked content of a task file."""

    title: str = ""
    model: Model
    data: Source
    metric: Metric = "accuracy"
    windows: Windows
    test: Test = Test(fragments=3)
    baseline: Annotated[Decimal, Field(allow_inf_nan=False, ge=-MAX_BASELINE, le=MAX_BASELINE)] | None = None
    initial: Path | None = None
    hints: dict[str, str] = Field(default_factory=dict)

    @property
    def baseline_millionths(self) -> int:
        """The baseline as a score; below every score if there is none."""
        return NO_BASELINE if self.baseline is None else int(self.baseline * MILLION)


def read_task_file(path: Path) -> TaskFile:
    """The task file at ``path``; raises `InvalidDocument` naming the line or field."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        task = TaskFile.model_validate(fields)
    except (OSError, UnicodeDecodeError) as reason:
        raise InvalidDocument(f"cannot read {path}: {reason}") from reason
    except yaml.YAMLError as reason:
        raise InvalidDocument(f"{path} is not YAML: {' '.join(str(reason).split())}") from reason
    except ValidationError as reason:
        first = reason.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise InvalidDocument(f"{path}: {where}: {first['msg']}") from reason
    folder = path.resolve().parent
    if task.data.npz is not None:
        task = task.model_copy(update={"data": Source(npz=folder / task.data.npz)})
    if task.data.prepared is not None:
        task = task.model_copy(update={"data": Source(prepared=folder / task.data.prepared)})
    if task.initial is not None:
        task = task.model_copy(update={"initial": folder / task.initial})
    return task


def load_data(task: TaskFile) -> tuple[DataForm, int | None, Iterator[tuple[bytes, int]]]:
    """What the data is, how many classes it has, and its fragments, each with its number of samples.

    Raises:
        InvalidData: it cannot be used.
    """
    if task.data.prepared is None:
        samples = load_samples(task.data)
        return samples, samples.classes, samples.fragments(task.test.of or DEFAULT_FRAGMENTS)
    manifest = read_manifest(task.data.prepared)
    count = len(manifest.fragments)
    if task.test.of not in (None, count):
        raise InvalidData(f"test.of says {task.test.of}, {task.data.prepared} holds {count} fragments")
    return manifest, manifest.classes, read_fragments(task.data.prepared, manifest)


def load_samples(source: Source) -> Samples:
    """The data a task file names, unless it is prepared; raises `InvalidData` if it cannot be used."""
    if source.dataset is not None:
        return BUILTIN[source.dataset]()
    assert source.npz is not None
    return read_arrays(source.npz)
