"""Commit throughput through the public path: signed transactions per second, and what one costs.

    python -m benchmarks.throughput [--aggregators 4 …] [--transactions 30000] [--json]

Real ``dtn aggregator run`` processes on a local Anvil chain, journals on disk, real links between them. The
load is signed claims of `PROVIDERS` staked providers on one open order, all of them acceptable, signed before
the clock starts, sent to all aggregators in batches (``POST /v1/transactions/batch``) by one client process
on the same machine. Each provider keeps to one aggregator, so its nonces arrive in order. The client holds
back while more than `MAX_WAITING` transactions wait.

Throughput is all transactions by the time until the last of them is ordered. Latency is that of probes:
another provider's claims, one after the other, each through ``POST /v1/transactions?wait_s=`` while the load
runs; it ends with the answer and its commit certificate. Afterwards a sample is asked for: all must have been
accepted.

The figure to reach is in design section 12. Source: PoT 5.1 (capacity).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from benchmarks._claims import PROVIDERS, claims, provider_key
from benchmarks._local_network import committee_only, put_order, stake_providers, wait_for_order
from dtn.devnet import Devnet
from protocol.crypto import keccak256
from protocol.transactions import Claim, decode_transaction, sign_transaction, transaction_to_json
from protocol.typed_data import Domain, digest_of

BATCH: Final = 256
MAX_WAITING: Final = 4_000
"""Transactions in the pools before the client holds back: enough to keep the committee busy."""
POLL_S: Final = 0.05
ORDERED_TIMEOUT_S: Final = 120.0
PROBE_PAUSE_S: Final = 0.05
SAMPLE: Final = 100
PACKAGES: Final = (
    "pyOpenSSL",
    "cryptography",
    "coincurve",
    "msgspec",
    "safe-pysha3",
    "uvicorn",
    "fastapi",
    "httpx",
)


class Load:
    """One measurement against a running network."""

    def __init__(self, devnet: Devnet, oid: bytes, count: int) -> None:
        self._devnet, self._oid = devnet, oid
        self._urls = devnet.network().aggregators
        self._domain: Domain = devnet.network().domain
        signed = claims(self._domain, oid, count)
        lanes = len(self._urls)
        self._lanes: list[list[bytes]] = [[] for _ in range(lanes)]
        for number, data in enumerate(signed):
            self._lanes[number % PROVIDERS % lanes].append(data)
        self.count, self.size_bytes = count, statistics.mean(map(len, signed))
        self._waiting = 0
        self._loaded = False

    async def run(self) -> tuple[float, list[float]]:
        """Seconds until all was ordered, and the probes' seconds."""
        limits = httpx.Limits(max_connections=4 * len(self._urls))
        async with httpx.AsyncClient(limits=limits, timeout=60) as http:
            started = time.perf_counter()
            watching = asyncio.create_task(self._watch(http))
            probing = asyncio.create_task(self._probe(http))
            try:
                await asyncio.gather(
                    *(self._send(http, url, lane) for url, lane in zip(self._urls, self._lanes, strict=True))
                )
                await self._until_ordered(http)
                taken = time.perf_counter() - started
                self._loaded = True
                probes = await probing
                await self._check_sample(http)
            finally:
                for task in (watching, probing):
                    task.cancel()
                await asyncio.gather(watching, probing, return_exceptions=True)
        return taken, probes

    async def _status(self, http: httpx.AsyncClient, url: str) -> dict[str, Any]:
        answer = await http.get(f"{url}/v1/status")
        status: dict[str, Any] = answer.raise_for_status().json()
        return status

    async def _watch(self, http: httpx.AsyncClient) -> None:
        """Know how much waits: any member's pool holds everybody's transactions."""
        while True:
            self._waiting = (await self._status(http, self._urls[0]))["waiting"]
            await asyncio.sleep(POLL_S)

    async def _send(self, http: httpx.AsyncClient, url: str, lane: Sequence[bytes]) -> None:
        for start in range(0, len(lane), BATCH):
            while self._waiting > MAX_WAITING:
                await asyncio.sleep(POLL_S / 2)
            content = msgspec.msgpack.encode(lane[start : start + BATCH])
            answer = await http.post(f"{url}/v1/transactions/batch", content=content)
            said = answer.raise_for_status().json()["transactions"]
            refused = [item for item in said if item["status"] == "refused"]
            if refused:
                raise RuntimeError(f"{len(refused)} of {len(said)} refused: {refused[0]}")

    async def _until_ordered(self, http: httpx.AsyncClient) -> None:
        """Until every provider's last claim is ordered: nonces grow, so all earlier ones were before it."""
        last = [decode_transaction(lane[-number]) for lane in self._lanes for number in range(1, 3)]
        deadline = time.perf_counter() + ORDERED_TIMEOUT_S
        for item in last:
            path = f"{self._urls[0]}/v1/transactions/0x{digest_of(self._domain, item.body).hex()}"
            while True:
                answer = await http.get(path)
                if answer.status_code == 200 and answer.json()["status"] != "waiting":
                    break
                if time.perf_counter() > deadline:
                    raise TimeoutError("the last transactions were not ordered")
                await asyncio.sleep(POLL_S / 2)
        while self._waiting > 1:  # a probe may be among them
            await asyncio.sleep(POLL_S / 2)

    async def _probe(self, http: httpx.AsyncClient) -> list[float]:
        key, taken = provider_key(PROVIDERS), []
        number = 0
        while not self._loaded:
            number += 1
            body = Claim(
                sender=key.address,
                nonce=time.time_ns() // 1_000_000,
                oid=self._oid,
                commitment=keccak256(b"probe %d" % number),
            )
            document = transaction_to_json(sign_transaction(self._domain, body, key))
            start = time.perf_counter()
            url = self._urls[number % len(self._urls)]
            answer = await http.post(f"{url}/v1/transactions", params={"wait_s": 60}, json=document)
            if answer.status_code != 200:
                raise RuntimeError(f"a probe was not ordered: {answer.text[:300]}")
            taken.append(time.perf_counter() - start)
            await asyncio.sleep(PROBE_PAUSE_S)
        return taken

    async def _check_sample(self, http: httpx.AsyncClient) -> None:
        everything = [data for lane in self._lanes for data in lane]
        for data in random.Random(1).sample(everything, min(SAMPLE, len(everything))):
            tx_id = digest_of(self._domain, decode_transaction(data).body)
            answer = await http.get(f"{self._urls[0]}/v1/transactions/0x{tx_id.hex()}")
            if answer.status_code != 200 or answer.json()["status"] != "accepted":
                raise RuntimeError(f"not accepted: {answer.text[:300]}")


