"""``dtn doctor``: each thing that can be wrong with a node is found, with what to do; healthy nodes pass."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.links.keys import LinkKey
from dtn.configuration import RoleName
from dtn.devnet.ports import free_port
from dtn.doctor import Finding, diagnose
from dtn.doctor.machine import check_devices, check_disk
from dtn.doctor.network import (
    Answer,
    NetworkOf,
    Status,
    UpgradeOf,
    ask_all,
    check_agreement,
    check_clock,
    check_protocol,
)
from offchain.storage import EmbeddedStore, Gateway
from protocol.crypto import Key
from protocol.keyfile import write_private
from protocol.parameters import DEFAULTS, TOKEN_WEI
from protocol.roles import Role
from protocol.version import Versions
from tests.api.network import running
from tests.chain import Chain, running_chain

MEMBERS = sorted((Key((index + 1).to_bytes(32, "big")) for index in range(4)), key=lambda key: key.address)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running_chain() as chain:
        yield chain


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def node(folder: Path, chain: Chain, role: RoleName, key: Key, **settings: Any) -> Path:
    """The files of a node that does not run; its configuration."""
    folder.mkdir(exist_ok=True)
    write_private(folder / "my.key", key.secret.hex(), replace=True)
    chain.book.write(folder / "addresses.json")
    network = chain.network_file(*settings.pop("aggregators", ["http://127.0.0.1:1"]))
    (folder / "network.json").write_text(network.model_dump_json())
    fields: dict[str, Any] = {"key_file": "my.key", "data_dir": "data"}
    if role == "aggregator":
        link = f"tcp://127.0.0.1:{free_port()}"
        fields |= {"rpc_url": network.rpc_url, "address_book": "addresses.json", "link_listen": link}
        fields |= {"api_port": free_port()}
    else:
        fields |= {"network": "network.json", "gateway_port": free_port()}
    path = folder / f"{role}.toml"
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in (fields | settings).items()]
    path.write_text("".join(lines))
    return path


def found(role: RoleName, path: Path) -> dict[str, Finding]:
    """All findings by what they are about; every one that is not ok says what to do."""
    findings = {finding.check: finding for finding in diagnose(role, path)}
    for finding in findings.values():
        assert finding.what and bool(finding.do) == (finding.verdict in ("warning", "failed")), finding
    return findings


def verdicts(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.verdict for name, finding in findings.items()}


def staked(
    chain: Chain, role: Role, endpoint: str = "", link_key: bytes = bytes(32), key: Key | None = None
) -> Key:
    """An account with the stake that the role needs."""
    key = key or Key.generate()
    need = DEFAULTS[role.parameter]
    chain.fund(key, 2 * need).register(role, need, endpoint, link_key)
    return key


def test_a_provider_that_lacks_nothing_but_a_network(tmp_path: Path, chain: Chain) -> None:
    chain.mine()
    findings = found("provider", node(tmp_path, chain, "provider", staked(chain, Role.PROVIDER)))
    seen = verdicts(findings)
    assert seen.pop("aggregators") == "failed" and "127.0.0.1:1" in findings["aggregators"].what
    assert {seen.pop(name) for name in ("agreement", "clock", "protocol")} == {"skipped"}
    seen.pop("disk")  # this machine's own affair
    assert seen.pop("devices") in ("ok", "warning")
    assert set(seen.values()) == {"ok"}, findings


def test_what_is_wrong_with_the_files_is_told_one_by_one(tmp_path: Path, chain: Chain) -> None:
    path = node(tmp_path, chain, "validator", Key.generate())
    (tmp_path / "my.key").chmod(0o644)
    (tmp_path / "data").write_text("no folder")
    (tmp_path / "network.json").unlink()
    findings = found("validator", path)
    for name, word in (
        ("key", "chmod 600"),
        ("data folder", "cannot write"),
        ("network file", "network.json"),
    ):
        assert findings[name].verdict == "failed" and word in findings[name].what, findings[name]
    assert findings["account"].verdict == "skipped"
    path.write_text(path.read_text() + "colour = 1\n")
    (only,) = found("validator", path).values()
    assert only.verdict == "failed" and "colour" in only.what


def test_an_account_without_coin_stake_or_tokens_is_told_what_to_send(tmp_path: Path, chain: Chain) -> None:
    poor = Key.generate()
    findings = found("verifier", node(tmp_path / "poor", chain, "verifier", poor))
    assert findings["gas money"].verdict == findings["stake"].verdict == "failed"
    assert "send" in findings["stake"].do and "dtn verifier register" in findings["stake"].do
    chain.fund(poor, 10**6 * TOKEN_WEI)
    findings = found("verifier", node(tmp_path / "rich", chain, "verifier", poor))
    assert findings["gas money"].verdict == "ok"
    assert findings["stake"].verdict == "failed" and "send" not in findings["stake"].do
    client = found("client", node(tmp_path / "client", chain, "client", Key.generate()))
    assert client["tokens"].verdict == "warning"


def test_the_wrong_chain_and_the_wrong_contracts_are_told_apart(tmp_path: Path, chain: Chain) -> None:
    path = node(tmp_path, chain, "client", Key.generate())
    file = json.loads((tmp_path / "network.json").read_text())
    file["address_book"]["orders"] = "0x" + "12" * 20
    (tmp_path / "network.json").write_text(json.dumps(file))
    findings = found("client", path)
    assert findings["chain"].verdict == "ok"
    assert findings["contracts"].verdict == "failed" and "orders 0x1212" in findings["contracts"].what
    file["address_book"]["chain_id"] = 5
    (tmp_path / "network.json").write_text(json.dumps(file))
    assert "chain 31337" in found("client", path)["chain"].what
    file["rpc_url"] = "http://127.0.0.1:1"
    (tmp_path / "network.json").write_text(json.dumps(file))
    assert found("client", path)["chain"].do == "start the node, or correct rpc_url"


def test_a_running_gateway_is_known_as_ours_and_a_wrong_public_link_is_not(
    tmp_path: Path, chain: Chain
) -> None:
    path = node(tmp_path, chain, "client", Key.generate())
    store = EmbeddedStore(tmp_path / "data" / "store")
    store.publish(store.put(b"a fragment"))
    port = int(path.read_text().partition("gateway_port = ")[2].split()[0])
    assert "not running" in found("client", path)["gateway"].what
    gateway, stranger = Gateway(store, port=port), Gateway(EmbeddedStore(tmp_path / "other"))
    gateway.start()
    stranger.start()
    try:
        assert found("client", path)["gateway"].verdict == "ok"
        with path.open("a") as file:
            file.write(f'public_url = "{stranger.url}"\n')
        wrong = found("client", path)["gateway"]
        assert wrong.verdict == "failed" and "does not lead to it" in wrong.what
        taken = node(tmp_path / "second", chain, "client", Key.generate(), gateway_port=port)
        (tmp_path / "second" / "data" / "store" / "public").mkdir(parents=True)
        mine = EmbeddedStore(tmp_path / "second" / "data" / "store")
        mine.publish(mine.put(b"another"))
        assert "something else" in found("client", taken)["gateway"].what
    finally:
        gateway.stop()
        stranger.stop()


def test_an_aggregator_has_to_be_appointed_and_registered_with_its_own_key(
    tmp_path: Path, chain: Chain
) -> None:
    stranger = found("aggregator", node(tmp_path / "stranger", chain, "aggregator", Key.generate()))
    assert "no member" in stranger["committee"].what and stranger["api"].verdict == "ok"
    member, link_key = MEMBERS[0], LinkKey.derive(MEMBERS[0]).public
    path = node(tmp_path / "member", chain, "aggregator", member)
    chain.fund(member, TOKEN_WEI)
    assert "link key" in found("aggregator", path)["committee"].what
    staked(chain, Role.AGGREGATOR, "tcp://127.0.0.1:1", link_key, member)
    assert found("aggregator", path)["committee"].verdict == "warning"
    findings = found("aggregator", path)
    assert findings["stake"].verdict == "ok" and findings["link"].verdict == "ok"
    with path.open() as file:
        text = file.read()
    path.write_text(text.replace("tcp://127.0.0.1", "udp://127.0.0.1"))
    assert found("aggregator", path)["link"].verdict == "failed"


def status(
    executed: int = 100,
    settled: int = 3,
    skew_s: float = 0.0,
    alarms: tuple[str, ...] = (),
    version: int = 1,
    upgrade: UpgradeOf | None = None,
) -> Answer:
    """What an aggregator would say."""
    now_s = time.time()
    return Answer(
        "http://a",
        Status(
            network=NetworkOf(chain_id=1, parameters="0x"),
            member=0,
            members=(),
            executed=executed,
            settled_epoch=settled,
            clock_ms=int((now_s - skew_s) * 1000),
            alarms=alarms,
            protocol_version=version,
            protocol_upgrade=upgrade,
        ),
        now_s,
    )


def test_one_liar_makes_no_honest_clock_wrong() -> None:
    assert check_clock([status(), status(), status(skew_s=9_000)]).verdict == "ok"
    ahead = check_clock([status(skew_s=60), status(skew_s=61), status()])
    assert ahead.verdict == "failed" and "60.0 s ahead" in ahead.what and "NTP" in ahead.do
    assert "behind" in check_clock([status(skew_s=-60)]).what


def test_rules_that_this_software_does_not_know_are_told_before_and_after_they_take_over() -> None:
    coming = UpgradeOf(version=2, first=300)
    old, newer = Versions(1, 1), Versions(1, 2)
    assert check_protocol([status()] * 4, old).verdict == "ok"
    warned = check_protocol([status(upgrade=coming)] * 4, old)
    assert warned.verdict == "warning" and warned.what == (
        "the network runs version 2 of the protocol from batch 300 on; this software knows 1: upgrade"
    )
    told = check_protocol([status(version=2)] * 3 + [status()], old)
    assert told.verdict == "failed" and "runs version 2" in told.what and "newer release" in told.do
    for answers in ([status(upgrade=coming)] * 4, [status(version=2)] * 4):
        assert check_protocol(answers, newer).verdict == "ok"
    for liar in (status(version=9), status(upgrade=coming)):
        assert check_protocol([liar, status(), status(), status()], old).verdict == "ok"


def test_disagreeing_aggregators_are_named() -> None:
    assert check_agreement([status(), status(99)]).verdict == "ok"
    for other in (status(executed=1_000), status(settled=9), status(alarms=("the disk",))):
        assert check_agreement([status(), other]).verdict == "warning"


def test_a_real_aggregator_is_understood_and_what_is_none_is_survived(tmp_path: Path) -> None:
    async def scenario() -> list[Answer]:
        async with running(tmp_path) as network, network.served() as url:
            return await asyncio.to_thread(ask_all, [url, url + "/v1", "http://127.0.0.1:1", "no url"])

    real, *others = asyncio.run(scenario())
    assert real.status is not None and real.status.executed > 0 and real.status.protocol_version >= 1
    assert all(answer.status is None and answer.reason for answer in others)


def test_a_full_disk_and_a_missing_device_are_told(tmp_path: Path) -> None:
    assert check_disk(tmp_path, least=2**60).verdict == "failed"
    assert check_disk(tmp_path, least=0, enough=2**60).verdict == "warning"
    assert check_disk(tmp_path / "not" / "there", least=0, enough=0).verdict == "ok"
    before = os.environ.get("JAX_PLATFORMS")
    try:
        assert check_devices("cpu").verdict == "ok"
    finally:
        os.environ["JAX_PLATFORMS"] = before or "cpu"


def test_the_command_says_it_in_json_and_by_its_status(tmp_path: Path, chain: Chain) -> None:
    path = node(tmp_path, chain, "client", Key.generate())
    done = subprocess.run(
        [sys.executable, "-m", "dtn", "doctor", "--config", str(path), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["role"] == "client" and not told["healthy"]
    assert {"check", "verdict", "what", "do"} == set(told["findings"][0])
