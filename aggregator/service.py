"""``dtn aggregator run``: puts one aggregator together and runs it until it is told to stop.

Composition only: journal, chain, links, replica and ledger (`aggregator.node`), settlements and the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Iterator, Mapping

import uvicorn

from aggregator.api.app import build_app
from aggregator.config import AggregatorConfig, InvalidConfig
from aggregator.journal.journal import Journal
from aggregator.ledger.rules import RULES, Rulebook
from aggregator.links.keys import LinkKey
from aggregator.links.links import Links, Peer
from aggregator.node import Aggregator
from aggregator.origin.origin import OriginSource
from aggregator.origin.reader import ChainReader
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import LinkMessage, ReportSignature
from aggregator.pbft.quorum import Members
from aggregator.tracing import OrderTraces
from aggregator.update.service import UpdateService
from protocol import tracing
from protocol.chain.client import ChainClient, connect
from protocol.endpoint import link_address
from protocol.errors import ChainError, ProtocolError, UnknownVersion
from protocol.version import beyond

log = logging.getLogger(__name__)

PEER_PERIOD_S = 5.0
SHUTDOWN_S = 3.0


class _Server(uvicorn.Server):
    """A server that leaves signals to the service it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Service:
    """One running aggregator."""

    def __init__(self, config: AggregatorConfig, rules: Rulebook = RULES) -> None:
        self._config = config
        key, book = config.key(), config.book()
        self._chain = ChainClient(connect(config.rpc_url, book.chain_id), book, key)
        committees = self._read_committees({})
        latest = max(committees)
        if key.address not in committees[latest] + committees.get(latest - 1, ()):
            raise InvalidConfig(
                f"0x{key.address.hex()} is no member of the committee; governance appoints members"
            )
        self._journal = Journal.at(config.data_dir / "journal")
        self._key = key
        self._registered_key = self._chain.endpoint_of(key.address)[1]
        """The link key that the others expect of this member, as the chain said last."""
        self._refused_key = b""
        """A registered key that is none of this account's, once that has been told."""
        self._links = Links(LinkKey.registered(key, self._registered_key), config.link_listen, rules.versions)
        self._node = Aggregator(
            members=Members(domain=self._chain.domain, addresses=committees[1]),
            key=key,
            treasury=bytes.fromhex(book.treasury[2:]),
            journal=self._journal,
            origins=OriginSource(ChainReader(self._chain)),
            confirmations=self._chain.parameter("confirmations"),
            send=self._send,
            limits=Limits(
                view_timeout_ms=config.view_timeout_ms,
                relay_votes=config.relay_votes,
                unanimity_ms=config.unanimity_ms,
            ),
            rules=rules,
        )
        self._node.committees.update(committees)
        if tracing.enabled():
            self._node.on_applied = OrderTraces(self._chain.domain).applied
        self._update = UpdateService(
            key=key,
            chain=self._chain,
            state=lambda: self._node.state,
            broadcast=lambda message: self._links.broadcast(message),
            patience_s=config.settle_patience_s,
        )

    def _send(self, to: int | None, message: LinkMessage) -> None:
        if to is None:
            self._links.broadcast(message)
        else:
            self._links.send(to, message)

    def _alarms(self) -> list[str]:
        node = self._node
        raised = (node.chain_alarm, node.repair_alarm, node.version_alarm, self._update.alarm)
        return [alarm for alarm in raised if alarm]

    async def run(self) -> None:
        """Recover, listen, take part; returns after SIGTERM or SIGINT."""
        await asyncio.to_thread(self._node.recover)
        if self._node.state.origin is None:
            await asyncio.to_thread(self._require_known_version)
        # What was recovered lives as long as the process: to look through it for garbage stops all else.
        gc.collect()
        gc.freeze()
        # Peers before listening: whoever is refused comes again, but later.
        self._links.set_peers(await asyncio.to_thread(self._read_peers))
        self._links.start()
        place = "an observer" if self._node.index is None else f"member {self._node.index}"
        log.info("%s resumes at sequence %d", place, self._node.replica.executed)
        app = build_app(
            self._node,
            self._alarms,
            requests_per_s=self._config.api_requests_per_s,
            links=self._links.counters,
            silences_s=self._links.silences_s,
            order_book=self._config.book().orders,
        )
        listener = self._listen()
        server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,  # its own would write lines that are not like ours
                log_level="warning",
                access_log=False,
                limit_concurrency=512,
                timeout_graceful_shutdown=1,
            )
        )
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        jobs = [
            self._node.run(),
            self._receive(),
            self._keep_peers(),
            self._update.run(),
        ]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        tasks = [*(asyncio.create_task(job) for job in jobs), serving]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # a part that ended by itself ended in an error: show it
        finally:
            server.should_exit = True
            await asyncio.wait([serving], timeout=SHUTDOWN_S)
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)
            await self._links.close()
            self._journal.close()

    def _require_known_version(self) -> None:
        """A ledger that begins now begins, or is taken over, under what the chain says."""
        version, known = self._chain.parameter("protocol_version"), self._node.rules.versions
        if version not in known:
            raise UnknownVersion(beyond(version, None, known))

    def _listen(self) -> socket.socket:
        where = (self._config.api_host, self._config.api_port)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(where)
            listener.listen()  # until one of them listens, two processes may bind the same address
        except OSError as reason:
            listener.close()
            raise InvalidConfig(
                f"cannot serve the API on {where[0]}:{where[1]}: {reason.strerror}; choose another api_port"
            ) from reason
        return listener

    async def _receive(self) -> None:
        while True:
            for sender, message in await self._links.receive():
                if isinstance(message, ReportSignature):
                    self._update.on_signature(message)
                else:
                    await self._node.on_link_message(sender, message)

    async def _keep_peers(self) -> None:
        """Connect to the members where the chain says they are, and follow their moves."""
        peers: dict[int, Peer] = {}
        while True:
            await asyncio.sleep(PEER_PERIOD_S)
            try:
                peers = await asyncio.to_thread(self._read_peers)
            except ChainError as reason:
                log.warning("%s; known links stay", reason)
            self._take_up_link_key()
            if peers:
                self._links.set_peers(peers)

    def _take_up_link_key(self) -> None:
        """Follow the registry to another link key of this account (``dtn aggregator rotate-link``)."""
        if self._registered_key in (self._links.key, self._refused_key):
            return
        if LinkKey.number_of(self._key, self._registered_key) is None:
            self._refused_key = self._registered_key
            log.error(
                "the registered link key 0x%s is none of this account's: the other members refuse this one; "
                "run `dtn aggregator rotate-link`",
                self._registered_key.hex(),
            )
            return
        self._links.rekey(LinkKey.registered(self._key, self._registered_key))
        log.info("the link key is 0x%s from now on, as registered", self._registered_key.hex())

    def _read_committees(self, known: Mapping[int, tuple[bytes, ...]]) -> dict[int, tuple[bytes, ...]]:
        """The committees of all epochs so far; those that are ``known`` are not asked for again."""
        epochs = range(1, self._chain.committee_epoch() + 1)
        return {epoch: known.get(epoch) or self._chain.members_of(epoch) for epoch in epochs}

    def _read_peers(self) -> dict[int, Peer]:
        """Whoever orders batches now, in their places, and after them whoever the chain has appointed."""
        committees = self._read_committees(self._node.committees)
        self._node.committees.update(committees)
        ordering = self._node.members.addresses
        appointed = committees[max(committees)]
        peers = {}
        for index, account in enumerate((*ordering, *(who for who in appointed if who not in ordering))):
            endpoint, link_key = self._chain.endpoint_of(account)
            if account == self._key.address:
                self._registered_key = link_key
            address = link_address(endpoint)
            if address is not None:
                peers[index] = Peer(index=index, address=address, link_key=link_key)
        return peers


def run(config: AggregatorConfig, rules: Rulebook = RULES) -> None:
    """Run an aggregator that executes by ``rules`` until it is told to stop.

    Raises:
        ProtocolError: what ended it: a full disk, a damaged journal, a taken address.
    """
    try:
        asyncio.run(Service(config, rules).run())
    except* ProtocolError as failures:
        raise _first(failures) from None


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
