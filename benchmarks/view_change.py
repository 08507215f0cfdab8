"""View change: from the death of the primary to the next commit, with default timeouts.

    python -m benchmarks.view_change [--aggregators 4] [--repeat 5] [--json]

Real ``dtn aggregator run`` processes on a local Anvil chain, journals on disk. A provider sends a claim to a
member that lives, again and again, each through ``POST /v1/transactions?wait_s=``. In between, the primary's
process is killed (SIGKILL), and the next claim is sent at once: the time is from the kill to the answer that
it was ordered. The killed member is started again before the next round, which begins when it has caught up.

The figure to reach is 2 s. Source: design sections 11 and 12; Castro and Liskov 1999, section 4.4.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from aggregator.config import AggregatorConfig
from aggregator.pbft.limits import Limits
from benchmarks._claims import provider_key
from benchmarks._local_network import committee_only, put_order, stake_providers, wait_for_order
from dtn.devnet import Devnet
from dtn.devnet.processes import wait_until
from protocol.crypto import keccak256
from protocol.transactions import Claim, sign_transaction, transaction_to_json

BEFORE: Final = 3
"""Claims before the kill: the committee is at work, not idle."""
CATCH_UP_TIMEOUT_S: Final = 60.0


class Rounds:
    """Kills primaries of one running network."""

    def __init__(self, devnet: Devnet, oid: bytes) -> None:
        self._devnet, self._oid = devnet, oid
        self._urls = devnet.network().aggregators

    def _status(self, index: int) -> dict[str, Any]:
        status: dict[str, Any] = httpx.get(f"{self._urls[index]}/v1/status", timeout=10).json()
        return status

    def _names(self) -> dict[int, int]:
        """Member of the committee to place in the list of aggregators."""
        return {self._status(index)["member"]: index for index in range(len(self._urls))}

    def _claim(self, index: int) -> None:
        key = provider_key(0)
        body = Claim(
            sender=key.address,
            nonce=time.time_ns() // 1_000_000,
            oid=self._oid,
            commitment=keccak256(b"claim"),
        )
        document = transaction_to_json(sign_transaction(self._devnet.network().domain, body, key))
        url = f"{self._urls[index]}/v1/transactions"
        answer = httpx.post(url, params={"wait_s": 60}, json=document, timeout=90)
        if answer.status_code != 200:
            raise RuntimeError(f"a claim was not ordered: {answer.text[:300]}")

    def one(self) -> float:
        """Seconds from the primary's death to the next commit."""
        places = self._names()
        primary = places[self._status(0)["primary"]]
        alive = (primary + 1) % len(self._urls)
        for _ in range(BEFORE):
            self._claim(alive)
        name = f"aggregator-{primary + 1}"
        start = time.perf_counter()
        self._devnet.children.stop([name], kill=True)
        self._claim(alive)
        taken = time.perf_counter() - start
        self._devnet.start(name)
        if not wait_until(lambda: self._caught_up(primary, alive), CATCH_UP_TIMEOUT_S):
            raise TimeoutError(f"{name} did not catch up after its restart")
        return taken

    def _caught_up(self, restarted: int, other: int) -> bool:
        try:
            mine, theirs = self._status(restarted), self._status(other)
        except httpx.HTTPError:
            return False
        return bool(
            mine["executed"] >= theirs["executed"] and mine["view"] == theirs["view"] and mine["active"]
        )


def measure(aggregators: int, repeat: int) -> dict[str, Any]:
    """One row: one network, its primary killed ``repeat`` times."""
    with tempfile.TemporaryDirectory(prefix="dtn-view-change-") as folder:
        devnet = Devnet(Path(folder) / "devnet")
        with devnet.lifetime(committee_only(aggregators)):
            stake_providers(devnet, 1)
            oid = put_order(devnet)
            wait_for_order(devnet, oid, 0)
            rounds = Rounds(devnet, oid)
            taken = [rounds.one() for _ in range(repeat)]
    return {
        "aggregators": aggregators,
        "seconds": {
            "min": round(min(taken), 3),
            "median": round(statistics.median(taken), 3),
            "max": round(max(taken), 3),
        },
    }


def main(given: Sequence[str] | None = None) -> int:
    """Measure; print a line, or JSON as the last line. Ends with status 1 if it fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aggregators", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    try:
        row = measure(arguments.aggregators, arguments.repeat)
    except (RuntimeError, TimeoutError) as reason:
        print(f"the measurement failed: {reason}", file=sys.stderr)
        return 1
    timeout_ms = AggregatorConfig.model_fields["view_timeout_ms"].default
    assert timeout_ms == Limits().view_timeout_ms, "one default"
    config = {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "view_timeout_ms": timeout_ms,
        "floor_seconds": timeout_ms / 1e3,
        "repeat": arguments.repeat,
    }
    if arguments.json:
        print(json.dumps({"config": config, "results": [row]}))
    else:
        print(f"{row['aggregators']} members, first timeout {timeout_ms} ms: {row['seconds']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
