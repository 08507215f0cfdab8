"""Using a model that was bought: new data in, labels or values out, in the words of its training data.

The model runs through the exact evaluator, so what it says here is what validators saw it say. New data goes
through the same transformation as the training data: columns by name, mean and scale as they were then.

Guarantees: nothing is guessed: a missing column, an unknown character or another shape is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from offchain.client.model_section import DataForm
from offchain.datasets.files import read_characters, read_inputs
from offchain.datasets.samples import InvalidData
from offchain.datasets.table import read_rows
from offchain.evaluation import exact_jax, specification
from offchain.models.artifact import decode_model
from protocol.architecture import Architecture

MAX_CHOICES: Final = 5
"""Labels told per sample, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A label, or the next token, and how likely the model finds it."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one sample: choices, or values."""

    choices: tuple[Choice, ...] = ()
    values: tuple[float, ...] = ()


def read_unseen(path: Path, form: DataForm) -> NDArray[Any]:
    """New samples ``[n, *input_shape]``, transformed as the training data was.

    A table needs the columns of then (the target's may be there, and is not looked at); of a series the
    windows are those of all rows, the last one for what comes next; of a text it is the last window.

    Raises:
        InvalidData: it is not like the data of then.
    """
    about = form.about
    if "alphabet" in about:
        return _last_window(read_characters(path), about["alphabet"], form.input_shape[0], path)
    if "columns" not in about:
        x = read_inputs(path)
        return _like(x, form, path)
    delimiter = "\t" if path.suffix == ".tsv" else ","
    x = _standardised(read_rows(path, about["columns"], delimiter=delimiter), about)
    if "length" in about:
        length = int(about["length"])
        if len(x) < length:
            raise InvalidData(f"{path}: {len(x)} rows, a window has {length}")
        x = np.lib.stride_tricks.sliding_window_view(x, length, 0).transpose(0, 2, 1)
    return _like(np.ascontiguousarray(x), form, path)


def _standardised(x: NDArray[Any], about: Mapping[str, Any]) -> NDArray[Any]:
    if "mean" not in about:
        return x
    return ((x - np.asarray(about["mean"])) / np.asarray(about["scale"])).astype(np.float32)


def _last_window(text: str, alphabet: str, length: int, path: Path) -> NDArray[Any]:
    number = {character: index for index, character in enumerate(alphabet)}
    text = text.removesuffix("\n") if "\n" not in number else text
    if len(text) < length:
        raise InvalidData(f"{path}: {len(text)} characters, a window has {length}")
    window = text[-length:]
    unknown = [character for character in window if character not in number]
    if unknown:
        raise InvalidData(f"{path}: the training text has no {unknown[0]!r}")
    return np.array([[number[character] for character in window]], np.int32)


def _like(x: NDArray[Any], form: DataForm, path: Path) -> NDArray[Any]:
    if tuple(x.shape[1:]) != tuple(form.input_shape) or not len(x):
        raise InvalidData(f"{path} holds {x.shape}, the model takes samples of {tuple(form.input_shape)}")
    if form.vocabulary is not None and (x.dtype != np.int32 or int(x.max()) >= form.vocabulary):
        raise InvalidData(f"{path}: tokens must be integers below {form.vocabulary}")
    if form.vocabulary is None and x.dtype == np.int32:
        raise InvalidData(f"{path} holds tokens, the model takes none: are these floats?")
    return x


def predict(model: bytes, architecture: Architecture, form: DataForm, x: NDArray[Any]) -> list[Prediction]:
    """What the model says of each sample.

    Args:
        model: the file, as `Client.get` returns it. x: from `read_unseen`.

    Raises:
        InvalidArtifact: the file is no model of this architecture.
    """
    prepared = specification.prepare(decode_model(model, architecture), architecture)
    q, fraction = exact_jax.run(prepared, architecture, x)
    outputs = q * np.exp2(-fraction.astype(np.float64)).reshape(
        fraction.shape + (1,) * (q.ndim - fraction.ndim)
    )
    if form.output == "regression":
        return [Prediction(values=tuple(map(float, row))) for row in _in_units(outputs, form.about)]
    if outputs.ndim == 3:
        outputs = outputs[:, -1]  # of a text: what follows its end
    return [Prediction(choices=_choices(row, form.about)) for row in outputs]


def _in_units(outputs: NDArray[Any], about: Mapping[str, Any]) -> NDArray[Any]:
    """Values as they were before they were brought to mean 0 and deviation 1."""
    if "target_mean" in about:
        return outputs * np.asarray(about["target_scale"]) + np.asarray(about["target_mean"])
    if "length" in about and "mean" in about:
        place = about["columns"].index(about["target"])
        return outputs * about["scale"][place] + about["mean"][place]
    return outputs


def _choices(row: NDArray[Any], about: Mapping[str, Any]) -> tuple[Choice, ...]:
    shares = np.exp(row - row.max())
    shares /= shares.sum()
    names = about.get("labels") or about.get("alphabet") or [str(index) for index in range(len(row))]
    best = np.argsort(-shares, kind="stable")[:MAX_CHOICES]
    return tuple(Choice(str(names[index]), float(shares[index])) for index in best)
