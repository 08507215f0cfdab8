"""Who of a pool is there, and ready for which order: what the leader knows from its members' reports. Pure.

Times are seconds of one monotonic clock, given by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

from offchain.provider.pool.letters import Report
from protocol.errors import ProtocolError


class NotWelcome(ProtocolError):
    """A report by nobody of this pool, or one that was heard before."""


class Roster:
    """The members' last reports."""

    def __init__(self, members: Sequence[str], silence_s: float) -> None:
        self._members = tuple(members)
        self._silence_s = silence_s
        self._last: dict[str, tuple[float, Report]] = {}
        self._left: dict[str, int | None] = {}

    def hear(self, account: str, report: Report, now_s: float) -> None:
        """Take a report in; raises `NotWelcome`."""
        if account not in self._members:
            raise NotWelcome(f"{account} is no member of this pool")
        before = self._last.get(account)
        if before is not None and report.time_ms <= before[1].time_ms:
            raise NotWelcome(f"a report of {account} that is not newer than its last: is it running twice?")
        if before is not None and before[1].round not in (None, report.round):
            self._left[account] = before[1].round
        self._last[account] = (now_s, report)

    def there(self, now_s: float) -> tuple[str, ...]:
        """Members that have reported lately, in the order of the pool's file."""
        return tuple(
            member
            for member in self._members
            if member in self._last and now_s - self._last[member][0] <= self._silence_s
        )

    def ready(self, oid: str, now_s: float) -> tuple[str, ...]:
        """Members that are there and hold the data of an order."""
        return tuple(member for member in self.there(now_s) if self._last[member][1].ready == oid)

    def lost(self, accounts: Sequence[str], round_number: int, now_s: float) -> tuple[str, ...]:
        """Those of ``accounts`` on which a round cannot count any more.

        They are silent, failed in it, or left it: a member that starts again has lost its process.
        """
        there = self.there(now_s)
        return tuple(
            account
            for account in accounts
            if account not in there
            or self._last[account][1].failed == round_number
            or self._left.get(account) == round_number
        )
