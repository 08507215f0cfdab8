"""Real scrapes of every role: an aggregator with its API, a provider with its monitor on a real chain."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from aggregator.api.app import build_app
from aggregator.links.keys import LinkKey
from aggregator.links.links import Links, Peer
from aggregator.pbft.messages import ReportSignature
from offchain.config import ProviderConfig
from offchain.provider import Provider
from protocol.crypto import Key
from protocol.keyfile import write_private
from protocol.parameters import DEFAULTS
from protocol.transactions import Claim
from tests.api.network import running
from tests.chain import running_chain
from tests.scripts.serving import Answer, serving

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Family:
    """One figure of a scrape."""

    name: str
    kind: str
    help: str
    labels: frozenset[str]

    @property
    def samples(self) -> set[str]:
        """What its samples are called in queries."""
        match self.kind:
            case "counter":
                return {f"{self.name}_total"}
            case "histogram":
                return {f"{self.name}_{part}" for part in ("bucket", "sum", "count")}
        return {self.name}


def families(text: str) -> dict[str, Family]:
    """What a scrape holds, by name."""
    return {
        family.name: Family(
            family.name,
            family.type,
            family.documentation,
            frozenset(label for sample in family.samples for label in sample.labels),
        )
        for family in text_string_to_metric_families(text)
    }


def aggregator(folder: Path) -> dict[str, Family]:
    """A scrape of an aggregator that has ordered something."""

    async def scenario() -> str:
        async with running(folder) as network:
            oid = await network.place()
            await network.send("provider0", Claim, oid=oid, commitment=bytes(32))
            network.node.counters.misbehaviour[1] += 1
            links = Links(LinkKey.derive(Key.generate()), "tcp://127.0.0.1:*")
            other = LinkKey.derive(Key.generate()).public
            links.set_peers({1: Peer(index=1, address="tcp://127.0.0.1:9", link_key=other)})
            links.broadcast(ReportSignature(1, bytes(32), bytes(65)))
            app = build_app(network.node, list, links=links.counters, silences_s=links.silences_s)
            try:
                async with httpx.AsyncClient(
                    transport=httpx.ASGITransport(app=app), base_url="http://aggregator"
                ) as http:
                    await http.get("/v1/status")
                    return (await http.get("/metrics")).text
            finally:
                await links.close()

    return families(asyncio.run(scenario()))


def ledger() -> Callable[[str], Answer]:
    """An aggregator's answers on a network without orders."""
    now_ms = int(time.time() * 1000)
    status = {"executed": 1, "ledgerTimeMs": now_ms, "clockMs": now_ms, "origin": 1, "settledEpoch": 0}

    def answer(path: str) -> Answer:
        body: Any = {"orders": []}
        if path.endswith("/credits"):
            body = {"credits": [], "next": None}
        elif path.startswith("/v1/accounts/"):
            body = {"stakes": [], "pending": []}
        elif path == "/v1/parameters":
            body = {name: str(value) for name, value in DEFAULTS.values}
        elif path == "/v1/status":
            body = status
        return 200, json.dumps(body).encode()

    return answer


def provider(folder: Path) -> dict[str, Family]:
    """A scrape of a provider, which has all that the other roles have and more."""
    with running_chain() as chain, serving(ledger()) as url:
        (folder / "network.json").write_text(chain.network_file(url).model_dump_json())
        write_private(folder / "provider.key", Key.generate().secret.hex())
        actor = Provider(
            ProviderConfig(
                key_file=folder / "provider.key",
                data_dir=folder / "data",
                network=folder / "network.json",
                metrics_port=0,
                platform="cpu",
            )
        )
        monitor = actor.monitor
        assert monitor is not None
        # One of each kind that has labels: until then a counter has none to show.
        actor.meters.submitted("Claim", "accepted")
        actor.meters.error(ValueError())
        actor.meters.evaluated("scored", 0.1)
        actor.meters.training("started")
        monitor.loop.ended_well_s = time.monotonic()
        monitor.start()
        try:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                found = families(httpx.get(monitor.url + "/metrics").text)
                if "dtn_balance_coins" in found and "dtn_earned_tokens" in found:
                    return found
                assert time.monotonic() < deadline, f"only {sorted(found)} show"
                time.sleep(0.1)
        finally:
            actor.close()
