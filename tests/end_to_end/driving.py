"""Driving a local network of real processes from a test: put orders, wait, kill, look.

Windows of orders are long enough for any machine. Once everybody has done his part in one, the time of day
leaps to its end, for all processes at once and for the chain.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from dtn.commands.orders import gateway_of
from dtn.devnet import Devnet
from offchain.client import Client, PlacedOrder, read_task_file
from offchain.config import ClientConfig
from offchain.network import LedgerRefused, Network, NetworkError, NotFound
from protocol.parameters import TOKEN_WEI
from tests.end_to_end.ahead.sitecustomize import FILE, NANOSECONDS

Json = dict[str, Any]

REWARD_WEI: Final = 100 * TOKEN_WEI
PATIENCE_S: Final = 180.0
"""A generous bound on any one wait: reached only when something hangs."""
LOGS: Final = "logs of the processes"
LAST_S: Final = {"training": 3.5}
"""What is left of a phase after a leap: in training, the provider's margin, so that it stops by itself."""
OTHERWISE_LAST_S: Final = 0.5

TASK: Final = """
title: digits for a test
model: {{family: {family}, hidden: [32]}}
data: {{dataset: digits}}
metric: accuracy
windows: {{train_s: {train_s}, validate_s: {validate_s}, challenge_s: {challenge_s}}}
test: {{fragments: 3, of: 12}}
baseline: 0.5
"""

Condition = Callable[[], Any]


