"""The client's daemon: publishes training data, releases the test set when training closes.

It reads the records that `Client.put` wrote and takes in its account's orders for tasks that `Client.prepare`
prepared. So it may be started before or after Put and restarted at any time; what it has done shows on the
ledger.

Source: PoT 2.4 (t3, the release of D_test); PAI 4.2.2 (training fragments follow from a later block).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from typing import Any, Final

from offchain.actor import Actor
from offchain.answers import Orders, fetch_detail, read
from offchain.client.orders import OrderRecord, OrderRecords
from offchain.client.webhooks import Webhooks, read_secret
from offchain.config import ClientConfig
from offchain.material import unhex
from offchain.network import NotFound
from offchain.storage import Cid
from offchain.storage.unixfs import build
from protocol import tracing
from protocol.task import TaskDocument, test_indices, train_indices
from protocol.transactions import TestRelease

log = logging.getLogger(__name__)

Json = dict[str, Any]

MAX_PHASES: Final = 100
"""An order has a dozen, a few more with appeals; an aggregator may say anything."""
SETTLED: Final = 1_000
"""The place of "settled" among an order's phases: after all others, however many they are."""
MAX_LISTED: Final = 500
"""As many of its own orders as one question to an aggregator may list; running ones come first."""


def files_of(document: TaskDocument) -> list[Cid]:
    """The files in the store that an order for a task needs: the document, the data, the initial model."""
    root, _ = build(document.canonical())
    named = [fragment.cid for fragment in document.data.fragments]
    if document.initial_parameters is not None:
        named.append(document.initial_parameters.cid)
    return [root, *map(Cid.parse, named)]


def trace_order(oid: bytes, detail: Json) -> None:
    """The root of the order's trace: its life from its taking in until now, when its outcome is fixed."""
    phases = detail["phases"][:MAX_PHASES]
    if phases:
        tracing.record(
            f"order {detail['kind']}",
            oid,
            int(phases[0]["atMs"]),
            root=True,
            result=str(detail["result"]),
            winner=str(detail["winner"]),
        )


