"""A stranger's hour: every command of docs/tutorial.md, in its order, in a shell of its own.

Install and browser are not here: `.ci/run` installs in a fresh clone, tests/page drives a browser.
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
    return "".join(map(stranger.run, blocks))


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


def test_a_killed_aggregator_and_a_full_disk_stop_nobody_else(stranger: Stranger) -> None:
    before, after = dict(sections())["Bad days"]
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
