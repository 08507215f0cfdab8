"""The network as a participant sees it: its aggregators' public API, with failover.

Guarantees: a transaction that `submit` returns from was ordered and accepted; one that it raises
`LedgerRefused` for changed nothing. An aggregator that is down is passed over; answers that matter to money
can be demanded from several aggregators at once (`agreed`), so that no single one can lie.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from offchain.committee import Committee
from protocol import tracing
from protocol.certificate import InvalidCertificate, certificate_from_json
from protocol.chain.deployment import AddressBook
from protocol.errors import ChainError, ProtocolError
from protocol.logs import about
from protocol.signer import Signer
from protocol.transactions import SignedTransaction, Transaction, sign_transaction, transaction_to_json
from protocol.typed_data import Domain
from protocol.version import SUPPORTED, Versions, beyond

log = logging.getLogger(__name__)

T = TypeVar("T")
Committees = tuple[tuple[bytes, ...], ...]
"""Whoever may sign for the ledger, the latest committee first; see `ChainClient.speaking_committees`."""

TIMEOUT_S: Final = 10.0
ORDER_WAIT_S: Final = 20.0
ANSWER_DEADLINE_S: Final = 60.0
MAX_ATTEMPTS: Final = 8
MAX_PAGES: Final = 1_000
"""Pages of one list: an aggregator that always has another one ends nobody's patience."""
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024


class NetworkError(ProtocolError):
    """No aggregator answers, or they do not agree."""


class Malformed(NetworkError, KeyError):
    """An aggregator's answer lacks something that the API promises."""

    __str__ = Exception.__str__


class Answer(dict[str, Any]):
    """An object in an answer: what it lacks is the aggregator's fault, not a bug here."""

    def __missing__(self, name: str) -> Any:
        raise Malformed(f"an aggregator's answer lacks {name!r}; ask another one")


class NotFound(ProtocolError):
    """The network does not know what was asked for."""


class LedgerRefused(ProtocolError):
    """The ledger refused a transaction or a question; ``code`` is for machines."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class NetworkFile(BaseModel):
    """Where a network is: chain, contracts, aggregators. Written by the deployer or the devnet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rpc_url: str
    address_book: AddressBook
    aggregators: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> NetworkFile:
        """The network file at ``path``; raises `NetworkError` with what to do."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as reason:
            raise NetworkError(
                f"no network file at {path}: start a local network with `dtn devnet up`, "
                "or name the file of another one with --network"
            ) from reason
        except ValidationError as reason:
            first = reason.errors()[0]
            where = ".".join(map(str, first["loc"])) or "file"
            raise NetworkError(f"{path} is no network file: {where}: {first['msg']}") from reason

    @property
    def domain(self) -> Domain:
        """The network's EIP-712 domain."""
        return Domain(self.address_book.chain_id, bytes.fromhex(self.address_book.parameters[2:]))


def unknown_version(status: Mapping[str, Any], known: Versions = SUPPORTED) -> str | None:
    """Why software that knows these protocol versions cannot go on with the network, or will not be able to.

    ``status`` is what an aggregator answers to ``/v1/status``; None while all is well, or it does not say.
    """
    version, upgrade = status.get("protocolVersion"), status.get("protocolUpgrade")
    if isinstance(version, int) and version not in known:
        return beyond(version, None, known)
    if isinstance(upgrade, Mapping):
        version, first = upgrade.get("version"), upgrade.get("first")
        if isinstance(version, int) and isinstance(first, int) and version not in known:
            return beyond(version, first, known)
    return None


