"""One provider's loop: choose orders, train them, claim, reveal, keep the models available.

Orders are taken by reward per second of training (PoT 3.3.2 FetchOrders). Each runs as a `Job`; claims
are revealed when training closes, and revealed models stay published until `keep_s` after the settlement,
because a winner's must be fetchable.
It is a juror too: the larger rounds of orders that it claims nothing in hear providers.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import Metric

from offchain.config import InvalidConfig, ProviderConfig
from offchain.jury import Juror
from offchain.material import unhex
from offchain.provider.claims import ClaimedModels
from offchain.provider.job import Job
from offchain.provider.pool.contributions import contributions_of
from offchain.provider.pool.desk import Desk
from offchain.provider.pool.job import PooledJob
from offchain.provider.pool.settings import PoolSettings
from offchain.standing.monitor import gauge, gauges
from offchain.storage import link_to
from protocol.crypto import sha256
from protocol.roles import Role
from protocol.transactions import ClaimReveal, claim_body

if TYPE_CHECKING:
    from offchain.training.engine import Progress

log = logging.getLogger(__name__)

Json = dict[str, Any]

JOB_PATIENCE_S: Final = 15.0
"""How long a job may take to stop: one dispatch, a claim, a checkpoint."""


class Provider(Juror):
    """Trains up to ``parallel_orders`` orders at once, each on a device; as a pool's leader one at a time.

    Orders beyond that wait in the ledger: the best paid begins when a place is free.
    """

    config: ProviderConfig
    role = Role.PROVIDER

    def __init__(self, config: ProviderConfig, pool: PoolSettings | None = None) -> None:
        if config.platform is not None:
            os.environ["JAX_PLATFORMS"] = config.platform
        super().__init__(config)
        self.jobs: dict[str, Job] = {}
        self._warned: set[str] = set()
        self.desk = None if pool is None else Desk(pool, self.key)

    def run(self) -> None:
        if self.desk is not None:
            self.desk.start()
        super().run()

    def act(self) -> None:
        self.jobs = {oid: job for oid, job in self.jobs.items() if job.running or not self._over(job)}
        for detail in self.orders_in("training"):
            if detail["oid"] not in self.jobs and self.wants(detail):
                self.begin(detail)
        for detail in self.orders_in("reveal"):
            self.attempt(f"revealing for {detail['oid']}", self.reveal, detail)
        for detail in self.orders_in("validation", "challenge", "verdict"):
            self.warn_if_reported(detail)
        self.serve_as_juror()
        self.attempt("dropping what is no longer needed", self.drop_settled)

    def gauges(self) -> Iterator[Metric]:
        running = [job for job in list(self.jobs.values()) if job.running]
        yield gauge("dtn_training_jobs", "Orders being trained now.", len(running))
        by_device: dict[str, list[Progress]] = {}
        for job in running:
            if job.progress is not None:
                by_device.setdefault(str(job.device or "pool"), []).append(job.progress)
        told: dict[str, tuple[str, Callable[[list[Progress]], float]]] = {
            "dtn_training_steps_per_second": (
                "Steps of all orders on a device.",
                lambda all_: sum(one.steps_per_s for one in all_),
            ),
            "dtn_training_loss": (
                "The highest loss on a device.",
                lambda all_: max(one.loss for one in all_),
            ),
            "dtn_training_time_left_seconds": (
                "Until the first training on a device must end.",
                lambda all_: min(one.time_left_s for one in all_),
            ),
            "dtn_training_best_score": (
                "The lowest of the best holdout scores on a device, in millionths.",
                lambda all_: min(one.best_score if one.best_score is not None else math.nan for one in all_),
            ),
        }
        for name, (what, of) in told.items():
            yield gauges(name, what, "device", {device: of(all_) for device, all_ in by_device.items()})

    @staticmethod
    def _over(job: Job) -> bool:
        """Whether a job that ended may be forgotten: its order takes no more claims."""
        return job.over

    def wants(self, detail: Json) -> bool:
        """Whether to train this order now."""
        running = sum(job.running for job in self.jobs.values())
        left_s = detail["deadlineMs"] / 1000 - time.time()
        return (
            int(detail["rewardRateWei"]) >= self.config.min_reward_rate_wei
            and left_s > 2 * self.config.deadline_margin_s
            and running < self._places()
        )

    def _places(self) -> int:
        """How many orders are trained at once."""
        if self.desk is not None:
            return 1
        return self.config.parallel_orders or len(local_devices())

    def begin(self, detail: Json) -> None:
        """Start training an order."""
        self.retention.need(detail["oid"])
        folder = self._folder(detail["oid"])
        if self.desk is not None:
            record = contributions_of(self.config.data_dir)
            job: Job = PooledJob(self, self.config, detail, folder, self.desk, record)
        else:
            job = Job(self, self.config, detail, folder, self._least_busy_device())
        job.events.on_event = self.meters.training
        self.jobs[detail["oid"]] = job
        job.start()

    def _least_busy_device(self) -> Any:
        busy = Counter(job.device for job in self.jobs.values() if job.running)
        return min(local_devices(), key=lambda device: busy[device])

    def _folder(self, oid: str) -> Any:
        return self.config.data_dir / "orders" / oid[2:]

    def reveal(self, detail: Json) -> None:
        """Publish the claimed model and open the claim."""
        mine = next((claim for claim in detail["claims"] if claim["provider"] == self.me), None)
        if mine is None or mine["mid"] is not None:
            return
        model = ClaimedModels(self._folder(detail["oid"]) / "claims").find(unhex(mine["commitment"]))
        if model is None:
            log.error("the model claimed for order %s is not on this disk; the claim is lost", detail["oid"])
            return
        self.reveal_model(detail, model)

    def warn_if_reported(self, detail: Json) -> None:
        """Say once what an operator can still mend: others cannot fetch the model."""
        mine = {claim["mid"] for claim in detail["claims"] if claim["provider"] == self.me}
        for report in detail["reports"]:
            if report["subject"] in mine and report["id"] not in self._warned:
                self._warned.add(report["id"])
                log.warning(
                    "your model %s of order %s was reported as irretrievable: jurors will try to fetch it; "
                    "see that %s answers from outside",
                    report["subject"],
                    detail["oid"],
                    self.url,
                )

    def reveal_model(self, detail: Json, model: bytes) -> None:
        """Publish ``model`` and send the reveal that opens its claim."""
        cid = self.store.put(model)
        self.retention.need(detail["oid"], [cid])
        self.store.publish(cid)
        oid, mid = unhex(detail["oid"]), sha256(model)
        self.network.submit(
            ClaimReveal,
            oid=oid,
            mid=mid,
            size_bytes=len(model),
            links=(link_to(self.url, cid),),
            salt=self.salt(oid, claim_body(mid, len(model))),
        )
        log.info("revealed model 0x%s for order %s", mid.hex(), detail["oid"])

    def forget_order(self, oid: str) -> None:
        """Checkpoints and claimed models too."""
        shutil.rmtree(self._folder(oid), ignore_errors=True)

    def close(self) -> None:
        self.stopping.set()
        # Jobs first: one that has just found a better model still claims it.
        for job in self.jobs.values():
            job.join(timeout_s=JOB_PATIENCE_S)
        if self.desk is not None:
            self.desk.stop()
        super().close()


def local_devices() -> list[Any]:
    """The devices of this process; raises `InvalidConfig` if there are none of the wanted platform."""
    import jax

    try:
        return list(jax.local_devices())
    except RuntimeError as reason:
        raise InvalidConfig(f"JAX finds no device to train on ({reason}): correct `platform`") from reason
