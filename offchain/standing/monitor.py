"""``/metrics``, ``/healthz`` and ``/readyz`` of an actor: off unless its configuration sets ``metrics_port``.

What is cheap is gathered when it is asked for. What costs a question to the chain or the network, or a walk
through the disk, is looked at by a thread of its own every `EVERY_S` and remembered, so that a scrape never
waits and never asks anybody. Listens on the loopback address unless told otherwise; it shows what an account
earns.

``/healthz`` says whether the loop still turns: a supervisor may restart what does not. ``/readyz`` says
whether the actor can do its work: it reaches the network, and has the stake that its work needs.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Protocol

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from offchain.answers import fetch_credits, fetch_parameters
from offchain.network import Network
from offchain.serving import HttpServer
from offchain.standing.meters import Meters
from protocol.chain.client import ChainClient
from protocol.errors import ProtocolError
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.version import SUPPORTED, software_version

log = logging.getLogger(__name__)

EVERY_S: Final = 15.0
STUCK_S: Final = 900.0
"""A round without end: scoring the largest models takes minutes, not so many."""
MAX_WALKED: Final = 1_000_000
"""Files of a store that are looked at; a larger one is counted as far as that."""


class Watched(Protocol):
    """What a monitor needs to know of an actor."""

    role: ClassVar[Role | None]
    network: Network
    meters: Meters

    @property
    def me(self) -> str:
        """The account in 0x-hex."""
        ...

    @property
    def data_dir(self) -> Path:
        """Where it keeps its files."""
        ...

    @property
    def outdated(self) -> str | None:
        """Why newer software is needed; None in good times."""
        ...

    def chain(self) -> ChainClient:
        """The contracts."""
        ...

    def gauges(self) -> Iterator[Metric]:
        """What this role has to tell beside the rest, as it is now."""
        ...


@dataclass(slots=True)
class Loop:
    """What the actor's loop says of itself, on this machine's monotonic clock."""

    began_s: float = field(default_factory=time.monotonic)
    """When the round under way, or the last one, began."""
    ended_well_s: float | None = None
    down: bool = False
    """Whether the last round found nobody of the network."""


def gauge(name: str, what: str, value: float) -> Metric:
    """A figure without labels."""
    return GaugeMetricFamily(name, what, value=float(value))


def gauges(name: str, what: str, label: str, values: dict[str, float]) -> Metric:
    """A figure by one label."""
    found = GaugeMetricFamily(name, what, labels=[label])
    for key, value in sorted(values.items()):
        found.add_metric([key], float(value))
    return found


class Monitor(Collector):
    """Watches one actor and tells whoever asks."""

    def __init__(self, actor: Watched, host: str, port: int) -> None:
        """Bind at once; raises `CannotServe` if the address is taken."""
        self._actor = actor
        self.loop = Loop()
        self._seen: dict[str, list[Metric]] = {}
        self._short_of_stake: str | None = None
        self._earned: tuple[int, int] | None = None
        """The settlement up to which the credits are summed up, and the sum in wei."""
        self._client: ChainClient | None = None
        self._stopping = threading.Event()
        actor.meters.registry.register(self)
        self._server = HttpServer(self._app(), "monitor", host, port)
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return self._server.url

    def start(self) -> None:
        """Watch and answer until `stop`."""
        self._server.start()
        self._thread.start()
        log.info("metrics at %s/metrics", self.url)

    def stop(self) -> None:
        """Answer no more."""
        self._stopping.set()
        self._server.stop()

    # Answers ---------------------------------------------------------------------------------------

    def _app(self) -> FastAPI:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.get("/metrics")
        def metrics() -> Response:
            return Response(generate_latest(self._actor.meters.registry), media_type=CONTENT_TYPE_LATEST)

        @app.get("/healthz")
        def health() -> Response:
            return _said(self.sick())

        @app.get("/readyz")
        def ready() -> Response:
            return _said(self.unready())

        return app

    def sick(self) -> str | None:
        """Why the process should be restarted; None while its loop turns."""
        age_s = time.monotonic() - self.loop.began_s
        return f"a round has been under way for {age_s:.0f} s" if age_s > STUCK_S else None

    def unready(self) -> str | None:
        """Why the actor cannot do its work; None while it can."""
        if self.loop.down:
            return "no aggregator answers"
        if self.loop.ended_well_s is None:
            return "it has not looked at the ledger yet"
        return self.sick() or self._actor.outdated or self._short_of_stake

    # Figures ---------------------------------------------------------------------------------------

    def describe(self) -> Iterable[Metric]:
        """Nothing: the figures are known only once the actor runs."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All figures that are not counted."""
        loop, now_s = self.loop, time.monotonic()
        build = GaugeMetricFamily(
            "dtn_build_info",
            "Always 1: role, software version and newest protocol version that it knows.",
            labels=["role", "version", "protocol"],
        )
        role = self._actor.role
        build.add_metric(
            ["client" if role is None else role.name.lower(), software_version(), str(SUPPORTED.high)], 1
        )
        yield build
        yield gauge("dtn_ready", "1 while it can do its work; /readyz says why not.", self.unready() is None)
        yield gauge("dtn_network_up", "1 while the last look found the network.", not loop.down)
        if loop.ended_well_s is not None:
            yield gauge(
                "dtn_round_age_seconds", "Since the last look that ended well.", now_s - loop.ended_well_s
            )
        yield from self._actor.gauges()
        for figures in list(self._seen.values()):
            yield from figures

    def _watch(self) -> None:
        looks: dict[str, Callable[[], Iterator[Metric]]] = {
            "disk": self._look_at_disk,
            "ledger": self._look_at_ledger,
            "account": self._look_at_account,
            "chain": self._look_at_chain,
        }
        while not self._stopping.is_set():
            for name, look in looks.items():
                try:
                    self._seen[name] = list(look())
                except (ProtocolError, OSError, KeyError, TypeError, ValueError) as reason:
                    # What was seen before says nothing of now: no figure is better than an old one.
                    self._seen.pop(name, None)
                    log.debug("monitor: %s: %s", name, reason)
            self._stopping.wait(EVERY_S)

    def _look_at_disk(self) -> Iterator[Metric]:
        store = self._actor.data_dir / "store"
        sizes = {name: float(_bytes_in(store / name)) for name in ("private", "public")}
        yield gauges(
            "dtn_storage_bytes", "Blocks in the store; public ones are among the private.", "kind", sizes
        )
        free = shutil.disk_usage(self._actor.data_dir).free
        yield gauge("dtn_disk_free_bytes", "Room left on the disk of the data folder.", free)

    def _look_at_ledger(self) -> Iterator[Metric]:
        status = self._actor.network.get("/v1/status")
        yield gauge("dtn_ledger_sequence", "The last batch of the aggregator asked.", int(status["executed"]))
        yield gauge(
            "dtn_ledger_age_seconds",
            "Since the ledger's time.",
            time.time() - int(status["ledgerTimeMs"]) / 1000,
        )
        skew_s = int(status["clockMs"]) / 1000 - time.time()
        yield gauge("dtn_clock_skew_seconds", "The aggregator's clock less this one's.", skew_s)
        if status["origin"] is not None:
            yield gauge("dtn_origin_block", "The chain block taken in last.", int(status["origin"]))

    def _look_at_account(self) -> Iterator[Metric]:
        network, me = self._actor.network, self._actor.me
        account = network.get(f"/v1/accounts/{me}")
        role = self._actor.role
        stakes = [
            item for item in account["stakes"] if role is not None and item["role"] == role.name.lower()
        ]
        held_wei = {
            state: sum(int(item[f"{state}Wei"]) for item in stakes)
            for state in ("bonded", "locked", "unbonding")
        }
        held = {state: wei / TOKEN_WEI for state, wei in held_wei.items()}
        yield gauges("dtn_stake_tokens", "Stake in this role, by state.", "state", held)
        if role is not None:
            need_wei, have_wei = fetch_parameters(network)[role.parameter], held_wei["bonded"]
            short = f"its stake is {have_wei} wei, and {need_wei} are needed"
            self._short_of_stake = short if have_wei < need_wei else None
        pending = sum(int(item["amountWei"]) for item in account["pending"]) / TOKEN_WEI
        yield gauge("dtn_pending_tokens", "Credits of sealed orders that wait for a settlement.", pending)
        yield gauge(
            "dtn_earned_tokens", "All settled credits so far, paid out or not.", self._earnings() / TOKEN_WEI
        )

    def _earnings(self) -> int:
        network = self._actor.network
        settled = int(network.get("/v1/status")["settledEpoch"])
        if self._earned is None or self._earned[0] != settled:
            credits_ = fetch_credits(network, self._actor.me)
            self._earned = (settled, sum(credit.amount_wei for credit in credits_))
        return self._earned[1]

    def _look_at_chain(self) -> Iterator[Metric]:
        self._client = self._client or self._actor.chain()
        chain, account = self._client, bytes.fromhex(self._actor.me[2:])
        yield gauge("dtn_chain_head_block", "The last block of the chain node.", chain.block_number())
        yield gauge(
            "dtn_chain_head_age_seconds", "Since the time of that block.", time.time() - chain.time_s()
        )
        yield gauge(
            "dtn_balance_tokens", "Tokens of the account, not staked.", chain.balance_of(account) / TOKEN_WEI
        )
        yield gauge(
            "dtn_balance_coins", "The chain's coin, which pays for gas.", chain.coins_of(account) / 10**18
        )


def _said(why: str | None) -> Response:
    return PlainTextResponse(why or "ok", 503 if why else 200)


def _bytes_in(folder: Path) -> int:
    total = 0
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= MAX_WALKED:
                break
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # unpinned meanwhile
    return total