def until(what: str, condition: Condition, devnet: Devnet | None = None) -> Any:
    """What ``condition`` returns once it is true; fails with ``what`` when it never is."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.2)
    told = ""
    if devnet is not None:
        told = ends_of(sorted((devnet.folder / "logs").glob("*")), 15)
    raise AssertionError(f"waited in vain until {what}\n{LOGS}\n{told}")


def ends_of(logs: Iterable[Path], lines: int) -> str:
    """The last lines of each log."""
    return "\n".join(
        "\n".join([f"--- {log}", *log.read_text(errors="replace").splitlines()[-lines:]]) for log in logs
    )


class Driver:
    """One running local network and its client."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        self.devnet = devnet
        self.folder = folder
        self.config = ClientConfig.read(devnet.config("client"))
        self.client = Client(devnet.network(), self.config.key(), self.config.data_dir)
        self.network = Network(devnet.network())
        self._chain_behind_s = 0

    def task(
        self, *, train_s: int = 240, validate_s: int = 120, challenge_s: int = 6, family: str = "mlp"
    ) -> Path:
        """A task file."""
        path = self.folder / f"task-{time.monotonic_ns()}.yaml"
        path.write_text(
            TASK.format(train_s=train_s, validate_s=validate_s, challenge_s=challenge_s, family=family)
        )
        return path

    def leap(self, seconds: float) -> None:
        """The time of day leaps, for every process of the test at once; for the chain once it runs."""
        with open(os.environ[FILE], "r+b") as file:
            (ahead_ns,) = NANOSECONDS.unpack(file.read())
            file.seek(0)
            file.write(NANOSECONDS.pack(ahead_ns + int(seconds * 1e9)))
        self._chain_behind_s += math.ceil(seconds)
        chain = self.devnet.children.all()["chain"].find()
        if chain is not None and chain.status() != psutil.STATUS_STOPPED:
            self.let_chain_time_pass(self._chain_behind_s)
            self._chain_behind_s = 0

    def let_chain_time_pass(self, seconds: int) -> None:
        """The chain's clock leaps, so that votes end sooner; the ledger keeps its own time."""
        provider: Any = self.devnet.chain("treasury").web3.provider
        answer = provider.make_request("evm_increaseTime", [seconds])
        assert "error" not in answer, answer

    def put(self, **windows: Any) -> str:
        """Place an order; returns its OID in hex."""
        return "0x" + self.place(**windows).oid.hex()

    def place(self, **windows: Any) -> PlacedOrder:
        return self.client.put(
            read_task_file(self.task(**windows)), reward_wei=REWARD_WEI, gateway=gateway_of(self.config)
        )

    def order(self, oid: str) -> Json | None:
        """An order's detail; none while the ledger does not know it or nobody answers."""
        try:
            return dict(self.network.get(f"/v1/orders/{oid}"))
        except (NotFound, NetworkError, LedgerRefused):
            return None

    def in_phase(self, oid: str, *phases: str) -> Json:
        """Wait until an order is in one of these phases; time leaps when all have done their part."""

        def reached() -> Json | None:
            detail = self.order(oid)
            if detail is None or detail["phase"] in phases:
                return detail
            self._pass_time(self._all_claimed)
            return None

        return dict(until(f"order {oid} is in phase {phases}", reached, self.devnet))

    def claimed(self, oid: str, count: int) -> Json:
        """Wait until an order has this many claims."""

        def enough() -> Json | None:
            detail = self.order(oid)
            return detail if detail is not None and len(detail["claims"]) >= count else None

        return dict(until(f"order {oid} has {count} claims", enough, self.devnet))

    def settled(self, oid: str) -> Json:
        """Wait until an order is settled on the chain."""
        return self.in_phase(oid, "settled")

    @contextmanager
    def hurrying(self, trained: Callable[[Json], bool] | None = None) -> Iterator[None]:
        """Let time leap while a block of code waits for an order by other means.

        ``trained`` says of an order whether all have claimed who will; if not given, all running providers.
        """
        over = threading.Event()

        def hurry() -> None:
            while not over.wait(0.3):
                self._pass_time(trained or self._all_claimed)

        thread = threading.Thread(target=hurry)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def leap_to_end(self, oid: str) -> None:
        """Leap to the end of the phase that an order is in, though somebody has not done his part."""
        detail = until(f"order {oid} is known", lambda: self.order(oid), self.devnet)
        self.leap(detail["deadlineMs"] / 1000 - time.time() - OTHERWISE_LAST_S)

    def _pass_time(self, trained: Callable[[Json], bool]) -> None:
        """Leap to the next end of a phase, if nobody has anything to do before."""
        if FILE not in os.environ:
            return
        try:
            orders = self.network.get("/v1/orders")["orders"]
        except (NetworkError, LedgerRefused):
            return
        found = [self.order(each["oid"]) for each in orders if each["phase"] != "settled"]
        details = [detail for detail in found if detail is not None and self._all_done(detail, trained)]
        if not details or len(details) < len(found) or self._transactions_wait():
            return
        left_s = min(
            detail["deadlineMs"] / 1000 - time.time() - LAST_S.get(detail["phase"], OTHERWISE_LAST_S)
            for detail in details
        )
        if left_s > OTHERWISE_LAST_S:
            self.leap(left_s)

    def _transactions_wait(self) -> bool:
        """Whether somebody would find, after a leap, that the primary has left transactions lying."""
        count = len(self.devnet.network().aggregators)
        found = [self.status(f"aggregator-{number}") for number in range(1, count + 1)]
        return any(status is not None and status["waiting"] > 0 for status in found)

    def _all_done(self, detail: Json, trained: Callable[[Json], bool]) -> bool:
        """Whether all who are running have done what they do in the phase that an order is in."""
        match detail["phase"]:
            case "training":
                return trained(detail)
            case "validation":
                reported = {report["subject"] for report in detail["reports"]}
                models = {claim["mid"] for claim in detail["claims"]} - {None} - reported
                if detail["order"]["dataRoot"] in reported:
                    return True
                return len(detail["validations"]) >= self._running("validator") * len(models)
            case "challenge":
                return not self._running("verifier")  # those who find nothing wrong say nothing
        return False

    def _all_claimed(self, detail: Json) -> bool:
        return len(detail["claims"]) >= self._running("provider")

    def _running(self, role: str) -> int:
        children = self.devnet.children.all().items()
        return sum(name.startswith(f"{role}-") and child.find() is not None for name, child in children)

    def status(self, name: str) -> Json | None:
        """What one aggregator says of itself; none while it is down."""
        file = self.devnet.network()
        url = file.aggregators[int(name.removeprefix("aggregator-")) - 1]
        try:
            return dict(Network(file.model_copy(update={"aggregators": (url,)})).get("/v1/status"))
        except NetworkError:
            return None

    def aggregator_of(self, member: int) -> str:
        """Process name of the committee member with this index."""
        accounts = self.devnet.names()
        members = until(
            "an aggregator answers", lambda: self.status("aggregator-1") or self.status("aggregator-2")
        )
        return accounts[members["members"][member]]

    def name_of(self, account: str) -> str:
        """Process name of an account."""
        return self.devnet.names()[account]

    def balance(self, name: str) -> int:
        """Token balance on the chain, in wei."""
        return self.devnet.chain("client").balance_of(self.devnet.key(name).address)


def amounts(detail: Json, role: str, reason: str = "") -> dict[str, int]:
    """Receipts of one role whose reason contains ``reason``: account to wei."""
    found: dict[str, int] = {}
    for receipt in detail["receipts"]:
        if receipt["role"] == role and reason in receipt["reason"]:
            found[receipt["account"]] = found.get(receipt["account"], 0) + int(receipt["amountWei"])
    return found


def conserved(detail: Json) -> bool:
    """Whether an order's receipts add up to what came in."""
    came_in = int(detail["order"]["reward"]) + int(detail["order"]["deposit"])
    return sum(int(receipt["amountWei"]) for receipt in detail["receipts"]) == came_in


def dtn(*arguments: str, home: Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "dtn", *arguments],
        env={**os.environ, "DTN_HOME": str(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def dtn_json(*arguments: str, home: Path) -> Any:
    """The JSON a command prints; fails with what it said if it fails."""
    done = dtn(*arguments, "--json", home=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
