"""A stranger's hour: every command of docs/tutorial.md, in its order, in a shell of its own.

What docs/using.md shows is run on the same network. Orders get longer windows than the page's, in which any
machine does its part, and the time of day leaps to a window's end once everybody has done his.

Installing is not here: `.ci/run` does it in a fresh clone. Where no browser is, the page is not opened.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright

from dtn.devnet import Devnet
from tests.end_to_end.driving import Driver
from tests.page.conftest import WAIT_MS, find_browser

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
PATIENCE_S = 600
Json = dict[str, Any]


class Stranger:
    """A shell that keeps its variables from one block of the page to the next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: dict[str, str] = {}
        """By heading, what its commands printed."""

    def run(self, script: str) -> str:
        """Run lines as they stand; fails at the first that fails."""
        kept = self.folder / "variables"
        kept.touch()
        done = subprocess.run(
            [
                "bash",
                "-euo",
                "pipefail",
                "-c",
                f"set -a; . {kept}; set +a\n{script}\nset | grep -E '^(OID|WINNER)=' > {kept} || true",
            ],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{ROOT / 'node_modules/.bin'}:{os.environ['PATH']}",
                "DTN_HOME": str(self.folder / "home"),
                "COLUMNS": "200",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def json(self, *words: str) -> Any:
        """What a command of the page would print for machines."""
        return json.loads(self.run(" ".join(["dtn", *words, "--json"])))


def sections() -> Iterator[tuple[str, list[str]]]:
    """Headings of the page with their blocks of commands."""
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        yield heading, re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    someone = Stranger(tmp_path_factory.mktemp("stranger"))
    try:
        yield someone
    finally:
        someone.run("dtn devnet down")


def follow(stranger: Stranger, heading: str) -> str:
    """What the commands under a heading print."""
    blocks = dict(sections())[heading]
    assert blocks, f"nothing to run under {heading!r}"
    return "".join(stranger.run(longer(block)) for block in blocks)


def longer(text: str) -> str:
    """With windows in which any machine does its part."""
    return re.sub(r"train_s: \d+", "train_s: 240", re.sub(r"validate_s: \d+", "validate_s: 120", text))


def driver_of(stranger: Stranger) -> Driver:
    return Driver(Devnet(stranger.folder / "home" / "devnet"), stranger.folder)


def test_the_page_is_run_whole() -> None:
    """No heading with commands is missing below."""
    ours = Path(__file__).read_text(encoding="utf-8")
    for heading, blocks in sections():
        assert not blocks or f'"{heading}"' in ours, heading


def test_a_network_comes_up_and_serves_its_page(stranger: Stranger) -> None:
    said = follow(stranger, "A network")
    urls = re.findall(r"^http://127\.0\.0\.1:\d+$", said, flags=re.MULTILINE)
    assert len(urls) == 4
    page = httpx.get(urls[0] + "/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")


def test_an_own_table_becomes_an_order_that_is_won(stranger: Stranger) -> None:
    assert "178" in follow(stranger, "Data")
    with driver_of(stranger).hurrying():
        said = follow(stranger, "An order")
    assert "sealed: won" in said and "settled in epoch" in said


def test_the_model_knows_the_wines(stranger: Stranger) -> None:
    follow(stranger, "The model")
    with (
        (stranger.folder / "answers.csv").open(newline="") as answers,
        (stranger.folder / "wine.csv").open(newline="") as wines,
    ):
        pairs = list(zip(csv.DictReader(answers), csv.DictReader(wines), strict=True))
    right = sum(answer["label"] == wine["grower"] for answer, wine in pairs)
    assert len(pairs) == 178 and right >= 160


def test_every_payment_is_explained(stranger: Stranger) -> None:
    follow(stranger, "Who was paid what, and why")
    (order,) = stranger.json("orders")["orders"]
    account = stranger.json("account", order["winner"])
    paid = [receipt for receipt in account["receipts"] if receipt["reason"] == "best model"]
    assert [receipt["oid"] for receipt in paid] == [order["oid"]] and all(receipt["tx"] for receipt in paid)


def test_a_browser_shows_the_order_and_explains_the_payment(stranger: Stranger) -> None:
    browser_path = find_browser()
    if browser_path is None:
        pytest.skip("no browser: install chromium (Debian: apt install chromium)")
    (order,) = stranger.json("orders")["orders"]
    file = json.loads((stranger.folder / "home" / "devnet" / "network.json").read_text(encoding="utf-8"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file["aggregators"][0] + "/")
        page.locator(f"a[href='#/orders/{order['oid']}']").first.click(timeout=WAIT_MS)
        page.get_by_role("heading", level=1, name=re.compile("^Order 0x")).wait_for(timeout=WAIT_MS)
        page.locator(f"a[href='#/accounts/{order['winner']}']").first.click(timeout=WAIT_MS)
        page.get_by_role("heading", level=1, name=re.compile("^Account 0x")).wait_for(timeout=WAIT_MS)
        why = page.get_by_role("row").filter(has_text="best model")
        why.first.wait_for(timeout=WAIT_MS)
        assert why.count() == 1 and "80" in why.inner_text()
        assert why.locator(f"a[href='#/orders/{order['oid']}']").count() == 1
        browser.close()
    assert not errors


def test_what_the_page_on_using_a_network_shows_works_on_this_one(stranger: Stranger) -> None:
    """But what starts, stops and orders, which the tutorial has; the order is placed by the page's Python."""
    text = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
    commands = text.partition("```sh\n")[2].partition("```")[0]
    (order,) = stranger.json("orders")["orders"]
    run = 0
    for line in commands.splitlines():
        if re.match(r"dtn (devnet (up|down)|put .*--reward)", line):
            continue
        for word, value in {
            "OID": order["oid"],
            "ADDRESS": order["winner"],
            "examples/": f"{ROOT}/examples/",
        }.items():
            line = line.replace(word, value)
        stranger.run(line)
        run += 1
    assert run >= 9
    task = (ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8")
    (stranger.folder / "examples").mkdir()
    (stranger.folder / "examples" / "digits.yaml").write_text(longer(task), encoding="utf-8")
    program = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)[0]
    (stranger.folder / "using.py").write_text(program, encoding="utf-8")
    with driver_of(stranger).hurrying():
        said = stranger.run("python using.py")
    assert "sealed: won" in said and re.search(r"\d+ bytes by 0x[0-9a-f]{40} with score \d+ of 1000000", said)


def test_a_killed_aggregator_and_a_full_disk_stop_nobody_else(stranger: Stranger) -> None:
    before, after = dict(sections())["Bad days"]
    driver = driver_of(stranger)

    def trained(detail: Json) -> bool:
        return bool(detail["claims"]) and "is given up" in driver.devnet.children.tail("provider-2", 10)

    with driver.hurrying(trained):
        said = stranger.run(before)
    assert "sealed: won" in said and "settled in epoch" in said
    accounts = {child["account"]: child["name"] for child in stranger.json("devnet", "status")}
    assert "aggregator-2" not in accounts.values()
    latest = max(stranger.json("orders")["orders"], key=lambda order: int(order["takenMs"]))
    order = stranger.json("order", latest["oid"])
    assert [accounts[claim["provider"]] for claim in order["claims"]] == ["provider-1"]
    assert accounts[order["winner"]] == "provider-1"
    assert re.search(rf"order {latest['oid']} is given up: .*File too large; (is there|free) ", said)
    said = stranger.run(after)
    assert said.count("aggregator-2 runs") == said.count("provider-2 runs") == 1
