"""What slow and hostile readers of the API cost the ledger: its latency without and with them.

    python -m benchmarks.readers [--readers 40] [--rate 100] [--seconds 12] [--orders 300] [--json]

Four real ``dtn aggregator run`` processes on a local Anvil chain, journals on disk, real links between them,
and ``--orders`` open orders in the ledger, so that pages are large. Signed claims are sent at a steady
``--rate`` to the last member, in batches every `TICK_S`. ``--readers`` of a kind (`benchmarks._readers`, in a
process of their own) sit on each of the *other* members, the primary among them.

Latencies are those of probes: claims of `PROBERS` senders, each one after the other, each from its sending
until the answer says where it was ordered, with its commit certificate. Those through the member without
readers are the ledger's latency: three of four members must agree on each, so at least two of them have
readers. Those through a member with readers show what its API's other users feel; it may turn some away. Each
row is a time of ``--seconds`` on the same network; before and after each kind stands a row without readers,
to tell what the machine itself changed in between.

Not measured here: a network card that is full, and readers with more connections than a process may have; the
first is a reverse proxy's business (docs/operating.md, "Ports").
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from benchmarks._claims import PROVIDERS, claim_order, claims, provider_key
from benchmarks._local_network import committee_only, put_order, stake_providers, wait_for_order
from benchmarks.throughput import cpu_seconds
from dtn.devnet import Devnet
from protocol.chain.client import order_tuple
from protocol.crypto import Key, keccak256
from protocol.transactions import Claim, sign_transaction, transaction_to_json
from protocol.typed_data import Domain

AGGREGATORS: Final = 4
TICK_S: Final = 0.1
PROBERS: Final = 4
"""On each of the two members, so that a percentile of 99 is not the worst alone."""
PROBE_PAUSE_S: Final = 0.05
SETTLE_S: Final = 2.0
"""Between the readers' start and the first probe."""
WARM_S: Final = 3.0
KINDS: Final = ("streams", "loris", "pages", "all", "hungry")
ROWS: Final = ("none", *(row for kind in KINDS for row in (kind, "none")))
ORDERS_TIMEOUT_S: Final = 120.0
PUT_GAS: Final = 400_000
WHOSE: Final = ("ledger", "through_read_member")


def put_orders(devnet: Devnet, count: int) -> None:
    """Many more orders, so that lists are long; waits until every ledger has them.

    Raises:
        TimeoutError: they never came.
    """
    chain = devnet.chain("client")
    client = devnet.key("client")
    order = claim_order(client.address)
    devnet.fund(client.address, count * (order.reward + order.deposit))
    chain.approve(chain.book.orders, count * (order.reward + order.deposit))
    sender = chain.web3.to_checksum_address(client.address)
    first = chain.web3.eth.get_transaction_count(sender)
    sent = b""
    for number in range(count):
        call = chain.orders.functions.put(order_tuple(_numbered(order, number)))
        transaction = call.build_transaction({"from": sender, "nonce": first + number, "gas": PUT_GAS})
        sent = client.send_transaction(chain.web3, transaction)
    chain.web3.eth.wait_for_transaction_receipt(sent, timeout=ORDERS_TIMEOUT_S)  # type: ignore[arg-type]
    deadline = time.monotonic() + ORDERS_TIMEOUT_S
    for url in devnet.network().aggregators:
        while httpx.get(f"{url}/v1/status").json()["orders"] < count + 1:
            if time.monotonic() > deadline:
                raise TimeoutError("the orders did not reach the ledger")
            time.sleep(0.5)


def _numbered(order: Any, number: int) -> Any:
    return msgspec.structs.replace(order, nonce=2 + number)


class Load:
    """Claims at a steady rate to one member, and probes through it and through another."""

    def __init__(self, domain: Domain, oid: bytes, urls: Sequence[str], rate: int) -> None:
        self._domain, self._oid = domain, oid
        self._quiet, self._read = urls[-1], urls[0]
        self._per_tick = max(1, round(rate * TICK_S))
        self._sent = 0
        self._number = 0
        self.refused = 0
        """Probes that the member with readers turned away in this row."""

    async def run(self, seconds: float) -> tuple[list[float], list[float], int]:
        """Seconds of probes through the member without and one with readers; and claims sent."""
        async with httpx.AsyncClient(timeout=60) as http:
            until_s = time.perf_counter() + seconds
            before, self.refused = self._sent, 0
            probes = await asyncio.gather(
                *(
                    self._probe(http, url, provider_key(PROVIDERS + number * PROBERS + place), until_s)
                    for number, url in enumerate((self._quiet, self._read))
                    for place in range(PROBERS)
                ),
                self._send(http, until_s),
            )
        quiet, read = (list(itertools.chain(*some)) for some in (probes[:PROBERS], probes[PROBERS:-1]))
        return quiet, read, self._sent - before

    async def _send(self, http: httpx.AsyncClient, until_s: float) -> list[float]:
        """Claims at a steady rate; no probes."""
        due_s = time.perf_counter()
        while time.perf_counter() < until_s:
            items = claims(self._domain, self._oid, self._per_tick, first=self._sent)
            self._sent += len(items)
            answer = await http.post(
                f"{self._quiet}/v1/transactions/batch", content=msgspec.msgpack.encode(items)
            )
            refused = [
                item
                for item in answer.raise_for_status().json()["transactions"]
                if item["status"] == "refused"
            ]
            if refused:
                raise RuntimeError(f"{len(refused)} of {len(items)} refused: {refused[0]}")
            due_s += TICK_S
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        return []

    async def _probe(self, http: httpx.AsyncClient, url: str, key: Key, until_s: float) -> list[float]:
        taken = []
        while time.perf_counter() < until_s:
            self._number += 1
            body = Claim(
                sender=key.address,
                nonce=time.time_ns() // 1_000_000,
                oid=self._oid,
                commitment=keccak256(b"probe %d" % self._number),
            )
            document = transaction_to_json(sign_transaction(self._domain, body, key))
            start = time.perf_counter()
            answer = await http.post(f"{url}/v1/transactions", params={"wait_s": 60}, json=document)
            if answer.status_code == 503 and url == self._read:
                self.refused += 1
            elif answer.status_code != 200:
                raise RuntimeError(f"a probe through {url} was not ordered: {answer.text[:300]}")
            else:
                taken.append(time.perf_counter() - start)
            await asyncio.sleep(PROBE_PAUSE_S)
        return taken


