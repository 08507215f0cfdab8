"""`dtn top` over a real aggregator: complete, bounded, and unharmed by hostile strings and dead members."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dtn.app import app
from dtn.output import plain
from dtn.overview import Overview, draw
from offchain.network import NetworkError, NetworkFile
from protocol.chain.deployment import AddressBook
from tests.api.network import Network, running
from tests.api.test_api import hexed
from tests.scripts.serving import serving

Json = dict[str, Any]
ADDRESS = "0x" + "11" * 20
BOOK = dict.fromkeys(
    ("parameters", "token", "registry", "orders", "committee", "settlement", "treasury"), ADDRESS
)


def network_file(folder: Path, *urls: str) -> Path:
    """A network file that names these aggregators."""
    book = AddressBook.model_validate({"chain_id": 31337, "block": 1, **BOOK})
    path = folder / "network.json"
    file = NetworkFile(rpc_url="http://127.0.0.1:1", address_book=book, aggregators=urls)
    path.write_text(file.model_dump_json())
    return path


def shown(folder: Path, look: Callable[[str], Any], prepare: Callable[[Network], Any]) -> Any:
    """What ``look`` gives of an aggregator's URL, run beside the aggregator."""

    async def whole() -> Any:
        async with running(folder) as net, net.served() as url:
            await prepare(net)
            return await asyncio.to_thread(look, url)

    return asyncio.run(whole())


async def two_orders(net: Network) -> None:
    """A plain order and one with a hostile kind."""
    await net.place()
    await net.place(kind="[red]\x1b[2J")


def test_one_look_shows_committee_and_orders(tmp_path: Path) -> None:
    def look(url: str) -> str:
        path = network_file(tmp_path, url, "http://127.0.0.1:9")
        done = CliRunner().invoke(app, ["top", "--once", "--network", str(path)])
        assert done.exit_code == 0, done.output
        return done.output

    text = shown(tmp_path, look, two_orders)
    assert "1 of 2 aggregators answer" in text and "down" in text and "well" in text
    assert "training" in text and "sealed" in text


def test_machines_get_one_json_value(tmp_path: Path) -> None:
    def look(url: str) -> Any:
        path = network_file(tmp_path, url)
        done = CliRunner().invoke(app, ["top", "--json", "--network", str(path)])
        return json.loads(done.output)

    seen = shown(tmp_path, look, two_orders)
    assert [each["answers"] for each in seen["aggregators"]] == [True]
    assert {order["phase"] for order in seen["orders"]} == {"training", "sealed"}


def test_a_screen_holds_no_more_orders_than_fit_and_no_control_characters(tmp_path: Path) -> None:
    async def many(net: Network) -> None:
        for _ in range(6):
            await net.place()
        await net.place(kind="[red]\x1b[2J", reward=10**21)

    def look(url: str) -> str:
        overview = Overview(NetworkFile.read(network_file(tmp_path, url)))
        screen = io.StringIO()
        Console(file=screen, width=200, force_terminal=False).print(draw(overview.look(3), 3))
        overview.close()
        return screen.getvalue()

    text = shown(tmp_path, look, many)
    assert text.count("training") == 2 and "\x1b" not in text
    assert "[red]" in text, "what a stranger wrote is shown as it is, not obeyed"


def test_when_nobody_answers_the_command_says_so(tmp_path: Path) -> None:
    path = network_file(tmp_path, "http://127.0.0.1:9")
    done = CliRunner().invoke(app, ["top", "--once", "--network", str(path)])
    assert done.exit_code == 1 and "0 of 1" in done.output


STATUS: Json = {
    **dict.fromkeys(("member", "view", "primary", "executed", "stable", "waiting", "orders", "clockMs"), 1),
    "active": True,
    "origin": None,
    "alarms": [],
}


@pytest.mark.parametrize("command", [["top", "--once"], ["status"]])
@pytest.mark.parametrize(
    "lie",
    [{"executed": "9"}, {"alarms": 5}, {"clockMs": None}, {"view": [1]}, {"active": {}}, {"primary": ""}],
)
def test_a_member_whose_status_is_none_is_shown_as_down(
    tmp_path: Path, lie: Json, command: list[str]
) -> None:
    def answer(path: str, of: Json) -> tuple[int, bytes]:
        lists = {"orders": [], "settlements": []}
        return 200, json.dumps(of if path.startswith("/v1/status") else lists).encode()

    with (
        serving(lambda path: answer(path, STATUS)) as well,
        serving(lambda p: answer(p, STATUS | lie)) as ill,
    ):
        done = CliRunner().invoke(app, [*command, "--network", str(network_file(tmp_path, ill, well))])
    assert done.exit_code == 0, done.output
    assert "down" in done.output


@pytest.mark.parametrize("lie", [{}, {"orders": 5}, {"orders": [{}]}, {"orders": [7]}, {"settlements": [[]]}])
def test_lists_that_are_none_are_an_error(tmp_path: Path, lie: Json) -> None:
    def answer(path: str) -> tuple[int, bytes]:
        lists = {"orders": [], "settlements": []} | lie if lie else {}
        return 200, json.dumps(STATUS if path.startswith("/v1/status") else lists).encode()

    with serving(answer) as liar:
        path = network_file(tmp_path, liar)
        done = CliRunner().invoke(app, ["top", "--once", "--network", str(path)])
    assert isinstance(done.exception, NetworkError) and "an aggregator's answer" in str(done.exception)


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\u202egpj.exe", "\x07"])
def test_what_a_terminal_would_obey_is_replaced(text: str) -> None:
    assert all(char.isprintable() for char in plain(text).plain)


def test_an_oid_is_shown_far_enough_to_be_told_apart(tmp_path: Path) -> None:
    async def one(net: Network) -> str:
        nonlocal oid
        oid = hexed(await net.place())
        return oid

    oid = ""

    def look(url: str) -> str:
        done = CliRunner().invoke(app, ["top", "--once", "--network", str(network_file(tmp_path, url))])
        return done.output

    assert oid[:18] in shown(tmp_path, look, one)
