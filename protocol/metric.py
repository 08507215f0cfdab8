"""The metrics by which a task may be scored, and which outputs of a model each one reads.

Guarantees: a name stands for one definition (docs/exact-1.md, "Metrics"); higher is always better, so losses
are negated; every score is an integer in millionths.

Source: design sections 3 ("scores are integers in millionths") and 7.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import StringConstraints

from protocol.architecture import Output

Metric = Annotated[
    str,
    StringConstraints(
        pattern=r"^(accuracy|top_([2-9]|[1-9][0-9]|100)|cross_entropy|macro_f1|kappa|auc|mse|mae)$"
    ),
]
"""A name below, or ``top_2`` to ``top_100``: the share of samples whose class is among that many best."""

MILLIONTHS: Final = 1_000_000

_READS: Final[dict[str, tuple[Output, ...]]] = {
    "accuracy": ("classification", "next_token"),
    "top": ("classification", "next_token"),
    "cross_entropy": ("classification", "next_token"),
    "macro_f1": ("classification",),
    "kappa": ("classification",),
    "auc": ("classification",),
    "mse": ("regression",),
    "mae": ("regression",),
}
_LOSSES: Final = ("cross_entropy", "mse", "mae")


def _kind(metric: str) -> str:
    return "top" if metric.startswith("top_") else metric


def metrics_for(output: Output) -> tuple[str, ...]:
    """Names of the metrics that read such outputs, one ``top_…`` standing for all."""
    return tuple("top_5" if kind == "top" else kind for kind, reads in _READS.items() if output in reads)


def reads(metric: str, output: Output) -> bool:
    """Whether a metric can score such outputs."""
    return output in _READS.get(_kind(metric), ())


def perfect_score(metric: str) -> int:
    """Millionths: the score that none exceeds."""
    return 0 if metric in _LOSSES else MILLIONTHS


def rank_of(metric: str) -> int:
    """Among how many of the best a sample's class must be: 1 for accuracy, 5 for ``top_5``."""
    match = re.fullmatch(r"top_(\d+)", metric)
    return int(match.group(1)) if match else 1
