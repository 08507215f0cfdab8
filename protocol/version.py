"""Versions: of the rules that all members must share, and of this software.

A protocol version names the rules by which batches are executed to a ledger. Which one is in force is part
of the ledger itself: the chain says which version a network begins with and when another one takes over
(parameter ``protocol_version``), and it takes over for everybody at one sequence number
(`aggregator.ledger.rules`). Software says which versions it can execute: `SUPPORTED`. Two builds whose
ranges overlap understand each other's messages.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import metadata
from typing import Final

FIRST_VERSION: Final = 1
"""What a ledger follows whose chain has never said."""
MAX_VERSION: Final = 255
"""A version is one byte in the links' welcome."""


@dataclass(frozen=True, slots=True)
class Versions:
    """All protocol versions from ``low`` to ``high``, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not FIRST_VERSION <= self.low <= self.high <= MAX_VERSION:
            raise ValueError(f"{self.low} to {self.high} is no range of protocol versions")

    def __contains__(self, version: int) -> bool:
        return self.low <= version <= self.high

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"

    def overlap(self, other: Versions) -> bool:
        """Whether there is a version in both."""
        return self.low <= other.high and other.low <= self.high


def beyond(version: int, first: int | None, known: Versions) -> str:
    """What to tell whoever meets a version that its software does not know; ``first`` is its first batch."""
    since = "" if first is None else f" from batch {first} on"
    what = "upgrade" if version > known.high else "its rules are no longer in this release"
    return f"the network runs version {version} of the protocol{since}; this software knows {known}: {what}"


SUPPORTED: Final = Versions(1, 1)
"""What this software can execute. A test holds it to the rules that are there."""


@functools.cache
def software_version() -> str:
    """The version of the installed distribution; ``unknown`` for a bare checkout."""
    try:
        return metadata.version("proof-of-training")
    except metadata.PackageNotFoundError:
        return "unknown"
