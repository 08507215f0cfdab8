"""Bounds and periods of a replica: operators may set them, a committee may differ in most of them.

Source: Castro and Liskov 1999, sections 4.3 (window), 4.5.2 (timeouts) and 5; docs/consensus.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and periods of a replica; all times in milliseconds."""

    pipeline: int = 8
    """Proposals of a primary under way at once."""
    window: int = 256
    """Sequence numbers above the last stable checkpoint for which anything is kept."""
    checkpoint_interval: int = 32
    view_timeout_ms: int = 1_500
    """First timeout; it doubles with every view that brings no progress."""
    max_view_timeout_ms: int = 120_000
    starvation_timeout_ms: int = 30_000
    """A primary under which something known waits so long is replaced, whatever else it orders."""
    retransmit_ms: int = 500
    """After this long without progress, own votes and the own position are said again; see ``repeat_ms``."""
    repeat_ms: int = 20
    """Large committees wait this much per member: saying again costs each of them at most 50 messages a
    second, however many they are, and a round of many votes is not mistaken for lost ones."""
    snapshot_interval: int = 1024
    """Sequence numbers after which the journal starts anew from a snapshot."""
    snapshot_log_bytes: int = 16 * 1024 * 1024
    """A log that has grown so far starts anew earlier: a restart works off what it holds."""
    unanimity_ms: int = 25
    """So long a member with a quorum of prepares waits for those of all others, with which a batch needs no
    commit votes; 0: never. Longer does not pay: where votes take long, commits would have come meanwhile."""
    doubt_ms: int = 1_000
    """Who waited for all in vain does not for so long, doubled with every further time up to 64 times."""
    relay_votes: bool = False
    """Votes go to the primary alone, which passes a quorum of them on in one message: of the order of n
    messages a phase instead of n squared, for two more journeys. Pays where messages cost more than waiting:
    large committees close to each other. A primary that keeps votes to itself costs ``retransmit_ms``: then
    they are said to all. Each member may choose for itself."""
    view_lead: int = 1_000
    """View changes further ahead than this are ignored: nobody honest is there."""
