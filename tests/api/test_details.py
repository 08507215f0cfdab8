"""Whatever happens in an order, the API's answer about it fits the schema and can be read by who asked."""

from __future__ import annotations

import json

from aggregator.api import schema, views
from offchain.answers import OpenOrder, OrderView, read
from tests.ledger.driver import Driver

SEEDS, STEPS = 4, 150
LISTS = ("claims", "validations", "challenges", "reports", "disputes", "appeals")


def test_orders_of_random_lives_fit_the_schema_and_the_readers() -> None:
    seen = dict.fromkeys(LISTS, 0)
    for seed in range(SEEDS):
        life = Driver(seed)
        for _ in range(STEPS):
            life.step()
            for entry in life.world.state.table.values():
                detail = json.loads(json.dumps(views.order_detail(entry)))
                schema.OrderDetail.model_validate(detail)
                schema.OrderSummary.model_validate(views.order_summary(entry))
                running = entry.outcome is None and entry.order.kind == "open"
                order = read("an order", OpenOrder if running else OrderView, detail)
                assert order.oid == detail["oid"] and len(order.claims) == len(detail.get("claims", ()))
                for name in seen:
                    seen[name] += len(detail.get(name, ()))
    assert all(seen.values()), f"lives in which something never happens show nothing of it: {seen}"
