"""The task file a person writes (YAML), and the fragments and task document made from it.

    title: Handwritten digits
    model: {family: mlp, hidden: [64]}        # or family: cnn, or layers: [...]
    data: {dataset: digits}                   # or npz: file with arrays x and y
    metric: accuracy
    windows: {train_s: 60, validate_s: 20, challenge_s: 20}
    test: {fragments: 3, of: 15}              # the order's block picks which 3
    baseline: 0.90                            # optional: nobody is paid for a model that does not beat it
    initial: model.safetensors                # optional: where training starts; of the same architecture

Unknown keys are errors. Everything is checked before any money moves.
"""

from __future__ import annotations

import secrets
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from offchain.data import encode_fragment
from offchain.models.families import cnn, mlp
from protocol.architecture import Architecture
from protocol.errors import InvalidDocument

MILLION = 1_000_000
NO_BASELINE = -(2**63)
MAX_BASELINE = 9 * 10**12
"""In millionths it fits into the order's 64 bits."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(_Part):
    """A family with its sizes, or a list of layers."""

    family: Literal["mlp", "cnn"] | None = None
    hidden: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    layers: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Model:
        if (self.family is None) == (self.layers is None):
            raise ValueError("say either `family` or `layers`")
        if self.channels is not None and self.family != "cnn":
            raise ValueError("`channels` belongs to family cnn")
        return self

    def architecture(self, input_shape: tuple[int, ...], classes: int) -> Architecture:
        """The architecture for data of this shape; raises `InvalidDocument`."""
        if self.layers is not None:
            return Architecture.model_validate({"input_shape": input_shape, "layers": self.layers})
        sizes: dict[str, Any] = {"hidden": self.hidden, "channels": self.channels}
        given = {name: value for name, value in sizes.items() if value is not None}
        try:
            return (cnn if self.family == "cnn" else mlp)(input_shape, classes, **given)
        except ValidationError as reason:
            first = reason.errors()[0]
            raise InvalidDocument(f"model: a size of {first['input']} is refused: {first['msg']}") from reason


class Source(_Part):
    """Where the data is."""

    dataset: Literal["digits"] | None = None
    npz: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        if (self.dataset is None) == (self.npz is None):
            raise ValueError("say either `dataset` or `npz`")
        return self


class Windows(_Part):
    """How long each phase that the client sets takes."""

    train_s: int = Field(gt=0)
    validate_s: int = Field(gt=0)
    challenge_s: int = Field(gt=0)


class Test(_Part):
    """How many of how many fragments are for testing; or which, if the client names them."""

    __test__ = False  # not a pytest class

    fragments: int | None = Field(default=None, ge=1)
    of: int = Field(default=15, ge=10, le=1024)
    named: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Test:
        if (self.fragments is None) == (self.named is None):
            raise ValueError("say either how many `fragments` the order's block picks, or which are `named`")
        return self


class TaskFile(_Part):
    """The checked content of a task file."""

    title: str = ""
    model: Model
    data: Source
    metric: Literal["accuracy", "cross_entropy"] = "accuracy"
    windows: Windows
    test: Test = Test(fragments=3)
    baseline: Annotated[Decimal, Field(allow_inf_nan=False, ge=-MAX_BASELINE, le=MAX_BASELINE)] | None = None
    initial: Path | None = None
    hints: dict[str, str] = {}

    @property
    def baseline_millionths(self) -> int:
        """The baseline as a score; below every score if there is none."""
        return NO_BASELINE if self.baseline is None else int(self.baseline * MILLION)


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """All data of a task, in the client's hands."""

    x: np.ndarray
    """``[n, ...]``, float32 or uint8."""
    y: np.ndarray
    """``[n]``, int32."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.y.max()) + 1

    def fragments(self, count: int) -> Iterator[tuple[bytes, int]]:
        """``count`` fragment files with their sample counts; samples are dealt out at random."""
        order = np.random.default_rng(secrets.randbits(128)).permutation(len(self.y))
        for part in np.array_split(order, count):
            yield encode_fragment(self.x[part], self.y[part], secrets.token_bytes(32)), len(part)


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
    if task.initial is not None:
        task = task.model_copy(update={"initial": folder / task.initial})
    return task


def load_samples(source: Source) -> Samples:
    """The data a task file names; raises `InvalidDocument` if it cannot be used."""
    if source.dataset == "digits":
        try:
            from sklearn.datasets import load_digits
        except ImportError as reason:
            raise InvalidDocument(
                "the digits data comes with scikit-learn: install the `data` extra"
            ) from reason
        digits = load_digits()
        # Values are 0 to 16; as bytes they become images like any other.
        images = np.minimum(digits.images * 16, 255).astype(np.uint8)[..., None]
        return Samples(images, digits.target.astype(np.int32))
    assert source.npz is not None
    try:
        with open(source.npz, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as reason:
        raise InvalidDocument(f"{source.npz} has no arrays x and y: {reason}") from reason
    if x.dtype == np.float64:
        x = x.astype(np.float32)
    if x.dtype not in (np.float32, np.uint8) or x.ndim < 2:
        raise InvalidDocument(f"x must be float32 or uint8 with samples first, not {x.dtype} of {x.shape}")
    if y.ndim != 1 or len(y) != len(x) or not np.issubdtype(y.dtype, np.integer) or len(y) < 10:
        raise InvalidDocument("y must hold one integer label per sample, for at least ten samples")
    if y.min() < 0 or y.max() > 65_535:
        raise InvalidDocument("labels must lie in [0, 65535]")
    return Samples(x, y.astype(np.int32))
