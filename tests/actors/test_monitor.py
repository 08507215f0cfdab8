"""``/metrics``, ``/healthz`` and ``/readyz`` of an actor that runs, against what its network and disk say."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from offchain.client import ClientDaemon
from offchain.config import ClientConfig, ValidatorConfig
from offchain.network import NetworkFile
from offchain.standing.monitor import STUCK_S
from offchain.validator import Validator
from protocol.crypto import Key
from protocol.keyfile import write_private
from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from protocol.version import SUPPORTED
from tests.chain import Chain, chainless_network, running_chain
from tests.scripts.serving import Answer, serving

PATIENCE_S = 60.0
LEAST = DEFAULTS["min_stake_validator_wei"]
Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Leave this process its own way to end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running_chain() as chain:
        yield chain


def ledger(stake_wei: int, credits_wei: tuple[int, ...] = (), **says: Any) -> Callable[[str], Answer]:
    """An aggregator's answers about an account with this stake as validator, on a network without orders."""
    stake = {"role": "validator", "bondedWei": str(stake_wei), "lockedWei": "0", "unbondingWei": "0"}
    listed = [{"epoch": 1 + n, "amountWei": str(wei), "proof": []} for n, wei in enumerate(credits_wei)]
    now_ms = int(time.time() * 1000)
    status = {
        "executed": 41,
        "ledgerTimeMs": now_ms,
        "clockMs": now_ms,
        "origin": 7,
        "settledEpoch": len(credits_wei),
        **says,
    }

    def answer(path: str) -> Answer:
        body: Any = {"orders": []}
        if path.endswith("/credits"):
            body = {"credits": listed, "next": None}
        elif path.startswith("/v1/accounts/"):
            body = {"stakes": [stake], "pending": [{"amountWei": str(3 * TOKEN_WEI)}]}
        elif path == "/v1/parameters":
            body = {name: str(value) for name, value in DEFAULTS.values}
        elif path == "/v1/status":
            body = status
        return 200, json.dumps(body).encode()

    return answer


def configured(folder: Path, network: NetworkFile, key: Key) -> dict[str, Any]:
    """Files of an actor whose monitor is on; what its configuration needs."""
    (folder / "network.json").write_text(network.model_dump_json())
    write_private(folder / "actor.key", key.secret.hex())
    return {
        "key_file": folder / "actor.key",
        "data_dir": folder / "data",
        "network": folder / "network.json",
        "poll_s": 0.01,
        "metrics_port": 0,
    }


def while_it_runs(actor: Validator | ClientDaemon, look: Callable[[str], None]) -> None:
    """Run an actor and look at its monitor beside it; what the look raises is raised."""
    assert actor.monitor is not None
    failures: list[BaseException] = []

    def beside() -> None:
        try:
            look(actor.monitor.url)  # type: ignore[union-attr]
        except BaseException as reason:
            failures.append(reason)
        finally:
            actor.stopping.set()

    thread = threading.Thread(target=beside)
    thread.start()
    actor.run()
    thread.join()
    if failures:
        raise failures[0]


def until(url: str, path: str, status: int, part: str = "") -> str:
    """The answer, once it has this status and says so."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = httpx.get(url + path)
            if answer.status_code == status and part in answer.text:
                return answer.text
        except httpx.ConnectError:
            pass
        assert time.monotonic() < deadline, f"{path} never answers {status} {part}"
        time.sleep(0.02)


def figures(url: str, needed: str) -> Figures:
    """All figures, once one of this name is there."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        families = text_string_to_metric_families(until(url, "/metrics", 200))
        found = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }
        if any(name == needed for name, _ in found):
            return found
        assert time.monotonic() < deadline, f"{needed} never shows"
        time.sleep(0.05)


