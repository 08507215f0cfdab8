"""The leader's job for one order: rounds of training, each with whoever is there; alone if it must be.

A round is a set of processes joined by ``jax.distributed``, of which this host runs process 0. It ends by
itself, or this job ends it: because a member is gone, nothing moves any more, or somebody came late and can
be taken in. The next round goes on from the last checkpoint, which is on this host alone. Guarantees: every
wait is bounded (`silence_s`, `start_s`, `stall_s`); claims are sent from here, and none waits for a member;
whoever fails twice is left out for the rest of the order, and after `MAX_FAILED_ROUNDS` the leader trains
alone.
"""

from __future__ import annotations

import logging
import math
import shutil
import socket
import time
from dataclasses import asdict, replace
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from offchain.provider.job import Job
from offchain.provider.pool.child import Child
from offchain.provider.pool.contributions import ContributionRecord, StepCounter
from offchain.provider.pool.desk import Desk
from offchain.provider.pool.letters import Round
from offchain.training.process import Specification, TeamSpecification
from protocol.errors import ProtocolError

if TYPE_CHECKING:
    from offchain.actor import Actor
    from offchain.config import ProviderConfig
    from offchain.training.engine import Result
    from offchain.training.task import TrainingConfig, TrainingTask

log = logging.getLogger(__name__)

Json = dict[str, Any]

LOOK_S: Final = 0.2
"""How often a round's members are looked at."""
CHECKPOINT_EVERY_S: Final = 5.0
"""More often than alone: a round ends with whichever of its hosts ends first."""
STOP_PATIENCE_S: Final = 10.0
"""How long a process may take to stop with a checkpoint."""
MAX_FAILURES: Final = 2
"""Failed rounds of one member, after which the order goes on without it."""
MAX_FAILED_ROUNDS: Final = 6
"""Failed rounds of an order, after which the leader trains alone."""
MAX_FAILURES_ALONE: Final = 3
"""Failed rounds without members, after which the order is given up."""


class TrainingFailed(ProtocolError):
    """The training process fails even without members."""


class _Ending(Enum):
    OVER = auto()
    REGROUP = auto()
    FAILED = auto()


