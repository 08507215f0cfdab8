"""By what means a score is computed: what they change is time and memory, and never an integer.

Source: design section 7; docs/validation.md, "Containers".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from offchain.evaluation.containers import Choice
from offchain.evaluation.memory import DEFAULT_BYTES


@dataclass(frozen=True, slots=True)
class Means:
    """How a machine computes scores."""

    container: Choice = "auto"
    """In what sums are held; see ``containers.py``."""
    memory_bytes: int = DEFAULT_BYTES
    """What scoring may allocate beside model file and test set; see ``memory.py``."""


USUAL_MEANS: Final = Means()