def test_a_validator_with_stake_is_ready_and_shows_what_it_has(tmp_path: Path, chain: Chain) -> None:
    key = Key.generate()
    chain.fund(key, 9 * TOKEN_WEI)
    seen: Figures = {}

    def look(url: str) -> None:
        assert until(url, "/readyz", 200) == "ok" and until(url, "/healthz", 200) == "ok"
        seen.update(figures(url, "dtn_balance_coins"))

    with serving(ledger(LEAST, (TOKEN_WEI, 2 * TOKEN_WEI))) as aggregator:
        fields = configured(tmp_path, chain.network_file(aggregator), key)
        actor = Validator(ValidatorConfig(**fields))
        cid = actor.store.put(bytes(1000))
        while_it_runs(actor, look)
    for name, value in (
        *(("dtn_network_up", 1), ("dtn_ready", 1), ("dtn_earned_tokens", 3), ("dtn_pending_tokens", 3)),
        *(("dtn_balance_tokens", 9), ("dtn_ledger_sequence", 41), ("dtn_origin_block", 7)),
        ("dtn_chain_head_block", chain.client(key).block_number()),
    ):
        assert seen[name, ()] == value, name
    assert seen["dtn_stake_tokens", (("state", "bonded"),)] == LEAST / TOKEN_WEI
    assert seen["dtn_storage_bytes", (("kind", "private"),)] >= 1000 and cid
    assert seen["dtn_storage_bytes", (("kind", "public"),)] == 0
    assert seen["dtn_rounds_total", ()] >= 1 and seen["dtn_disk_free_bytes", ()] > 0
    (build,) = [dict(labels) for name, labels in seen if name == "dtn_build_info"]
    assert build["role"] == Role.VALIDATOR.name.lower() and build["protocol"].isdigit()
    shown = " ".join(f"{name}{labels}" for name, labels in seen)
    assert key.address.hex() not in shown, "no figure names an account"


def test_too_little_stake_is_no_reason_to_restart_but_not_ready(tmp_path: Path) -> None:
    def look(url: str) -> None:
        figures(url, "dtn_stake_tokens")
        until(url, "/readyz", 503, "are needed")
        assert until(url, "/healthz", 200) == "ok"

    with serving(ledger(LEAST - 1)) as aggregator:
        fields = configured(tmp_path, chainless_network(aggregator), Key.generate())
        while_it_runs(Validator(ValidatorConfig(**fields)), look)


def test_rules_that_it_does_not_know_are_told_once_and_it_is_not_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offchain.actor.LOOK_AT_VERSION_S", 0.0)
    coming = {"version": SUPPORTED.high + 1, "first": 700}

    def look(url: str) -> None:
        until(url, "/readyz", 503, "from batch 700 on")
        time.sleep(0.2)

    with serving(ledger(LEAST, protocolVersion=SUPPORTED.low, protocolUpgrade=coming)) as aggregator:
        fields = configured(tmp_path, chainless_network(aggregator), Key.generate())
        while_it_runs(Validator(ValidatorConfig(**fields)), look)
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1 and "upgrade" in told[0]


def test_without_a_network_it_says_so_and_counts(tmp_path: Path) -> None:
    seen: Figures = {}

    def look(url: str) -> None:
        assert until(url, "/readyz", 503)
        seen.update(figures(url, "dtn_errors_total"))

    fields = configured(tmp_path, chainless_network("http://127.0.0.1:1"), Key.generate())
    while_it_runs(ClientDaemon(ClientConfig(**fields)), look)
    assert seen["dtn_errors_total", (("error", "NetworkError"),)] >= 1
    assert not [name for name, _ in seen if name in ("dtn_earned_tokens", "dtn_chain_head_block")], (
        "what nobody could see is not shown as if it were"
    )


def test_a_loop_that_does_not_turn_is_sick(tmp_path: Path) -> None:
    fields = configured(tmp_path, chainless_network("http://127.0.0.1:1"), Key.generate())
    actor = ClientDaemon(ClientConfig(**fields))
    try:
        assert actor.monitor is not None and actor.monitor.sick() is None
        actor.monitor.loop.began_s = time.monotonic() - STUCK_S - 1
        assert "under way" in (actor.monitor.sick() or "")
    finally:
        actor.close()


def test_nothing_is_served_unless_asked_for(tmp_path: Path) -> None:
    fields = configured(tmp_path, chainless_network("http://127.0.0.1:1"), Key.generate())
    del fields["metrics_port"]
    actor = ClientDaemon(ClientConfig(**fields))
    try:
        assert actor.monitor is None
    finally:
        actor.close()