def with_readers(kind: str, count: int, devnet: Devnet, load: Load, seconds: float) -> dict[str, Any]:
    """One row: readers of a kind while the load runs; they end with it."""
    urls = devnet.network().aggregators
    process = None
    if kind != "none":
        command = [sys.executable, "-m", "benchmarks._readers", kind, str(count), *urls[:-1]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(SETTLE_S)
    try:
        before_s, views = cpu_seconds(devnet), [_status(url)["view"] for url in urls]
        quiet, read, sent = asyncio.run(load.run(seconds))
        used_s = cpu_seconds(devnet) - before_s
        changes = sum(_status(url)["view"] for url in urls) - sum(views)
    finally:
        told = {}
        if process is not None:
            process.terminate()
            lines = (process.communicate(timeout=30)[0] or "").splitlines()
            told = json.loads(lines[-1]) if lines else {}
    return {
        "readers": kind,
        "ledger_p50_ms": _percentile(quiet, 50),
        "ledger_p99_ms": _percentile(quiet, 99),
        "through_read_member_p50_ms": _percentile(read, 50),
        "through_read_member_p99_ms": _percentile(read, 99),
        "through_read_member_refused": load.refused,
        "probes": len(quiet),
        "tx_per_s": round(sent / seconds),
        "aggregators_cpu_s": round(used_s, 1),
        "view_changes": changes,
        "they_did": told,
    }


def _status(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/v1/status", timeout=30).json()
    return found


def _percentile(taken: list[float], share: int) -> float | None:
    if len(taken) < 2:
        return None
    return round(statistics.quantiles(taken, n=100)[share - 1] * 1e3, 1)


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows on one network."""
    with tempfile.TemporaryDirectory(prefix="dtn-readers-") as folder:
        devnet = Devnet(Path(folder) / "devnet")
        with devnet.lifetime(committee_only(AGGREGATORS)):
            stake_providers(devnet, PROVIDERS + 2 * PROBERS)
            oid = put_order(devnet)
            wait_for_order(devnet, oid, PROVIDERS + 2 * PROBERS - 1)
            put_orders(devnet, arguments.orders)
            network = devnet.network()
            load = Load(network.domain, oid, network.aggregators, arguments.rate)
            asyncio.run(load.run(WARM_S))
            return [
                with_readers(kind, arguments.readers, devnet, load, arguments.seconds)
                for kind in arguments.kinds.split(",")
            ]


def show(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    given = figures["config"]
    print(
        f"{given['cores']} cores, load before {given['load_before']}, {given['readers']} readers of a kind "
        f"on each of {AGGREGATORS - 1} of {AGGREGATORS} members, {given['orders']} orders"
    )
    print(f"{'':10}{'ledger, ms':>18}{'through a read member, ms':>27}{'':>17}{'CPU':>8}{'views':>7}")
    print(f"{'readers':10}{'p50':>9}{'p99':>9}{'p50':>9}{'p99':>9}{'refused':>9}{'tx/s':>17}{'s':>8}")
    for row in figures["results"]:
        times = [row[f"{whose}_{share}_ms"] for whose in WHOSE for share in ("p50", "p99")]
        print(
            f"{row['readers']:10}"
            + "".join(f"{'-' if each is None else each:>9}" for each in times)
            + f"{row['through_read_member_refused']:9}{row['tx_per_s']:17}{row['aggregators_cpu_s']:8}"
            + f"{row['view_changes']:7}  {row['they_did'] or ''}"
        )


def main(given: Sequence[str] | None = None) -> int:
    """Measure all rows; print a table, or JSON as the last line. Ends with status 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readers", type=int, default=40, help="readers of a kind on each member")
    parser.add_argument("--rate", type=int, default=100, help="claims a second")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each row")
    parser.add_argument("--orders", type=int, default=300, help="orders in the ledger")
    parser.add_argument("--kinds", default=",".join(ROWS), help="rows, in this order")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    load_before = round(os.getloadavg()[0], 2)
    try:
        rows = measure(arguments)
    except (RuntimeError, TimeoutError, httpx.HTTPError) as reason:
        print(f"the measurement failed: {reason or type(reason).__name__}", file=sys.stderr)
        return 1
    config = {
        "cores": os.cpu_count(),
        "load_before": load_before,
        "python": platform.python_version(),
        "aggregators": AGGREGATORS,
        **{name: getattr(arguments, name) for name in ("readers", "rate", "seconds", "orders")},
    }
    figures = {"config": config, "results": rows}
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
