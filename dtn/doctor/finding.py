"""What one check found: a verdict, what it is about, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "failed", "skipped"]
"""Failed: the node cannot do its work, or will lose something; warning: it may; skipped: nobody can tell."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    verdict: Verdict
    what: str
    """One sentence; names the thing and the numbers."""
    do: str = ""
    """What mends it; empty if all is well."""


def ok(check: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", what)


def warning(check: str, what: str, do: str) -> Finding:
    """Worth a look."""
    return Finding(check, "warning", what, do)


def failed(check: str, what: str, do: str) -> Finding:
    """Has to be mended."""
    return Finding(check, "failed", what, do)


def skipped(check: str, what: str) -> Finding:
    """Could not be told, because of another finding."""
    return Finding(check, "skipped", what)
