"""Put and Get for a client with a key (PoT 3.3.1).

`Client.put` checks everything, stores the data, escrows the money and returns the OID. From then on the
client's daemon (`offchain.client.daemon`) publishes the training data once the order's block is confirmed and
releases the test set when training closes. `Client.get` fetches the winning model and checks its hash.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from offchain.answers import (
    AccountView,
    OrderRow,
    OrderView,
    ValidationRow,
    Validations,
    fetch_credits,
    read,
)
from offchain.client.orders import OrderRecord, OrderRecords
from offchain.client.task_file import TaskFile, load_data
from offchain.committee import Committee, read_committee
from offchain.economics import fetch_history
from offchain.economics.quotes import OrderEstimate, estimate_order
from offchain.models.artifact import decode_model
from offchain.network import Network, NetworkError, NetworkFile
from offchain.storage import (
    Cid,
    EmbeddedStore,
    InvalidCid,
    StorageFull,
    Unavailable,
    fetch_file,
    link_to,
    parse_link,
)
from offchain.watching import Update, watch
from protocol import tracing
from protocol.architecture import Architecture
from protocol.chain.client import ChainClient, connect
from protocol.crypto import sha256
from protocol.errors import ChainError, InvalidArtifact, InvalidDocument, UnknownVersion
from protocol.keyfile import read_key
from protocol.rewards import bps_of
from protocol.signer import Signer
from protocol.task import (
    BlockHashSplit,
    FragmentReference,
    InitialParameters,
    NamedSplit,
    TaskDocument,
    make_task,
)
from protocol.transactions import Order, data_root, order_id
from protocol.version import SUPPORTED, beyond

log = logging.getLogger(__name__)

MOST_CLAIMED: Final = 50
"""Credits paid out in one transaction, far below what a block takes."""

AGREEING: Final = 10
AGREEING_PAUSE_S: Final = 0.3
"""Members answer alike once they have executed the same batches, which takes a moment after each."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task whose data this client holds, and whose document its daemon serves."""

    document: TaskDocument
    link: str
    """Where the task document is served: the order's ``task_link``."""


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """An order that the chain has taken."""

    oid: bytes
    order: Order
    transaction_hash: bytes
    gas_used: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """Credits that were paid out."""

    amount_wei: int
    epochs: tuple[int, ...]
    gas: tuple[int, ...]
    """Gas of each transaction it took."""


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """An escrow that came back."""

    amount_wei: int
    transaction_hash: bytes
    gas_used: int