class ClientDaemon(Actor):
    """Looks after all orders in the client's data folder."""

    config: ClientConfig
    commits = False

    def __init__(self, config: ClientConfig) -> None:
        super().__init__(config)
        self.records = OrderRecords(config.data_dir)
        self._of_others: set[bytes] = set()
        """Orders of this account whose data is not held here: there is nothing to do for them."""
        self.webhooks: Webhooks | None = None
        if config.webhook_url is not None and config.webhook_secret_file is not None:
            secret = read_secret(config.webhook_secret_file)
            self.webhooks = Webhooks(config.webhook_url, secret, config.data_dir / "webhooks")
            self.webhooks.start()

    def close(self) -> None:
        if self.webhooks is not None:
            self.webhooks.stop()
        super().close()

    def act(self) -> None:
        self.adopt(self.records.all())
        for oid, record in self.records.all().items():
            if not record.finished:
                self.attempt(f"order 0x{oid.hex()}", self.look_after, oid, record)
            elif self.webhooks is not None and 0 < record.told < SETTLED:
                self.attempt(f"order 0x{oid.hex()}", self.tell_settled, oid, record)
        self.attempt("dropping what is no longer needed", self.drop_settled)

    def forget_order(self, oid: str) -> None:
        """That its task is prepared too: another order for it could not be served any more."""
        record = self.records.all().get(unhex(oid))
        if record is not None:
            self.records.drop_prepared(record.document())

    def adopt(self, known: Collection[bytes]) -> None:
        """Take in the orders that a wallet placed for tasks prepared here."""
        mine = self.network.get("/v1/orders", client=self.me, limit=MAX_LISTED)
        for listed in read("orders", Orders, mine).orders:
            oid = unhex(listed.oid)
            if oid in known or oid in self._of_others:
                continue
            detail = fetch_detail(self.network, listed.oid)
            document = self.records.prepared(unhex(detail["order"]["taskHash"]))
            if document is None:
                self._of_others.add(oid)
                continue
            self.records.write(oid, OrderRecord.of(document))
            log.info("looking after order %s, which a wallet placed", listed.oid)

    def look_after(self, oid: bytes, record: OrderRecord) -> None:
        """Do what one order needs now."""
        if not self.retention.knows("0x" + oid.hex()):
            self.retention.need("0x" + oid.hex(), files_of(record.document()))
        try:
            detail = fetch_detail(self.network, "0x" + oid.hex())
        except NotFound:
            return  # not confirmed yet, or never placed
        if not record.training_published:
            record = self.publish_training(oid, record, detail)
        if detail["phase"] == "reveal" and not record.test_released:
            record = self.release_test(oid, record, detail)
        elif detail["phase"] in ("sealed", "settled"):
            record = dataclasses.replace(record, finished=True)
            self.records.write(oid, record)
            log.info("order 0x%s is %s: %s", oid.hex(), detail["phase"], detail["result"])
            if tracing.enabled():
                trace_order(oid, detail)
        # Last: money hangs on what is above, and nothing on this.
        if self.webhooks is not None:
            self.tell(oid, record, detail, self.webhooks)

    def publish_training(self, oid: bytes, record: OrderRecord, detail: Json) -> OrderRecord:
        """Publish the fragments that the order's block did not pick for testing."""
        document = record.document()
        with tracing.span("publish training data", oid):
            for index in train_indices(document.data, unhex(detail["blockHash"])):
                self.store.publish(Cid.parse(document.data.fragments[index].cid))
        record = dataclasses.replace(record, training_published=True)
        self.records.write(oid, record)
        log.info("published the training data of order 0x%s", oid.hex())
        return record

    def release_test(self, oid: bytes, record: OrderRecord, detail: Json) -> OrderRecord:
        """Publish the test fragments and say so on the ledger (t3)."""
        document = record.document()
        for index in test_indices(document.data, unhex(detail["blockHash"])):
            self.store.publish(Cid.parse(document.data.fragments[index].cid))
        if detail["testLinks"] is None:
            self.network.submit(
                TestRelease, oid=oid, fragments=document.fragment_digests(), links=(self.url,)
            )
            log.info("released the test set of order 0x%s", oid.hex())
        record = dataclasses.replace(record, test_released=True)
        self.records.write(oid, record)
        return record

    def tell(self, oid: bytes, record: OrderRecord, detail: Json, webhooks: Webhooks) -> None:
        """Have the webhook's receiver told of the phases that it was not told of yet."""
        phases = detail["phases"][:MAX_PHASES]
        if record.told >= len(phases):
            return
        outcome = {name: detail[name] for name in ("result", "winner", "score")}
        for place in range(record.told, len(phases)):
            phase = phases[place]["phase"]
            data = {"phase": phase, "atMs": phases[place]["atMs"]}
            webhooks.tell("order.phase", detail["oid"], place, data | (outcome if phase == "sealed" else {}))
        if phases[-1]["phase"] == "sealed" and detail["winner"] is not None:
            webhooks.tell("order.model_ready", detail["oid"], len(phases), outcome)
        self.records.write(oid, dataclasses.replace(record, told=len(phases)))

    def tell_settled(self, oid: bytes, record: OrderRecord) -> None:
        """Have the webhook's receiver told that an order is settled, once it is."""
        assert self.webhooks is not None, "asked with webhooks only"
        detail = fetch_detail(self.network, "0x" + oid.hex())
        if detail["phase"] == "settled":
            settlement = {name: detail["settlement"][name] for name in ("epoch", "tx", "atMs")}
            self.webhooks.tell("order.phase", detail["oid"], SETTLED, {"phase": "settled", **settlement})
            self.records.write(oid, dataclasses.replace(record, told=SETTLED))
