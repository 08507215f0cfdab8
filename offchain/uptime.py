"""How often what an account serves was there when this machine asked for a part of it at random.

``uptime = came / asked``, over the samples that this machine took of released test sets and revealed models
(`offchain.sampling`), while they must be served. It is one machine's observation, its own network's faults
included: for people to look at, and no reason for anything.

On disk, so that a restart forgets nothing; a damaged file is begun anew, since nothing depends on it. Bounds:
`MOST_REMEMBERED` accounts, of which the one not asked for longest is forgotten first.

Source: issue 4, "Reputation"; PoT 3.4 "Achieving Retrievability".
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import msgspec

from offchain.files import NotWritten, write_whole
from protocol.parameters import BPS

log = logging.getLogger(__name__)

MOST_REMEMBERED: Final = 4096
UPTIME_FILE: Final = "uptime.json"
"""In an actor's data folder."""


class Seen(msgspec.Struct, frozen=True):
    """Samples of what one account serves."""

    asked: int = 0
    came: int = 0

    @property
    def bps(self) -> int | None:
        """Of 10,000 samples, so many would have come; none before the first."""
        return self.came * BPS // self.asked if self.asked else None


class Uptime:
    """Samples by account, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = read_uptime(path)

    def note(self, account: str, came: bool) -> None:
        """A sample of what an account serves came, or did not."""
        before = self._seen.pop(account, Seen())
        self._seen[account] = Seen(before.asked + 1, before.came + came)
        while len(self._seen) > MOST_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        try:
            write_whole(self._path, msgspec.json.encode(self._seen))
        except NotWritten as reason:
            log.warning("what was sampled is not kept: %s", reason)


def read_uptime(path: Path) -> dict[str, Seen]:
    """What the file of an `Uptime` holds, the account asked last at the end; empty without one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Seen])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as reason:
        log.warning("%s cannot be read and is begun anew: %s", path, reason)
        return {}
