"""A pool's member: gets ready for the leader's order and runs one process of each round it is called to.

It needs no stake and claims nothing; the leader pays it (`payouts`). Guarantees: what it trains on it
fetched and checked itself, by the hashes of an order on the ledger; it obeys only letters signed by the
leader its pool's file names; its training process ends with it, and when the leader is silent for
`LEADER_PATIENCE_S`.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any, Final

import httpx

from offchain.actor import Actor
from offchain.answers import fetch_open
from offchain.config import ProviderConfig
from offchain.network import NetworkError
from offchain.provider.fetching import Declined, fetch_order
from offchain.provider.pool.child import Child
from offchain.provider.pool.letters import (
    MAX_LETTER_BYTES,
    Instruction,
    InvalidLetter,
    Report,
    Round,
    opened,
    signed,
)
from offchain.provider.pool.settings import PoolSettings
from offchain.training.process import Specification, TeamSpecification
from protocol.errors import InvalidArtifact, InvalidDocument, ProtocolError

log = logging.getLogger(__name__)

Json = dict[str, Any]

REPORT_TIMEOUT_S: Final = 3.0
LEADER_PATIENCE_S: Final = 60.0
"""A leader silent for so long has no round any more."""
RETRY_S: Final = 5.0


def pooled_orders(data_dir: Path) -> Path:
    """Where a member keeps what it trains on; nothing in it is needed after its process."""
    return data_dir / "pooled"


class PoolMember(Actor):
    """One of the other hosts of a pool."""

    config: ProviderConfig

    def __init__(self, config: ProviderConfig, pool: PoolSettings) -> None:
        if config.platform is not None:
            os.environ["JAX_PLATFORMS"] = config.platform
        super().__init__(config)
        shutil.rmtree(pooled_orders(config.data_dir), ignore_errors=True)
        self._pool = pool
        self._client = httpx.Client(timeout=REPORT_TIMEOUT_S, follow_redirects=False)
        self._preparation: _Preparation | None = None
        self._round: Round | None = None
        self._child: Child | None = None
        self._failed: int | None = None
        self._reported_ms = 0
        self._heard_s = time.monotonic()
        self._told_silence = False

    @property
    def child_pid(self) -> int | None:
        """Process id of the training process, if one was started for the round."""
        return None if self._child is None else self._child.pid

    def act(self) -> None:
        self._look_at_child()
        instruction = self._report()
        if instruction is None:
            if time.monotonic() - self._heard_s > LEADER_PATIENCE_S:
                self._leave()
            return
        self._get_ready(instruction.order)
        self._take_part(instruction.round)

    def close(self) -> None:
        self.stopping.set()
        self._leave()
        self._client.close()
        super().close()

    # The leader --------------------------------------------------------------------------------------

    def _report(self) -> Instruction | None:
        """Report and hear what to do; None if the leader does not answer."""
        self._reported_ms = max(self._reported_ms + 1, time.time_ns() // 1_000_000)
        ready = self._preparation
        report = Report(
            time_ms=self._reported_ms,
            ready=ready.oid if ready is not None and ready.done else None,
            round=None if self._round is None else self._round.number,
            failed=self._failed,
        )
        try:
            instruction = self._ask(signed(report, self.key))
        except (httpx.HTTPError, InvalidLetter) as reason:
            if not self._told_silence:
                log.warning("the pool's leader at %s does not answer: %s", self._pool.url, reason)
            self._told_silence = True
            return None
        if self._told_silence:
            log.info("the pool's leader answers again")
        self._told_silence, self._heard_s = False, time.monotonic()
        return instruction

    def _ask(self, letter: bytes) -> Instruction:
        with self._client.stream("POST", self._pool.url + "/v1/pool/report", content=letter) as response:
            answer = bytearray()
            for chunk in response.iter_bytes():
                answer += chunk
                if len(answer) > MAX_LETTER_BYTES:
                    raise InvalidLetter("the answer is too long for a letter")
        if response.status_code != 200:
            raise InvalidLetter(f"{response.status_code} {answer[:200].decode(errors='replace')}")
        account, instruction = opened(bytes(answer), Instruction)
        if account != self._pool.leader or instruction.answers_ms != self._reported_ms:
            raise InvalidLetter("the answer is not the leader's to this report")
        return instruction

    # The order ---------------------------------------------------------------------------------------

    def _get_ready(self, oid: str | None) -> None:
        ready = self._preparation
        if ready is not None and ready.oid != oid:
            ready.drop()
            self._preparation = ready = None
        if oid is not None and (ready is None or ready.may_try_again):
            self._preparation = _Preparation(self, oid)

    # The round ---------------------------------------------------------------------------------------

    def _take_part(self, wanted: Round | None) -> None:
        if wanted is None or (self._round is not None and wanted.number != self._round.number):
            self._leave()
        ready = self._preparation
        if wanted is None or self._round is not None or wanted.number == self._failed:
            return
        if ready is None or not ready.done or self.me not in wanted.accounts:
            return
        log.info("taking part in round %d of order %s", wanted.number, ready.oid)
        self._round = wanted
        self._child = Child(
            Specification(
                task=ready.folder / "task",
                training=wanted.training,
                checkpoints=None,
                compiled=self.compiled_programs,
                stop_at_s=ready.stop_at_s,
                team=TeamSpecification(
                    coordinator=wanted.coordinator,
                    processes=len(wanted.accounts),
                    process=wanted.accounts.index(self.me),
                ),
            ),
            ready.folder / "process",
        )

    def _look_at_child(self) -> None:
        """Take notice of a process that failed; what it says is of no interest but for its last words."""
        if self._child is None or self._round is None:
            return
        while (event := self._child.next_event(0.0)) is not None:
            if event.get("event") == "failed":
                log.warning("the training process fails: %s", event.get("reason"))
        if self._child.failed:
            log.warning("round %d failed here: %s", self._round.number, self._child.last_words())
            self._failed = self._round.number
            self._leave()

    def _leave(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = self._round = None


class _Preparation:
    """Fetching one order's task and data, in a thread of its own."""

    def __init__(self, member: PoolMember, oid: str) -> None:
        self.oid = oid
        self.done = False
        self.stop_at_s = 0.0
        self.folder = pooled_orders(member.config.data_dir) / oid.removeprefix("0x")
        self._member = member
        self._dropped = threading.Event()
        self._again_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"fetching {oid[:10]}", daemon=True)
        self._thread.start()

    @property
    def may_try_again(self) -> bool:
        """Whether it failed in a way that time may heal."""
        return self._again_s is not None and time.monotonic() >= self._again_s

    def drop(self) -> None:
        """Nothing of it is needed any more."""
        self._dropped.set()
        self._thread.join(timeout=1.0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self) -> None:
        try:
            self._fetch()
        except (Declined, InvalidDocument, InvalidArtifact) as reason:
            log.warning("order %s is not trained here: %s", self.oid, reason)
        except (ProtocolError, OSError) as reason:
            log.warning("cannot get ready for order %s: %s", self.oid, reason)
            self._again_s = time.monotonic() + RETRY_S

    def _fetch(self) -> None:
        from offchain.training.task_files import write_task

        config = self._member.config
        detail = fetch_open(self._member.network, self.oid)
        if detail is None or detail["phase"] != "training":
            raise NetworkError("the order is not in training")
        self.stop_at_s = detail["deadlineMs"] / 1000 - config.deadline_margin_s
        task = fetch_order(
            detail,
            config,
            self._member.stopping,
            lambda: self._dropped.is_set() or time.time() >= self.stop_at_s,
        )
        if task is not None and not self._dropped.is_set():
            write_task(self.folder / "task", task)
            self.done = True
            log.info("ready for order %s", self.oid)
