"""Data that needs no file: for examples, tests and first orders.

``digits`` and ``diabetes`` come with scikit-learn; ``python-docs`` is the text of Python's own help topics,
as the interpreter at hand has it; ``waves`` is made up: two oscillations with a drift and noise, the same
everywhere.
"""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from offchain.datasets.files import text_samples
from offchain.datasets.samples import InvalidData, Samples, standardised
from offchain.datasets.table import windows

WINDOW: Final = 24
TEXT_LENGTH: Final = 64
_WAVE_ROWS: Final = 3_000


def _digits() -> Samples:
    load_digits = _scikit_learn("load_digits")
    digits = load_digits()
    # Values are 0 to 16; as bytes they become images like any other.
    images = np.minimum(digits.images * 16, 255).astype(np.uint8)[..., None]
    return Samples(images, digits.target.astype(np.int32), {"labels": [str(n) for n in range(10)]})


def _diabetes() -> Samples:
    diabetes = _scikit_learn("load_diabetes")(scaled=False)
    x, mean, scale = standardised(diabetes.data)
    y, target_mean, target_scale = standardised(diabetes.target[:, None])
    about = {"columns": list(diabetes.feature_names), "mean": mean, "scale": scale}
    return Samples(x, y, about | {"target_mean": target_mean, "target_scale": target_scale})


def _waves() -> Samples:
    time = np.arange(_WAVE_ROWS)
    noise = np.random.Generator(np.random.PCG64(7)).normal(scale=0.1, size=_WAVE_ROWS)
    wave = np.sin(time / 8) + 0.5 * np.sin(time / 3 + time / 400) + noise
    table, mean, scale = standardised(wave[:, None])
    return Samples(*windows(table, 0, WINDOW), {"mean": mean, "scale": scale, "length": WINDOW})


def _python_docs() -> Samples:
    topics = pydoc_data.topics.topics
    return text_samples("\n".join(topics[name] for name in sorted(topics)), TEXT_LENGTH, "python-docs")


def _scikit_learn(name: str) -> Callable[..., Any]:
    try:
        import sklearn.datasets
    except ImportError as reason:
        raise InvalidData("this data comes with scikit-learn: install the `data` extra") from reason
    loader: Callable[..., Any] = getattr(sklearn.datasets, name)
    return loader


BUILTIN: Final[dict[str, Callable[[], Samples]]] = {
    "digits": _digits,
    "diabetes": _diabetes,
    "waves": _waves,
    "python-docs": _python_docs,
}