class Client:
    """One client account on one network."""

    def __init__(
        self, file: NetworkFile, signer: Signer | None, data_dir: Path, store: EmbeddedStore | None = None
    ) -> None:
        """A client of ``signer``'s account: a `Key`, or an `ExternalSigner`; without one it only looks.

        ``store`` keeps the data of orders; the embedded one in ``data_dir`` if not given.
        """
        self._given_store = store
        self.file = file
        self.signer = signer
        self.network = Network(file, signer)
        self.data_dir = data_dir

    @classmethod
    def open(
        cls,
        network_file: str | Path,
        *,
        key_file: str | Path | None,
        data_dir: str | Path,
        signer: Signer | None = None,
    ) -> Self:
        """A client from files; raises typed errors that say what is missing.

        The password of a keystore comes from the environment, see `protocol.keyfile`. ``signer`` signs if no
        ``key_file`` is named, for example an `ExternalSigner`.
        """
        chosen = read_key(Path(key_file)) if key_file is not None else signer
        return cls(NetworkFile.read(Path(network_file)), chosen, Path(data_dir))

    def chain(self) -> ChainClient:
        """The contracts, as the client's account uses them."""
        book = self.file.address_book
        return ChainClient(connect(self.file.rpc_url, book.chain_id), book, self.signer)

    # Put -------------------------------------------------------------------------------------------

    def put(
        self, task: TaskFile, *, reward_wei: int, deposit_wei: int | None = None, gateway: str
    ) -> PlacedOrder:
        """Order a model (PoT ``Put``).

        Args:
            task: what to train. reward_wei: what it is worth. deposit_wei: forfeited if the test set is
                withheld; the smallest allowed if not given. gateway: URL at which the client's daemon
                serves its data.

        Raises:
            InvalidDocument: the task or the order would be refused; nothing was spent.
            UnknownVersion: this software does not know the network's rules; nothing was spent.
            ChainError: no funds, or the chain refused; the reward is untouched.
            SignerError: an external signer did not sign.
        """
        if self.signer is None:
            raise InvalidDocument(
                "nobody signs the order; name key_file, or signer_url and account, in the configuration"
            )
        began_ms, chain = time.time() * 1000, self.chain()
        parameters = chain.read_parameters()
        if parameters["protocol_version"] not in SUPPORTED:
            raise UnknownVersion(beyond(parameters["protocol_version"], None, SUPPORTED))
        deposit = deposit_wei
        if deposit is None:
            deposit = bps_of(reward_wei, parameters["min_deposit_bps"])
        _check_bounds(task, reward_wei, deposit, parameters)
        prepared = self.prepare(task, gateway=gateway)
        document = prepared.document
        order = Order(
            client=self.signer.address,
            nonce=time.time_ns() // 1_000_000,
            kind="open",
            reward=reward_wei,
            deposit=deposit,
            train_window=task.windows.train_s,
            validate_window=task.windows.validate_s,
            challenge_window=task.windows.challenge_s,
            task_hash=document.digest(),
            task_link=prepared.link,
            data_root=data_root(document.fragment_digests()),
            baseline=task.baseline_millionths,
        )
        oid = order_id(self.file.domain, order)
        # Written before the money moves: whatever happens next, the daemon can serve this order.
        OrderRecords(self.data_dir).write(oid, OrderRecord.of(document))
        tracing.record("prepare", oid, began_ms)
        with tracing.span("put", oid, reward_wei=str(reward_wei)):
            receipt = chain.put(order)
        return PlacedOrder(oid, order, bytes(receipt["transactionHash"]), int(receipt["gasUsed"]))

    def prepare(self, task: TaskFile, *, gateway: str) -> PreparedTask:
        """Cut the data into fragments, keep them, and publish the task document: Put without the order.

        A wallet may then place the order itself (``scripts/put.py``); this client's daemon knows it by its
        task and looks after it.

        Raises:
            InvalidDocument: the task cannot be used. StorageFull: its data does not fit on the disk.
        """
        store = self._store()
        document = self._document(task, gateway, store)
        cid = store.put(document.canonical())
        OrderRecords(self.data_dir).prepare(document)
        store.publish(cid)
        if document.initial_parameters is not None:
            store.publish(Cid.parse(document.initial_parameters.cid))
        return PreparedTask(document, link_to(gateway, cid))

    def _store(self) -> EmbeddedStore:
        return self._given_store or EmbeddedStore(self.data_dir / "store")

    def _document(self, task: TaskFile, gateway: str, store: EmbeddedStore) -> TaskDocument:
        form, classes, fragments = load_data(task)
        architecture = task.model.architecture(form)
        references = []
        for data, count in fragments:
            cid = store.put(data)
            reference = FragmentReference(
                sha256="0x" + sha256(data).hex(), cid=str(cid), size_bytes=len(data), samples=count
            )
            references.append(reference)
        split: Json = (
            NamedSplit(test=task.test.named).model_dump()
            if task.test.named is not None
            else BlockHashSplit(test_count=task.test.fragments or 1).model_dump()
        )
        return make_task(
            {
                "title": task.title,
                "architecture": architecture.model_dump(mode="json"),
                "initial_parameters": _initial_parameters(task, architecture, store),
                "data": {
                    "classes": classes,
                    "fragments": [reference.model_dump() for reference in references],
                    "split": split,
                    "gateways": [gateway],
                },
                "metric": task.metric,
                "hints": task.hints,
            }
        )

    # Get -------------------------------------------------------------------------------------------

    def get(self, oid: bytes) -> tuple[bytes, Json]:
        """The winning model's file, and what the network says of it (PoT ``Get``).

        f + 1 members of the committee must name the same winner, MID and links, and the file must have that
        hash. The chain says how many that are and where; the network file does while the chain is silent.

        Raises:
            NotFound, LedgerRefused: no such order, or no winner (yet).
            NetworkError: too few aggregators are known, or agree.
            Unavailable: the file is not to be had. StorageFull: it does not fit into the temporary folder.
        """
        with tempfile.TemporaryDirectory(prefix="dtn-") as folder:
            path = Path(folder) / "model"
            answer = self.get_file(oid, path)
            return path.read_bytes(), answer

    def get_file(self, oid: bytes, path: Path, progress: Callable[[int], None] = lambda _: None) -> Json:
        """The winning model to ``path``, never whole in memory; returns what the network says.

        Interrupted, it goes on from there when it is called again. ``progress`` is told the bytes so far.

        Raises:
            StorageFull: it cannot be written; and what `get` raises. ``path`` is then as it was.
        """
        with tracing.span("get", oid):
            return self._get_file(oid, path, progress)

    def _get_file(self, oid: bytes, path: Path, progress: Callable[[int], None]) -> Json:
        answer = self._winner(oid)
        unchecked = path.with_name(path.name + ".unchecked")
        failures: list[str] = []
        for cid, gateways in _holders(answer["links"], failures).items():
            try:
                fetch_file(cid, gateways, unchecked, max_bytes=int(answer["sizeBytes"]), progress=progress)
            except Unavailable as reason:
                failures.append(str(reason))
                continue
            with open(unchecked, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == answer["mid"][2:]:
                try:
                    unchecked.replace(path)
                except OSError as reason:
                    raise StorageFull(f"cannot write {path}: {reason.strerror}") from reason
                return answer
            unchecked.unlink()
            failures.append(f"{cid} is another file than the winner's")
        raise Unavailable(f"the model of order 0x{oid.hex()} is not to be had: {'; '.join(failures)}")

    def _winner(self, oid: bytes) -> Json:
        """Which model won and where it is, as f + 1 members say alike."""
        found: Json = self.network.agreed(
            f"/v1/orders/0x{oid.hex()}/model",
            # Size and links too: the last to agree could otherwise send everybody to dead links.
            lambda a: (a["mid"], a["winner"], a["score"], a["sizeBytes"], a["links"]),
            self._committee(),
        )
        return found

    def watch(self, oid: bytes, *, stop: Callable[[], bool] = lambda: False) -> Iterator[Update]:
        """The states of an order until it is settled, each as f + 1 members of the committee describe it.

        Follows the event stream from one aggregator to the next and polls where there is none
        (`offchain.watching`). ``stop`` is asked between two looks.
        """
        return watch(self.network, oid, self._committee, stop=stop)

    # Looking ---------------------------------------------------------------------------------------

    def orders(
        self,
        *,
        phase: str | None = None,
        kind: str | None = None,
        client: str | None = None,
        winner: str | None = None,
    ) -> Iterator[OrderRow]:
        """Orders, best paid per second of training first and settled ones last (PoT ``FetchOrders``).

        One aggregator's list: it may leave something out. `order` tells of one what f + 1 members say.
        """
        chosen = {"phase": phase, "kind": kind, "client": client, "winner": winner}
        filters = {name: value for name, value in chosen.items() if value is not None}
        for row in self.network.pages("/v1/orders", "orders", **filters):
            yield read("orders", OrderRow, row)

    def order(self, oid: bytes) -> OrderView:
        """One order, as f + 1 members of the committee describe it.

        Raises:
            NotFound: they do not know it. NetworkError: too few of them answer, or agree.
        """
        return read("an order", OrderView, self._agreed(f"/v1/orders/0x{oid.hex()}"))

    def validations(self, oid: bytes) -> tuple[ValidationRow, ...]:
        """Who staked on which score of an order's models (PoT ``FetchValidations``); raises as `order`."""
        answer = self._agreed(f"/v1/orders/0x{oid.hex()}/validations")
        return read("validations", Validations, answer).validations

    def account(self, account: bytes | None = None) -> AccountView:
        """Stakes, receipts and credits of ``account``, or of this client; raises as `order`."""
        if account is None:
            if self.signer is None:
                raise InvalidDocument(
                    "whose account? give an address, or name a key file in the configuration"
                )
            account = self.signer.address
        return read("an account", AccountView, self._agreed(f"/v1/accounts/0x{account.hex()}"))

    def estimate(self, task: TaskFile) -> OrderEstimate:
        """What orders like this one paid and drew, out of one aggregator's latest settled orders.

        Raises:
            NetworkError: no aggregator answers. ChainError: the chain does not.
        """
        least = self.chain().parameter("min_reward_wei")
        return estimate_order(fetch_history(self.network), "open", task.windows.train_s, least)

    def _agreed(self, path: str) -> Json:
        """What f + 1 members answer alike; asked again while they are at different batches."""
        committee = self._committee()
        for _ in range(AGREEING - 1):
            try:
                return dict(self.network.agreed(path, dict, committee))
            except NetworkError as reason:
                log.debug("%s", reason)
                time.sleep(AGREEING_PAUSE_S)
        return dict(self.network.agreed(path, dict, committee))

    def _committee(self) -> Committee | None:
        try:
            return read_committee(self.chain())
        except ChainError as reason:
            log.warning("%s; trusting the network file to list the whole committee", reason)
            return None

    # Money -----------------------------------------------------------------------------------------

    def claim(self, account: bytes) -> Claimed:
        """Pay out every settled credit of ``account`` (anyone may), at most `MOST_CLAIMED` in a transaction.

        Raises:
            NetworkError: no aggregator answers, or not as it should.
            ChainError: the chain refused; what was paid before stays paid.
        """
        chain = self.chain()
        credits_ = fetch_credits(self.network, "0x" + account.hex())
        due = [credit for credit in credits_ if not chain.claimed(account, credit.epoch)]
        gas = []
        for start in range(0, len(due), MOST_CLAIMED):
            some = due[start : start + MOST_CLAIMED]
            receipt = chain.claim(
                account,
                [credit.epoch for credit in some],
                [credit.amount_wei for credit in some],
                [credit.proof for credit in some],
            )
            gas.append(int(receipt["gasUsed"]))
        return Claimed(
            sum(credit.amount_wei for credit in due), tuple(credit.epoch for credit in due), tuple(gas)
        )

    def reclaim(self, oid: bytes) -> Reclaimed:
        """Take back the escrow of an own order that the network let lapse (``OrderBook.reclaim``).

        Raises:
            InvalidDocument: nothing is there to take back, or not by this account, or not yet; says when.
            ChainError: the chain refused.
        """
        chain = self.chain()
        client, amount, due_s = chain.escrow_of(oid)
        if not due_s:
            raise InvalidDocument(f"no order 0x{oid.hex()} was ever placed on this chain; check the OID")
        if not amount:
            raise InvalidDocument(
                f"order 0x{oid.hex()} holds no escrow any more: it was settled or reclaimed; see `dtn order`"
            )
        if self.signer is None or client != self.signer.address:
            raise InvalidDocument(
                f"only its client 0x{client.hex()} can take the escrow of this order back; use that key"
            )
        left_s = due_s - chain.time_s()
        if left_s > 0:
            due = datetime.fromtimestamp(due_s, UTC).isoformat(sep=" ", timespec="seconds")
            raise InvalidDocument(
                f"the network may settle this order until {due}; "
                f"try again then, in {timedelta(seconds=left_s)}"
            )
        receipt = chain.reclaim(oid)
        return Reclaimed(amount, bytes(receipt["transactionHash"]), int(receipt["gasUsed"]))


def _holders(links: Sequence[str], failures: list[str]) -> dict[Cid, list[str]]:
    """Gateways by the file that they are said to have; what is no link goes to ``failures``."""
    found: dict[Cid, list[str]] = {}
    for link in links:
        try:
            gateway, cid = parse_link(link)
        except InvalidCid as reason:
            failures.append(str(reason))
            continue
        found.setdefault(cid, []).append(gateway)
    return found


def _initial_parameters(task: TaskFile, architecture: Architecture, store: EmbeddedStore) -> Json | None:
    """Keep the model that training starts from, if the task names one; raises `InvalidDocument`."""
    if task.initial is None:
        return None
    try:
        data = task.initial.read_bytes()
        decode_model(data, architecture)
    except OSError as reason:
        raise InvalidDocument(f"cannot read {task.initial}: {reason.strerror}") from reason
    except InvalidArtifact as reason:
        raise InvalidDocument(f"{task.initial} is no model of this task's architecture: {reason}") from reason
    return InitialParameters(sha256="0x" + sha256(data).hex(), cid=str(store.put(data))).model_dump()


def _check_bounds(task: TaskFile, reward_wei: int, deposit_wei: int, parameters: Any) -> None:
    """What ``OrderBook.put`` would refuse, refused here with the numbers a person wrote."""
    if reward_wei < parameters["min_reward_wei"]:
        raise InvalidDocument(
            f"the reward is {reward_wei} wei and must be at least {parameters['min_reward_wei']}; "
            "nothing was spent"
        )
    need = bps_of(reward_wei, parameters["min_deposit_bps"])
    if deposit_wei < need:
        raise InvalidDocument(
            f"the deposit is {deposit_wei} wei and must be at least {need}; nothing was spent"
        )
    for name, value in (
        ("train", task.windows.train_s),
        ("validate", task.windows.validate_s),
        ("challenge", task.windows.challenge_s),
    ):
        low, high = parameters[f"min_{name}_s"], parameters[f"max_{name}_s"]
        if not low <= value <= high:
            raise InvalidDocument(
                f"windows.{name}_s is {value} and must lie in [{low}, {high}]; nothing was spent"
            )
