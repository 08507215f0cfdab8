"""The OpenAPI schema is true: whatever is asked, no answer breaks it and nothing ends in a server error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from protocol.transactions import Cancel, Claim
from tests.api.network import Network, running
from tests.api.test_api import hexed, run
from tests.ledger.world import who

EXAMPLES = 12
"""Requests per operation: enough to find what is wrong everywhere, few enough for every run."""


@schemathesis.serializer("application/msgpack")
def as_it_is(_: Any, value: Any) -> bytes:
    """A body of bytes; what else is generated becomes text."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


class Loop:
    """An aggregator whose event loop turns only while it is asked something."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.context = running(folder)
        self.net: Network = self.runner.run(self.context.__aenter__())
        self.runner.run(self.fill())

    async def fill(self) -> None:
        """Something of everything to show."""
        net = self.net
        cancelled = await net.place()
        await net.send("client", Cancel, oid=cancelled)
        await net.settle()
        self.oid = await net.place()
        await net.send("provider0", Claim, oid=self.oid, commitment=bytes(32))
        await net.place(kind="alchemy")
        while net.node.replica.low == 0:
            await net.place()

    def close(self) -> None:
        """End it."""
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """One aggregator for all requests."""
    made = Loop(tmp_path_factory.mktemp("api"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def operations(loop: Loop) -> list[Any]:
    """Every operation that the schema names, but the stream, which does not end."""
    document = loop.runner.run(loop.net.get("/openapi.json"))
    found = [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]
    return [each for each in found if each.path != "/v1/events"]


def test_no_request_ends_in_a_server_error_or_an_answer_that_breaks_the_schema(
    loop: Loop, operations: list[Any]
) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance]
    checks.append(response_schema_conformance)
    assert len(operations) >= 18
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
        def ask(case: Any) -> None:
            request = case.as_transport_kwargs(base_url="http://aggregator")
            query = {name: value for name, value in (request.get("params") or {}).items() if value != ""}
            query.pop("wait_s", None)  # an order that never comes would be waited for

            async def send() -> httpx.Response:
                return await loop.net.http.request(
                    request["method"],
                    request["url"],
                    params=query,
                    headers={k: v for k, v in dict(request.get("headers") or {}).items() if v.isascii()},
                    json=request.get("json"),
                    content=request.get("data"),
                )

            answer = loop.runner.run(send())
            case.validate_response(schemathesis.Response.from_httpx(answer, verify=False), checks=checks)

        ask()


def test_what_is_shown_fits_the_schema(loop: Loop, operations: list[Any]) -> None:
    """Generated ids are of nothing: here the same checks for what is there."""
    by_path = {each.path: each for each in operations if each.method.upper() == "GET"}
    ids = {"oid": hexed(loop.oid), "account": hexed(who("client")), "section": "nodes"}
    ids["key"] = hexed(who("provider0"))
    asked = 0
    for path, operation in by_path.items():
        if "{tx_id}" in path or path.endswith(("/model", "{oid}/receipts")):
            continue
        answer = loop.runner.run(loop.net.http.get(path.format(**ids)))
        assert answer.status_code == 200, (path, answer.text)
        operation.validate_response(schemathesis.Response.from_httpx(answer, verify=False))
        asked += 1
    assert asked >= 13


def test_the_schema_names_every_route_and_no_422(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        document = await net.get("/openapi.json")
        assert "/v1/events" in document["paths"]
        assert all(
            "422" not in operation["responses"]
            for path in document["paths"].values()
            for operation in path.values()
        )

    run(tmp_path, scenario)
