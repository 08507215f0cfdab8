"""A pool of real processes: two train one model to a claim; what dies is begun anew, or done without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from dtn.devnet.ports import free_port
from offchain.evaluation.score import evaluate
from offchain.material import fetch_training
from offchain.provider.pool.contributions import ContributionRecord, contributions_of, work_of
from offchain.provider.progress import NAME, standing
from protocol.crypto import Key
from tests.pool.one_order import Ledger, ledger

pytestmark = pytest.mark.end_to_end

ROOT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 120.0
"""A generous bound on any one wait: reached only when something hangs."""


def until(what: str, condition: Callable[[], Any], *logs: Path) -> Any:
    """What ``condition`` returns once it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.1)
    raise AssertionError(
        f"waited in vain until {what}\n" + "\n".join(log.read_text()[-3000:] for log in logs)
    )


@contextmanager
def dtn(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A ``dtn`` process, killed by its id in the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    environment["DTN_COMPILED"] = str(log.parent / "compiled")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dtn", *words], stdout=output, stderr=output, env=environment
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def write_pool(folder: Path, leader: Key, members: list[Key], **settings: Any) -> Path:
    fields = {
        "leader": "0x" + leader.address.hex(),
        "members": ["0x" + member.address.hex() for member in members],
        "url": f"http://127.0.0.1:{free_port()}",
        "gather_s": 0.0,
        "silence_s": 6.0,
        "regroup_s": 3.0,
        **settings,
    }
    path = folder / "pool.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items()))
    return path


def test_a_pool_takes_in_a_latecomer_claims_and_outlives_its_members_death(tmp_path: Path) -> None:
    leader, member = Key.generate(), Key.generate()
    pool = write_pool(tmp_path, leader, [member], fee_bps=1000)
    with ledger(tmp_path) as stands:
        ours = stands.write_actor(tmp_path / "leader", leader)
        theirs = stands.write_actor(tmp_path / "member", member)
        logs = tmp_path / "leader.log", tmp_path / "member.log"
        data, (oid,) = tmp_path / "leader" / "data", stands.oids
        order = data / "orders" / oid[2:]
        record = ContributionRecord(contributions_of(data))
        both = ("0x" + leader.address.hex(), "0x" + member.address.hex())

        def training(*accounts: str, after: int = 0) -> int:
            """The round in which these train now, if it is a later one."""
            now = standing(order / NAME) or {}
            going = now.get("event") in ("progress", "claimed") and now["accounts"] == list(accounts)
            return now["round"] if going and now["round"] > after else 0

        run = ("provider", "run", "--pool", str(pool), "--config")
        with dtn(logs[0], *run, str(ours)) as first:
            early = until("the leader trains", lambda: training(both[0]), *logs)
            with dtn(logs[1], *run, str(theirs)) as second:
                together = until("both train together", lambda: training(*both, after=early), *logs)
                (process,) = psutil.Process(second.pid).children()
                process.kill()
                again = until("both train together again", lambda: training(*both, after=together), *logs)
                (orphan,) = psutil.Process(second.pid).children()
                second.send_signal(signal.SIGKILL)
                until("its training process ends with it", lambda: not orphan.is_running(), *logs)
                alone = until("the leader goes on alone", lambda: training(both[0], after=again), *logs)
            first.send_signal(signal.SIGTERM)
            assert first.wait(timeout=PATIENCE_S) == 0
        now = standing(order / NAME)

        began = {item.round: item for item in reversed(list(record))}
        rounds = [began[number] for number in (early, together, again, alone)]
        assert [item.accounts for item in rounds] == [both[:1], both, both, both[:1]]
        assert rounds[0].from_step == 0 < min(item.from_step for item in rounds[1:]), "it began anew"
        assert now is not None and now["event"] == "ended" and now["accounts"] == [both[0]]
        assert now["claimed_score"] == now["best_score"] and now["time_left_s"] > 0
        check_claims(stands, order / "claims")
        check_payouts(record, oid, both, ours, pool)


def check_claims(stands: Ledger, claimed: Path) -> None:
    """What stands on the ledger is opened by a file on the leader's disk, and that is a good model."""
    commitment = stands.claims[-1]["message"]["commitment"][2:]
    model = (claimed / f"{commitment}.safetensors").read_bytes()
    document = stands.document
    samples = fetch_training(document, bytes.fromhex("cd" * 32))
    assert evaluate(model, document.architecture, samples, "accuracy").score > 900_000


def check_payouts(
    record: ContributionRecord, oid: str, both: tuple[str, str], config: Path, pool: Path
) -> None:
    """`dtn provider payouts` splits every wei by the samples on record."""
    reward_wei = 80 * 10**18 + 1
    printed = subprocess.run(
        [
            *(sys.executable, "-m", "dtn", "provider", "payouts", oid, "--config", config),
            *("--pool", pool, "--reward", "80.000000000000000001", "--json"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    answer = json.loads(printed.stdout)
    work = work_of(record, oid)
    assert work[both[0]].steps > work[both[1]].steps > 0
    assert [payout["account"] for payout in answer["payouts"]] == list(both)
    assert sum(int(payout["amount_wei"]) for payout in answer["payouts"]) == reward_wei
    assert int(answer["payouts"][0]["fee_wei"]) == reward_wei // 10
    total, rest = sum(each.samples for each in work.values()), reward_wei - reward_wei // 10
    assert abs(int(answer["payouts"][1]["share_wei"]) - rest * work[both[1]].samples // total) <= 1