class Network:
    """The public API of all aggregators; thread-safe."""

    def __init__(self, file: NetworkFile, signer: Signer | None = None) -> None:
        if not file.aggregators:
            raise NetworkError("the network file names no aggregator")
        self.file = file
        self.signer = signer
        self._client = httpx.Client(timeout=httpx.Timeout(TIMEOUT_S, connect=2.0), follow_redirects=False)
        # Everybody has the same list: each account begins elsewhere, or the first listed would serve all.
        self._first = 0 if signer is None else int.from_bytes(signer.address) % len(file.aggregators)
        self._nonce = 0
        self._committees: Committees = ()
        self._renewed: Callable[[], Committees] = lambda: self._committees
        self.on_submitted: Callable[[str, str], None] = lambda transaction, result: None
        """Told of every transaction sent: its kind, and ``accepted``, ``refused`` or ``unordered``."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    # Asking ----------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Ask another aggregator first from now on: what the present one answers is of no use."""
        self._first = (self._first + 1) % len(self.file.aggregators)

    def get(self, path: str, **params: str | int) -> Answer:
        """The answer of the first aggregator that gives one.

        Raises:
            NetworkError: none answers. NotFound, LedgerRefused: they do, with a refusal.
        """
        failures = []
        count = len(self.file.aggregators)
        for turn in range(count):
            index = (self._first + turn) % count
            url = self.file.aggregators[index]
            try:
                answer = self._ask("GET", url + path, params=params)
            except httpx.HTTPError as reason:
                failures.append(f"{url}: {reason or type(reason).__name__}")
                continue
            if not isinstance(answer, Answer):
                failures.append(f"{url}: answers with no JSON object")
                continue
            self._first = index
            return answer
        raise NetworkError(
            f"no aggregator answers ({'; '.join(failures)}); is the network up? see `dtn devnet status`"
        )

    def pages(self, path: str, name: str, **params: str | int) -> Iterator[Any]:
        """The rows of the list ``name``, page after page; stops after `MAX_PAGES`.

        Raises:
            NetworkError: none answers, or not with a list. NotFound, LedgerRefused: as `get`.
        """
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            answer = self.get(path, **params | ({"cursor": cursor} if cursor else {}))
            rows = answer.get(name)
            if not isinstance(rows, list):
                raise NetworkError(f"what aggregators answer to {path} is no list of {name}")
            yield from rows
            cursor = answer.get("next")
            if not isinstance(cursor, str):
                return

    def agreed(self, path: str, select: Callable[[Any], Any], committee: Committee | None = None) -> Any:
        """An answer on which f + 1 aggregators agree in what ``select`` picks: one of them is honest.

        Args:
            committee: the committee in force, if the chain could be asked. Its members are asked where they
                registered; the network file's aggregators, if too few registered or none is given.

        Raises:
            NetworkError: too few are known, too few answer, or they contradict each other.
        """
        listed = tuple(dict.fromkeys(url.rstrip("/") for url in self.file.aggregators))
        committee = committee or Committee(len(listed), listed)
        need = committee.enough
        urls = committee.apis if len(committee.apis) >= need else listed
        if len(urls) < need:
            raise NetworkError(
                f"{need} of {committee.size} aggregators must give the same answer, and the APIs of only "
                f"{len(urls)} are known: list more in the network file (`dtn network create` writes one), or "
                "wait until the members have registered theirs"
            )
        found: dict[str, list[Any]] = {}
        refusal: ProtocolError | None = None
        for url in urls:
            try:
                answer = self._ask("GET", url + path)
                group = found.setdefault(json.dumps(select(answer), sort_keys=True), [])
            except (httpx.HTTPError, httpx.InvalidURL, KeyError, TypeError):
                # Down, or not an answer to the question: either way this member has no say.
                continue
            except (NotFound, LedgerRefused) as reason:
                refusal = reason
                continue
            group.append(answer)
            if len(group) >= need:
                return answer
        if refusal is not None and not found:
            raise refusal
        raise NetworkError(
            f"fewer than {need} of {committee.size} aggregators give the same answer to {path}; "
            "try again later"
        )

    def proved(self, path: str, check: Callable[[Any, Domain, Sequence[bytes]], T]) -> T:
        """What ``check`` makes of the first answer that it finds proved, given the domain and the members.

        Raises:
            InvalidCertificate: somebody answers, but nobody can prove it; or `trust` has not said by whom.
            NotFound: nobody knows it. NetworkError: nobody answers.
        """
        if not self._committees:
            raise InvalidCertificate(
                "nobody's proof counts before the committee is known: call trust() first"
            )
        failures: list[str] = []
        unproved: ProtocolError | None = None
        for url in self.file.aggregators:
            try:
                answer = self._ask("GET", url + path)
                return self._by_any_committee(functools.partial(check, answer, self.file.domain))
            except (httpx.HTTPError, httpx.InvalidURL) as reason:
                failures.append(f"{url}: {reason or type(reason).__name__}")
            except InvalidCertificate as reason:
                log.warning("%s answers without proof: %s", url, reason)
                unproved = reason
            except NotFound as reason:
                unproved = unproved or reason
        if unproved is not None:
            raise unproved
        raise NetworkError(f"no aggregator answers ({'; '.join(failures)})")

    def _ask(self, method: str, url: str, **arguments: Any) -> Any:
        if self._client.is_closed:
            raise NetworkError("the connections were closed: this process is ending")
        deadline_s = time.monotonic() + ANSWER_DEADLINE_S
        with self._client.stream(method, url, **arguments) as response:
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                # The timeout bounds each wait only: an aggregator that drips would hold us for ever.
                if time.monotonic() > deadline_s:
                    raise httpx.ReadTimeout(f"{url} took more than {ANSWER_DEADLINE_S:.0f} s")
                if len(data) > MAX_ANSWER_BYTES:
                    raise httpx.ReadError(f"{url} answers with more than {MAX_ANSWER_BYTES} bytes")
        try:
            answer = json.loads(data, object_hook=Answer)
        except (ValueError, RecursionError) as reason:
            raise httpx.ReadError(f"{url} does not answer with JSON") from reason
        if response.is_success:
            return answer
        error = answer.get("error") if isinstance(answer, Answer) else None
        error = error if isinstance(error, dict) else {}
        code, text = str(error.get("code", "")), str(error.get("reason", ""))
        if response.status_code == 404:
            raise NotFound(text or f"{url} is not known")
        if response.status_code in (429, 500, 502, 503, 504) or not code:
            raise httpx.ReadError(f"{url} answers {response.status_code} {text}")
        raise LedgerRefused(code, text)

    def trust(self, committees: Callable[[], Committees]) -> None:
        """Demand proof from now on: every accepted transaction must carry a certificate of one of these.

        ``committees`` is asked now, and again when a proof convinces none of those known: the chain may have
        appointed another.

        Raises:
            ChainError: as ``committees`` does; nothing is demanded then that was not before.
        """
        self._committees = committees()
        self._renewed = committees

    def _require_proof(self, answer: Any, transaction: bytes) -> None:
        if self._committees:
            certificate = certificate_from_json(answer.get("certificate"))
            self._by_any_committee(lambda members: certificate.verify(self.file.domain, members, transaction))

    def _by_any_committee(self, check: Callable[[tuple[bytes, ...]], T]) -> T:
        """What ``check`` says by the first committee that convinces it."""
        known = self._committees
        try:
            return _first_convincing(check, known)
        except InvalidCertificate:
            with contextlib.suppress(ChainError):
                self._committees = self._renewed()
            if self._committees == known:
                raise
        return _first_convincing(check, self._committees)

    # Telling ---------------------------------------------------------------------------------------

    def submit(self, kind: type[Transaction], **fields: Any) -> Any:
        """Sign and send a transaction and wait until it is ordered.

        Args:
            kind: which transaction. fields: all of it but sender and nonce.

        Raises:
            LedgerRefused: the ledger's reason, as f + 1 aggregators tell it: one of them is honest.
            NetworkError: not ordered in time. SignerError: an external signer did not sign it.
        """
        if self.signer is None:
            raise NetworkError("nobody signs; name key_file, or signer_url and account, in the configuration")
        result, oid = "unordered", fields.get("oid")
        traced = tracing.span(f"submit {kind.__name__}", oid) if oid else contextlib.nullcontext()
        try:
            with traced:
                answer = self._submit(kind, fields, self.signer)
            result = "accepted"
        except LedgerRefused:
            result = "refused"
            raise
        finally:
            self.on_submitted(kind.__name__, result)
        _log_accepted(kind.__name__, fields, answer)
        return answer

    def _submit(self, kind: type[Transaction], fields: dict[str, Any], signer: Signer) -> Any:
        with self._lock:
            for _ in range(3):
                self._nonce = max(self._nonce + 1, time.time_ns() // 1_000_000)
                body = kind(sender=signer.address, nonce=self._nonce, **fields)
                signed = sign_transaction(self.file.domain, body, signer)
                try:
                    return self._send(signed)
                except LedgerRefused as refused:
                    if refused.code != "StaleNonce":
                        raise
        raise NetworkError("another process uses this account's nonces; run one actor per account")

    def _send(self, signed: SignedTransaction) -> Any:
        """Offer a signed transaction to one aggregator after another until one proves that it is ordered.

        That it was refused nobody can prove: so many must say so that one of them is honest.
        """
        document, data = transaction_to_json(signed), signed.encode()
        urls = self.file.aggregators
        need = Committee(len(set(urls)), ()).enough
        refusals: dict[str, LedgerRefused] = {}
        failure = ""
        for attempt in range(max(MAX_ATTEMPTS, need)):
            url = urls[(self._first + attempt) % len(urls)]
            try:
                answer = self._ask(
                    "POST",
                    f"{url}/v1/transactions",
                    params={"wait_s": ORDER_WAIT_S / 2},
                    json=document,
                    timeout=ORDER_WAIT_S,
                )
            except LedgerRefused as reason:
                refusals[url] = reason
                if len(refusals) >= need:
                    raise
                continue
            except (httpx.HTTPError, NotFound) as reason:
                failure = f"{url}: {reason or type(reason).__name__}"
                time.sleep(0.2)
                continue
            if not isinstance(answer, Answer) or answer.get("status") != "accepted":
                failure = f"{url} has not seen it ordered yet"
                continue
            try:
                self._require_proof(answer, data)
            except InvalidCertificate as reason:
                log.warning("%s claims that a transaction was ordered, but %s", url, reason)
                failure = f"{url} cannot prove that it was ordered"
                continue
            return answer
        failure = next((f"{url} refuses it: {reason}" for url, reason in refusals.items()), failure)
        raise NetworkError(f"the transaction was not ordered in time ({failure}); it may still be")


def _log_accepted(kind: str, fields: Mapping[str, Any], answer: Any) -> None:
    """Say where a transaction was ordered, with the ids under which the aggregators log the same batch."""
    oid, sequence = fields.get("oid"), answer.get("sequence")
    ids: dict[str, str | int] = {"transaction": kind, "tx": str(answer.get("id"))}
    if isinstance(oid, bytes):
        ids["oid"] = "0x" + oid.hex()
    if isinstance(sequence, int):
        ids["sequence"] = sequence
    with about(**ids):
        log.info("%s %s was accepted in batch %s", kind, ids["tx"], sequence)


def _first_convincing(check: Callable[[tuple[bytes, ...]], T], committees: Committees) -> T:
    latest, *earlier = committees
    try:
        return check(latest)
    except InvalidCertificate:
        for members in earlier:
            with contextlib.suppress(InvalidCertificate):
                return check(members)
        raise