def cpu_seconds(devnet: Devnet) -> float:
    """CPU time that the aggregators have used so far."""
    running = devnet.running()
    used = 0.0
    for name, child in running.items():
        process = child.find() if name.startswith("aggregator") else None
        if process is not None:
            times = process.cpu_times()
            used += times.user + times.system
    return used


def measure(aggregators: int, count: int) -> dict[str, Any]:
    """One row: a fresh network, the load, the network's end."""
    with tempfile.TemporaryDirectory(prefix="dtn-throughput-") as folder:
        devnet = Devnet(Path(folder) / "devnet")
        with devnet.lifetime(committee_only(aggregators)):
            stake_providers(devnet, PROVIDERS + 1)
            oid = put_order(devnet)
            wait_for_order(devnet, oid, PROVIDERS)
            load = Load(devnet, oid, count)
            before = cpu_seconds(devnet)
            taken, probes = asyncio.run(load.run())
            used = cpu_seconds(devnet) - before
            executed = httpx.get(f"{devnet.network().aggregators[0]}/v1/status").json()
    cuts = statistics.quantiles(probes, n=100) if len(probes) > 1 else probes * 99
    return {
        "aggregators": aggregators,
        "tx_per_s": round(load.count / taken),
        "p50_ms": round(cuts[49] * 1e3, 1),
        "p99_ms": round(cuts[98] * 1e3, 1),
        "cpu_us_per_tx": round(used / load.count * 1e6, 1),
        "seconds": round(taken, 2),
        "transaction_bytes": round(load.size_bytes, 1),
        "probes": len(probes),
        "batches_ordered": executed["executed"],
        "view": executed["view"],
    }


def config(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "path": "HTTP batches, TLS links, journal on disk, Anvil and the client on the same machine",
        "transactions": arguments.transactions,
        "batch": BATCH,
        "max_waiting": MAX_WAITING,
        "senders": PROVIDERS,
    }


def show(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    print(f"{figures['config']['cores']} cores, {figures['config']['transactions']} transactions")
    print(f"{'members':>8}{'tx/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'CPU us/tx':>11}{'bytes':>8}")
    for row in figures["results"]:
        print(
            f"{row['aggregators']:8}{row['tx_per_s']:8}{row['p50_ms']:9}{row['p99_ms']:9}"
            f"{row['cpu_us_per_tx']:11}{row['transaction_bytes']:8}"
        )


def main(given: Sequence[str] | None = None) -> int:
    """Measure all rows; print a table, or JSON as the last line. Ends with status 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aggregators", default="4", help="how many members; several as 4,7,10,16")
    parser.add_argument("--transactions", type=int, default=30_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    try:
        rows = [measure(int(n), arguments.transactions) for n in arguments.aggregators.split(",")]
    except (RuntimeError, TimeoutError) as reason:
        print(f"the measurement failed: {reason}", file=sys.stderr)
        return 1
    figures = {"config": config(arguments), "results": rows}
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