class PooledJob(Job):
    """A `Job` whose training is done by a pool."""

    def __init__(
        self, actor: Actor, config: ProviderConfig, detail: Json, folder: Path, desk: Desk, record: Path
    ) -> None:
        super().__init__(actor, config, detail, folder)
        self._desk, self._pool = desk, desk.settings
        self._record = ContributionRecord(record)
        self._failures: dict[str, int] = {}
        self._failed_rounds = self._failed_alone = 0
        self._number = 0
        self._result: Result | None = None

    def _train(self) -> None:
        # At once, so that members fetch the data while this host does.
        self._desk.announce(self.oid)
        try:
            super()._train()
        finally:
            self._desk.announce(None)

    def _plan(self) -> TrainingConfig:
        return replace(super()._plan(), checkpoint_every_s=CHECKPOINT_EVERY_S)

    def _work(self, task: TrainingTask, plan: TrainingConfig) -> Result:
        from offchain.training.engine import Result
        from offchain.training.task_files import write_task

        write_task(self._folder / "task", task)
        del task
        try:
            self._gather()
            while not self._should_stop() and self._round(plan) is not _Ending.OVER:
                pass
        finally:
            shutil.rmtree(self._folder / "task", ignore_errors=True)
        return self._result or Result(None, None, 0, "stopped")

    def _gather(self) -> None:
        """Wait until everybody who is there is ready, but not for long."""
        deadline_s = time.monotonic() + self._pool.gather_s
        while time.monotonic() < deadline_s and not self._should_stop():
            there = self._desk.there()
            if len(there) == len(self._pool.members) and self._desk.ready(self.oid) == there:
                return
            self._actor.stopping.wait(LOOK_S)

    def _welcome(self) -> tuple[str, ...]:
        """Members to train with."""
        if self._failed_rounds >= MAX_FAILED_ROUNDS:
            return ()
        ready = self._desk.ready(self.oid)
        return tuple(member for member in ready if self._failures.get(member, 0) < MAX_FAILURES)

    def _round(self, plan: TrainingConfig) -> _Ending:
        """One round, from calling the members to the end of the own process."""
        members = self._welcome()
        # Above any number of an earlier life.
        self._number = max(self._number + 1, time.time_ns() // 1_000_000)
        gathering = Round(
            number=self._number,
            coordinator=f"{self._pool.host}:{self._pool.coordinator_port or _free_port(self._pool.host)}",
            accounts=(self._pool.leader, *members),
            training=asdict(plan),
        )
        log.info("round %d of order %s with %d members", self._number, self.oid, len(members))
        self.events.keep(round=self._number, accounts=gathering.accounts)
        self.events.note("round")
        child = Child(self._specification(gathering), self._folder / "process")
        # After the process was started, since members who came first would wait for its coordinator.
        self._desk.call(gathering if members else None)
        watch = _Watch(self, child, gathering)
        try:
            ending = watch.until_over()
        finally:
            self._desk.call(None)
            child.end()
            watch.close()
        if ending is _Ending.FAILED:
            self._blame(watch.culprits or self._find_culprits(gathering), members, child)
        return ending

    def _specification(self, gathering: Round) -> Specification:
        team = None
        if len(gathering.accounts) > 1:
            team = TeamSpecification(
                coordinator=gathering.coordinator, processes=len(gathering.accounts), process=0
            )
        return Specification(
            task=self._folder / "task",
            training=gathering.training,
            checkpoints=self._folder / "checkpoints",
            compiled=self._actor.compiled_programs,
            stop_at_s=self._stop_at_s,
            team=team,
        )

    def _find_culprits(self, gathering: Round) -> tuple[str, ...]:
        """Whose end made the own process fail: that may be known here before they, or their silence, tell."""
        deadline_s = time.monotonic() + self._pool.silence_s + LOOK_S
        while len(gathering.accounts) > 1 and time.monotonic() < deadline_s and not self._should_stop():
            if lost := self._desk.lost(gathering):
                return lost
            self._actor.stopping.wait(LOOK_S)
        return ()

    def _claim_file(self, step: int, score: int) -> None:
        from offchain.training.engine import Improvement

        model = (self._folder / "checkpoints" / f"best-{step}.safetensors").read_bytes()
        self._claim(Improvement(model, score, step))

    def _finished(self, event: Json) -> None:
        from offchain.training.engine import Result

        best = next((self._folder / "checkpoints").glob("best-*.safetensors"), None)
        model = None if best is None else best.read_bytes()
        self._result = Result(model, event["score"], event["step"], event["reason"])

    def _blame(self, culprits: tuple[str, ...], members: tuple[str, ...], child: Child) -> None:
        for member in culprits:
            self._failures[member] = self._failures.get(member, 0) + 1
        self._failed_rounds += bool(members)
        self._failed_alone += not members
        log.warning(
            "round %d failed (%s); training goes on from the last checkpoint",
            self._number,
            f"lost {', '.join(culprits)}" if culprits else child.last_words() or "no member is to blame",
        )
        if self._failed_alone >= MAX_FAILURES_ALONE:
            raise TrainingFailed(f"the training process failed {MAX_FAILURES_ALONE} times: see its log")
        # What fails at once must not be started in a tight loop.
        self._actor.stopping.wait(1.0)


class _Watch:
    """Hears one round's process 0 and keeps an eye on its members."""

    def __init__(self, job: PooledJob, child: Child, gathering: Round) -> None:
        self._job, self._child, self._gathering = job, child, gathering
        self._counter: StepCounter | None = None
        self._moves = False
        self._began_s = self._moved_s = time.monotonic()
        self._stopped_s: float | None = None
        self._regroup = False
        self.culprits: tuple[str, ...] = ()

    def close(self) -> None:
        """Write down the steps that were counted last."""
        if self._counter is not None:
            self._counter.write()

    def until_over(self) -> _Ending:
        """Hear the process until the round is over or has failed."""
        while True:
            event = self._child.next_event(LOOK_S)
            if event is not None:
                self._moved_s = time.monotonic()
                if self._take(event):
                    return _Ending.REGROUP if self._regroup else _Ending.OVER
            elif not self._child.running:
                return _Ending.FAILED
            if (ending := self._look()) is not None:
                return ending

    def _look(self) -> _Ending | None:
        """Whether anything is wrong, or the round should end."""
        job, now_s = self._job, time.monotonic()
        if self._stopped_s is not None:
            late = now_s - self._stopped_s > STOP_PATIENCE_S
            return (_Ending.FAILED if self._regroup else _Ending.OVER) if late else None
        if job._should_stop() or self._time_to_regroup():
            self._regroup = not job._should_stop()
            self._stopped_s = now_s
            self._child.tell("stop")
            return None
        self.culprits = job._desk.lost(self._gathering)
        if self.culprits:
            return _Ending.FAILED
        patience_s = job._pool.stall_s if self._moves else job._pool.start_s
        if now_s - self._moved_s > patience_s:
            log.warning("round %d has shown nothing for %.0f s", self._gathering.number, patience_s)
            return _Ending.FAILED
        return None

    def _take(self, event: Json) -> bool:
        """Do what an event asks for; whether the process says that it has ended."""
        job = self._job
        match event.get("event"):
            case "joined":
                self._counter = StepCounter(
                    job._record,
                    oid=job.oid,
                    number=self._gathering.number,
                    batch_size=event["batch_size"],
                    accounts=self._gathering.accounts,
                    devices=tuple(event["devices"]),
                )
            case "progress":
                self._progress(event)
            case "improved":
                job._claim_file(event["step"], event["score"])
                self._child.tell("heard")
            case "ended":
                job._finished(event)
                return True
            case "failed":
                log.warning("the training process fails: %s", event.get("reason"))
        return False

    def _progress(self, event: Json) -> None:
        from offchain.training.engine import Progress

        self._moves = True
        if self._counter is not None:
            self._counter.count(event["step"] - event["steps"], event["step"])
        fields = {name: value for name, value in event.items() if name != "event"}
        # What JSON knows no number for.
        fields["loss"] = math.nan if fields["loss"] is None else fields["loss"]
        self._job._note(Progress(**fields))

    def _time_to_regroup(self) -> bool:
        """Whether somebody waits whom it is worth taking in."""
        job, pool = self._job, self._job._pool
        if time.monotonic() - self._began_s < pool.regroup_s or not self._moves:
            return False
        # A round that soon ends by itself is not worth a new start.
        if job._stop_at_s - time.time() < 2 * pool.regroup_s:
            return False
        return bool(set(job._welcome()) - set(self._gathering.accounts))


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
