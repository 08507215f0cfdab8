"""What every role's process shares: a key, the network's API, a store with a gateway, and a polling loop.

An actor keeps nothing in memory that it cannot find again: secrets are derived from its key, facts come
from the ledger, files from its store. So it can be killed at any moment and started again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

from prometheus_client.core import Metric

from offchain.answers import Orders, fetch_detail, fetch_open, fetch_parameters, fetch_stakes, read
from offchain.config import ActorConfig
from offchain.network import (
    LedgerRefused,
    Network,
    NetworkError,
    NetworkFile,
    NotFound,
    unknown_version,
)
from offchain.retention import Retention
from offchain.standing import Meters, Monitor
from offchain.storage import Gateway, NotStored
from offchain.storage.choice import open_store
from protocol.chain.client import ChainClient, connect
from protocol.crypto import Key, keccak256
from protocol.errors import ChainError, ProtocolError
from protocol.logs import about
from protocol.roles import Role

log = logging.getLogger(__name__)

Json = dict[str, Any]

LOOK_AT_SETTLED_S: Final = 60.0
MOST_LISTED: Final = 500
"""Running orders that are looked at, the best paid first."""
MOST_ASKED: Final = 16
"""Orders that are asked about in one look at what is settled."""
LOOK_AT_VERSION_S: Final = 30.0
TURN_S: Final = 10.0
"""Then another aggregator is asked first: one that hides orders, or stands still, stops nobody for longer."""
ROUNDS_TO_TRUST = 30
"""While the chain is silent, it is asked for the committee once in so many rounds."""


class Actor:
    """Base of the roles: subclass and give `act`."""

    role: ClassVar[Role | None] = None
    """What the work needs a stake as; none for a client."""
    commits: ClassVar[bool] = True
    """Whether it makes commitments, whose salts only the secret key gives."""

    def __init__(self, config: ActorConfig) -> None:
        self.config = config
        self.signer = config.key() if self.commits else config.signer()
        self.file = NetworkFile.read(config.network)
        self.meters = Meters()
        self.network = Network(self.file, self.signer)
        self.network.on_submitted = self.meters.submitted
        self.store = open_store(config)
        self.retention = Retention(config.data_dir / "needed", config.keep_s)
        self._looked_at_settled_s = -LOOK_AT_SETTLED_S
        self._looked_at_version_s = -LOOK_AT_VERSION_S
        self.outdated: str | None = None
        """Why newer software is needed, as the aggregator asked last says; none in good times."""
        self._next_asked = 0
        self._doubted = False
        """Whether it was said that the chain does not answer."""
        self.gateway = Gateway(self.store, config.gateway_host, config.gateway_port)
        self.stopping = threading.Event()
        self.monitor: Monitor | None = None
        if config.metrics_port is not None:
            self.monitor = Monitor(self, config.metrics_host, config.metrics_port)

    @property
    def key(self) -> Key:
        """The account's secret key, of an actor that makes commitments."""
        assert isinstance(self.signer, Key), "who commits has its key: `commits` says so"
        return self.signer

    @property
    def me(self) -> str:
        """This account in 0x-hex."""
        return "0x" + self.signer.address.hex()

    @property
    def data_dir(self) -> Path:
        """Where it keeps its files."""
        return self.config.data_dir

    def gauges(self) -> Iterator[Metric]:
        """What this role's ``/metrics`` tell beside the rest."""
        return iter(())

    @property
    def url(self) -> str:
        """How others reach this actor's gateway."""
        return self.config.public_url or self.gateway.url

    @property
    def compiled_programs(self) -> Path:
        """Where JAX keeps what it compiles: ``$DTN_COMPILED`` (shared on one machine), or apart."""
        given = os.environ.get("DTN_COMPILED")
        return Path(given) if given else self.config.data_dir / "compiled"

    def keep_compiled_programs(self) -> None:
        """Let JAX keep what it compiles."""
        from offchain.compiled_programs import keep_compiled_programs

        keep_compiled_programs(self.compiled_programs)

    def chain(self) -> ChainClient:
        """The contracts, with this actor's key; raises `ChainError` when the chain does not answer."""
        book = self.file.address_book
        return ChainClient(connect(self.file.rpc_url, book.chain_id), book, self.signer)

    def salt(self, oid: bytes, body: bytes) -> bytes:
        """The salt of a commitment: known to the key's owner alone, and the same after a restart."""
        return keccak256(b"DTN salt v1" + self.key.secret + oid + body)

    def run(self) -> None:
        """Act until SIGTERM or SIGINT. An unreachable network is waited for; a bug ends the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopping.set())
        self.gateway.start()
        if self.monitor is not None:
            self.monitor.start()
        log.info("%s %s serves files at %s", type(self).__name__.lower(), self.me, self.url)
        down = looked_at_stake = trusting = False
        rounds, turned_s = 0, time.monotonic()
        try:
            while not self.stopping.is_set():
                self._note(time.monotonic(), None)
                try:
                    if not looked_at_stake:
                        self.warn_unless_staked()
                        looked_at_stake = True
                    if not trusting and rounds % ROUNDS_TO_TRUST == 0:
                        trusting = self.trust_committee()
                    rounds += 1
                    if time.monotonic() - turned_s >= TURN_S:
                        self.network.turn()
                        turned_s = time.monotonic()
                    self.look_at_version()
                    self.act()
                    if down:
                        log.info("the network answers again")
                    down = False
                    self.meters.round()
                except (NetworkError, NotFound, LedgerRefused) as reason:
                    # What is asked for here every aggregator has: a refusal is of no more use than silence.
                    if not down:
                        log.warning("%s", reason)
                    down = True
                    self.meters.error(reason)
                    self.network.turn()  # one that answers uselessly would else be asked for ever
                self._note(None, down)
                self.stopping.wait(self.config.poll_s)
        finally:
            self.close()

    def _note(self, began_s: float | None, down: bool | None) -> None:
        """Tell the monitor that a round begins or has ended."""
        if self.monitor is None:
            return
        loop = self.monitor.loop
        if began_s is not None:
            loop.began_s = began_s
        if down is not None:
            loop.down = down
            loop.ended_well_s = loop.ended_well_s if down else time.monotonic()

    def trust_committee(self) -> bool:
        """Demand certificates of the chain's committee; whether the chain could be asked who that is."""
        try:
            self.network.trust(self.chain().speaking_committees)
        except ChainError as reason:
            level = logging.DEBUG if self._doubted else logging.WARNING
            log.log(level, "%s; accepted transactions are believed without proof until it answers", reason)
            self._doubted = True
            return False
        return True

    def look_at_version(self) -> None:
        """Say when the network follows, or is about to follow, rules that this software does not know.

        One aggregator says so: it is told, once, and the work goes on as well as it can.
        """
        if time.monotonic() - self._looked_at_version_s < LOOK_AT_VERSION_S:
            return
        self._looked_at_version_s = time.monotonic()
        before, self.outdated = self.outdated, unknown_version(self.network.get("/v1/status"))
        if self.outdated is not None and self.outdated != before:
            log.error("%s", self.outdated)

    def warn_unless_staked(self) -> None:
        """Say at once what the ledger would say of every piece of work: too little stake."""
        if self.role is None:
            return
        name = self.role.name.lower()
        need = fetch_parameters(self.network)[self.role.parameter]
        have = sum(stake.bonded_wei for stake in fetch_stakes(self.network, self.me) if stake.role == name)
        if have >= max(1, need) or self._staked_on_chain() >= max(1, need):
            return
        log.warning(
            "%s has a stake of %d wei as %s and needs %d: its work will be refused; "
            "run `dtn %s register --config FILE`",
            self.me,
            have,
            name,
            need,
            name,
        )

    def _staked_on_chain(self) -> int:
        """What the ledger has yet to take in; zero if the chain cannot be asked."""
        assert self.role is not None, "a client stakes nothing"
        try:
            return self.chain().stake_of(self.signer.address, self.role)[0]
        except ChainError as reason:
            log.debug("%s", reason)
            return 0

    def act(self) -> None:
        """Look at the ledger once and do what is to be done; must not take long."""
        raise AssertionError("an actor says what it does")

    def close(self) -> None:
        """Release what the actor holds."""
        self.stopping.set()
        if self.monitor is not None:
            self.monitor.stop()
        self.gateway.stop()
        self.network.close()

    # Shared by the roles -----------------------------------------------------------------------------

    def orders_in(self, *phases: str) -> list[Json]:
        """Details of the running ``open`` orders in these phases, best paid first.

        An order that has gone on since it was listed is left out: its deadline would be another phase's.
        """
        listed = read("orders", Orders, self.network.get("/v1/orders", limit=MOST_LISTED)).orders
        wanted = [row.oid for row in listed if row.phase in phases and row.kind == "open"]
        details = []
        for oid in wanted:
            try:
                detail = fetch_open(self.network, oid)
            except NotFound:
                continue  # listed by one aggregator and asked of another that has yet to catch up
            if detail is not None and detail["phase"] in phases:
                details.append(detail)
        return details

    def drop_settled(self) -> None:
        """Drop what orders needed that were settled `keep_s` ago; looks at most every `LOOK_AT_SETTLED_S`.

        That an order is settled, f + 1 of the network file's aggregators must say: one liar could else have a
        model dropped that a jury is about to ask for. The chain is not asked: while it hangs, so would this.
        """
        if time.monotonic() - self._looked_at_settled_s < LOOK_AT_SETTLED_S:
            return
        self._looked_at_settled_s = time.monotonic()
        unsettled = self.retention.unsettled()
        # In turn: some may never be, as orders that the chain never took.
        first = self._next_asked % max(1, len(unsettled))
        self._next_asked = first + MOST_ASKED
        for oid in (unsettled[first:] + unsettled[:first])[:MOST_ASKED]:
            if self._is_settled(oid):
                self.retention.settled(oid, time.time_ns() // 1_000_000)
        dropped = False
        for oid, cids in self.retention.due(time.time_ns() // 1_000_000).items():
            self.forget_order(oid)
            for cid in cids:
                with contextlib.suppress(NotStored):
                    self.store.unpin(cid)
            self.retention.forget(oid)
            dropped = True
            log.info("dropped %d files of order %s, which was settled long ago", len(cids), oid)
        if dropped:
            self.store.collect()

    def forget_order(self, oid: str) -> None:
        """Remove what else is kept for an order whose time is over, before its files go."""

    def _is_settled(self, oid: str) -> bool:
        path = f"/v1/orders/{oid}"
        try:
            # One member's word first, which costs little: most orders that are asked about still run.
            if fetch_detail(self.network, oid)["phase"] != "settled":
                return False
            answer = self.network.agreed(path, lambda detail: detail["phase"])
        except (NetworkError, NotFound, LedgerRefused) as reason:
            log.debug("%s", reason)
            return False
        return bool(answer["phase"] == "settled")

    def attempt(self, what: str, action: Any, *arguments: Any, **named: Any) -> bool:
        """Do one thing for one order; a refusal or a dead link is logged and the others go on."""
        with about(**_order_in(*arguments, *named.values())):
            try:
                action(*arguments, **named)
            except NetworkError:
                raise
            except ProtocolError as reason:
                log.warning("%s: %s", what, reason)
                self.meters.error(reason)
                return False
            return True


def _order_in(*arguments: Any) -> dict[str, str]:
    """The order that an action's arguments are about, if they hold its detail or its OID."""
    for argument in arguments:
        if isinstance(argument, dict) and isinstance(argument.get("oid"), str):
            return {"oid": argument["oid"]}
        if isinstance(argument, bytes) and len(argument) == 32:
            return {"oid": "0x" + argument.hex()}
    return {}
