"""A ledger with orders in training and nothing else, and a client that serves their data: no chain."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offchain.client import Client, read_task_file
from offchain.network import NetworkFile
from offchain.storage import Cid, EmbeddedStore, Gateway
from protocol.crypto import Key
from protocol.keyfile import write_private
from protocol.parameters import DEFAULTS
from protocol.task import TaskDocument
from tests.answers import open_order, put_fields, stake
from tests.chain import chainless_network
from tests.scripts.serving import Answer, serving

Json = dict[str, Any]

TASK = """
model: {family: mlp, hidden: [32]}
data: {dataset: digits}
metric: cross_entropy
windows: {train_s: 300, validate_s: 20, challenge_s: 20}
"""


@dataclass
class Ledger:
    """What the actors see and send."""

    network: NetworkFile
    document: TaskDocument
    details: dict[str, Json]
    """What is answered about each order, by its OID."""
    claims: list[Json] = field(default_factory=list)
    """Claim transactions, as they came."""
    silent: bool = False
    """Whether transactions are turned away for now."""
    turned_away: int = 0

    @property
    def oids(self) -> list[str]:
        return list(self.details)

    def write_actor(self, folder: Path, key: Key, **settings: Any) -> Path:
        """A role's folder with key, network and configuration; the configuration's path."""
        folder.mkdir(parents=True)
        write_private(folder / "actor.key", key.secret.hex())
        (folder / "network.json").write_text(self.network.model_dump_json())
        fields = {
            "key_file": "actor.key",
            "data_dir": "data",
            "network": "network.json",
            "poll_s": 0.2,
            **settings,
        }
        path = folder / "actor.toml"
        path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items()))
        return path


@contextmanager
def ledger(folder: Path, orders: int = 1) -> Iterator[Ledger]:
    """So many orders of five minutes, whose data a gateway serves."""
    client = Client(chainless_network("http://127.0.0.1:1"), None, folder / "client")
    store = EmbeddedStore(folder / "client" / "store")
    gateway = Gateway(store)
    gateway.start()
    (folder / "task.yaml").write_text(TASK)
    prepared = client.prepare(read_task_file(folder / "task.yaml"), gateway=gateway.url)
    for reference in prepared.document.data.fragments:
        store.publish(Cid.parse(reference.cid))
    details = {
        (oid := "0x" + bytes([0xA0 + index] * 32).hex()): open_order(
            oid=oid,
            blockHash="0x" + "cd" * 32,
            deadlineMs=int(time.time() * 1000) + 300_000,
            order=put_fields(
                trainWindow="300",
                baseline=str(-(2**63)),
                taskLink=prepared.link,
                taskHash="0x" + prepared.document.digest().hex(),
            ),
        )
        for index in range(orders)
    }

    def answer(path: str) -> Answer:
        if path.startswith("/v1/accounts/"):
            stakes = [stake("provider", 10**30)]
            return 200, json.dumps({"stakes": stakes}).encode()
        if path == "/v1/parameters":
            return 200, json.dumps({name: str(value) for name, value in DEFAULTS.values}).encode()
        if path.startswith("/v1/orders?"):
            return 200, json.dumps({"orders": list(details.values())}).encode()
        return 200, json.dumps(details[path.removeprefix("/v1/orders/")]).encode()

    def post(body: bytes) -> Answer:
        if stands.silent:
            stands.turned_away += 1
            return 503, b"{}"
        stands.claims.append(json.loads(body))
        return 200, b'{"status": "accepted"}'

    with serving(answer, post) as url:
        stands = Ledger(chainless_network(url), prepared.document, details)
        yield stands
    gateway.stop()
    client.network.close()
