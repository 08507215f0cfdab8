"""What it costs a member to check a change of view, beside the timeout that it must fit into.

    python -m benchmarks.new_view [--members 4 10 30 60] [--batches 29] [--json]

Every member shows, in its view change, the prepared proofs of all batches that no checkpoint covers yet; the
new view shows a quorum of those view changes. One member checks the view changes as they arrive, then the
new view: CPU seconds on one core, once as the product does it and once as if no vote were remembered. The
messages are made before the clock starts. Medians of turns, no I/O.

Source: design section 6 (view change); Castro and Liskov 1999, section 4.4.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import (
    NewView,
    NewViewContents,
    Prepared,
    ViewChange,
    ViewChangeContents,
    Vote,
    Voted,
    VoteKind,
    cast,
    contents_digest,
    encode_message,
    verify_vote,
)
from aggregator.pbft.quorum import Members
from aggregator.pbft.view_change import proposals, verify_new_view, verify_view_change
from benchmarks._member import committee
from protocol.crypto import Key, keccak256

TURNS: Final = 3
LIMITS: Final = Limits()


class Forgetful(Members):
    """Members who look at every vote each time that it is shown."""

    def verify(self, vote: Vote) -> None:
        """Raise `InvalidSignature` unless the named member signed the vote."""
        verify_vote(self.domain, self.addresses, vote)


def new_view(members: Members, keys: Sequence[Key], batches: int) -> NewView:
    """View 1 after ``batches`` were prepared in view 0 and no checkpoint became stable."""
    domain, quorum = members.domain, range(members.quorum)

    def prepared(sequence: int) -> Prepared:
        subject = (0, sequence, keccak256(b"%d" % sequence))
        votes = [cast(domain, keys[i], i, VoteKind.PREPARE, *subject) for i in quorum[1:]]
        return Prepared(cast(domain, keys[0], 0, VoteKind.PRE_PREPARE, *subject), tuple(votes))

    proofs = tuple(map(prepared, range(1, batches + 1)))
    voted = tuple(Voted(p.pre_prepare.sequence, 0, p.pre_prepare.digest) for p in proofs)
    change = ViewChangeContents(members.epoch, 1, None, proofs, voted)
    subject = (1, members.epoch, contents_digest(change))
    changes = tuple(
        ViewChange(change, cast(domain, keys[i], i, VoteKind.VIEW_CHANGE, *subject)) for i in quorum
    )
    again = tuple(
        cast(domain, keys[1], 1, VoteKind.PRE_PREPARE, 1, sequence, digest)
        for sequence, digest in proposals(changes, members.faults)
    )
    contents = NewViewContents(members.epoch, 1, changes, again)
    vote = cast(domain, keys[1], 1, VoteKind.NEW_VIEW, 1, members.epoch, contents_digest(contents))
    return NewView(contents, vote)


def check_s(members: Members, message: NewView) -> float:
    """CPU seconds of one member that has seen none of the votes before."""
    start = time.process_time()
    for change in message.contents.view_changes:
        verify_view_change(members, change, window=LIMITS.window)
    verify_new_view(members, message, window=LIMITS.window)
    return time.process_time() - start


def measure(count: int, batches: int) -> dict[str, Any]:
    """One row."""
    members, keys = committee(count)
    message = new_view(members, keys, batches)
    forgetful = Forgetful(domain=members.domain, addresses=members.addresses)
    once, always = [], []
    for _ in range(TURNS):
        once.append(check_s(replace(members), message))
        always.append(check_s(forgetful, message))
    return {
        "members": count,
        "batches": batches,
        "new_view_bytes": len(encode_message(message)),
        "seconds": round(statistics.median(once), 4),
        "seconds_if_forgotten": round(statistics.median(always), 4),
    }


def main(given: Sequence[str] | None = None) -> int:
    """Measure all rows; print a table, or JSON as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[4, 10, 30, 60])
    parser.add_argument(
        "--batches", type=int, default=29, help="open ones; a checkpoint comes every 32nd batch"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    rows = [measure(count, arguments.batches) for count in arguments.members]
    if arguments.json:
        config = {"view_timeout_ms": LIMITS.view_timeout_ms, "turns": TURNS}
        print(json.dumps({"config": config, "results": rows}))
        return 0
    print(f"{'members':>8}{'batches':>9}{'new view':>12}{'CPU':>10}{'if forgotten':>14}")
    for row in rows:
        print(
            f"{row['members']:8}{row['batches']:9}{row['new_view_bytes']:10} B"
            f"{row['seconds']:8.3f} s{row['seconds_if_forgotten']:12.3f} s"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
