"""By what means a score is computed: what they change is time and memory, and never an integer.

Source: design section 7; docs/exact-1.md, "Containers".
"""

from __future__ import annotations

from dataclasses import dataclass

from offchain.evaluation.containers import Choice


@dataclass(frozen=True, slots=True)
class Means:
    """How a machine computes scores."""

    container: Choice = "auto"
    """In what sums are held; see ``containers.py``."""
