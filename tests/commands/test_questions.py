"""`dtn orders`, `order`, `account`, `nodes`: what they show of a real aggregator, and of one that lies."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dtn.app import app
from dtn.output import short
from offchain.network import NetworkError
from protocol.roles import Role
from tests.answers import OID, Json, account, open_order, seat, stake
from tests.api.network import Network, running
from tests.chain import chainless_network
from tests.ledger.world import who
from tests.page.stage import people, whole_order
from tests.scripts.serving import Answer, serving


def asked(folder: Path, url: str, *command: str) -> Result:
    """What a command says of a network of one aggregator."""
    path = folder / "network.json"
    path.write_text(chainless_network(url).model_dump_json())
    return CliRunner().invoke(app, [*command, "--network", str(path)])


def beside(folder: Path, prepare: Callable[[Network], Any], look: Callable[[str, str], Any]) -> Any:
    """What ``look`` gives of a real aggregator's URL and of what ``prepare`` did to it."""

    async def whole() -> Any:
        async with running(folder) as net, net.served() as url:
            made = await prepare(net)
            return await asyncio.to_thread(look, url, made)

    return asyncio.run(whole())


def test_a_whole_order_is_shown_with_all_that_was_done_in_it(tmp_path: Path) -> None:
    async def order(net: Network) -> str:
        await people(net, "http://127.0.0.1:1")
        return await whole_order(net)

    def look(url: str, oid: str) -> dict[str, str]:
        commands = {
            "order": ("order", oid),
            "json": ("order", oid, "--json"),
            "orders": ("orders",),
            "account": ("account", "0x" + who("provider0").hex()),
            "nodes": ("nodes",),
        }
        done = {name: asked(tmp_path, url, *command) for name, command in commands.items()}
        for each in done.values():
            assert each.exit_code == 0, each.output
        return {name: each.output for name, each in done.items()} | {"oid": oid}

    shown = beside(tmp_path, order, look)
    detail = json.loads(shown["json"])
    assert detail["oid"] == shown["oid"] and f"order {shown['oid']}" in shown["order"]
    for phase in detail["phases"]:
        assert phase["phase"] in shown["order"]
    for name in ("claims", "validations", "receipts"):
        assert detail[name] and name in shown["order"]
    assert detail["winner"] in shown["order"] and detail["settlement"]["tx"] in shown["order"]
    assert shown["oid"] in shown["orders"] and "won" in shown["orders"]
    assert "provider" in shown["account"] and shown["oid"][:12] in shown["account"]
    assert "0x" + who("provider0").hex() in shown["nodes"]


def test_what_a_stranger_calls_an_order_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    async def order(net: Network) -> str:
        return "0x" + (await net.place(kind="[red]\x1b[2J")).hex()

    def look(url: str, oid: str) -> list[str]:
        return [asked(tmp_path, url, *command).output for command in (("orders",), ("order", oid))]

    for text in beside(tmp_path, order, look):
        assert "[red]\N{REPLACEMENT CHARACTER}[2J" in text and "\x1b" not in text


ACCOUNT = account("alice")
MID, VID = "0x" + "ab" * 32, "0x" + "cd" * 32
SCORED = {"score": "950000", "digest": VID}
QUARRELS = {
    "challenges": [{"vid": VID, "challenger": ACCOUNT, "cStakeWei": str(3 * 10**18), **SCORED}],
    "reports": [
        {"id": VID, "subject": MID, "of": "model", "reporter": ACCOUNT, "stakeWei": str(4 * 10**18)},
    ],
    "disputes": [
        {"mid": MID, "of": "model", "round": 3, "open": False, "verdict": SCORED}
        | {"jurors": [seat(ACCOUNT), seat(account("bob")) | {"committed": True}]},
    ],
    "appeals": [{"subject": MID, "of": "model", "appellant": ACCOUNT, "bondWei": str(5 * 10**18)}],
}


def test_quarrels_are_shown_by_whom_about_what_and_how_they_ended(tmp_path: Path) -> None:
    detail = json.dumps(open_order(**QUARRELS)).encode()
    with serving(lambda _: (200, detail)) as url:
        done = asked(tmp_path, url, "order", OID)
    assert done.exit_code == 0, done.output
    rows = [re.findall(r"[^│┃\s][^│┃]*[^│┃\s]|[^│┃\s]", line) for line in done.output.splitlines()]
    assert [ACCOUNT, short(VID), "0.950000", "3"] in rows
    assert [ACCOUNT, "model", short(MID), "4"] in rows
    assert ["model", short(MID), "appeal", "1 of 2", "0.950000"] in rows
    assert [ACCOUNT, "model", short(MID), "5"] in rows


NODE = {"account": ACCOUNT, "endpoint": "", "stakes": [stake(Role.PROVIDER.name.lower(), 5)]}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("orders",), {}),
        (("orders",), {"orders": [open_order(rewardWei=[])]}),
        (("order", OID), {}),
        (("order", OID), open_order(phases=[{"phase": "training"}])),
        (("order", OID), open_order(reports=[{"subject": OID}])),
        (("order", OID, "--json"), open_order(oid="0x" + "77" * 32)),
        (("account", ACCOUNT), {"account": ACCOUNT}),
        (("account", ACCOUNT), {"account": ACCOUNT, "stakes": [{"role": "provider"}]}),
        (("nodes",), {"nodes": [NODE | {"stakes": [{}]}], "next": None}),
        (("nodes",), {"nodes": [NODE | {"endpoint": 5}], "next": None}),
    ],
)
def test_an_answer_that_cannot_be_read_is_said_to_be_one(
    tmp_path: Path, command: tuple[str, ...], said: Json
) -> None:
    def answer(_: str) -> Answer:
        return 200, json.dumps(said).encode()

    with serving(answer) as url:
        done = asked(tmp_path, url, *command)
    assert isinstance(done.exception, NetworkError) and done.exit_code == 1
    assert "cannot be read" in str(done.exception) or "tells of another" in str(done.exception)
