"""Contract artifacts shipped with the package: ABI and bytecode, without a compiler at hand.

Guarantees: an artifact is exactly what ``scripts/compile.py`` made of ``contracts/`` (a test compares
them), so a wheel installed anywhere deploys and calls the audited sources. Source: design section 5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from protocol.errors import ChainError

CONTRACTS: Final = (
    "Committee",
    "NodeRegistry",
    "OrderBook",
    "Parameters",
    "Settlement",
    "TrainingGovernor",
    "TrainingToken",
)
"""Names of the contracts that are deployed, and so shipped."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One contract: its name, its ABI as decoded JSON, its creation bytecode as 0x hex."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: str


@cache
def load(name: str) -> Artifact:
    """The artifact called ``name``.

    Raises:
        ChainError: no such contract is shipped, or its file is damaged.
    """
    if name not in CONTRACTS:
        raise ChainError(f"no contract is called {name!r}; there are {', '.join(CONTRACTS)}")
    try:
        text = (files("protocol.chain") / "artifacts" / f"{name}.json").read_text(encoding="utf-8")
        fields = json.loads(text)
        return Artifact(name, fields["abi"], fields["bytecode"])
    except (OSError, ValueError, KeyError, TypeError) as reason:
        raise ChainError(f"the artifact of {name} cannot be read: run 'make compile'") from reason
