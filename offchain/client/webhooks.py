"""Telling a program of the client's, by HTTP, that an order has changed phase or that its model is ready.

Messages wait in a folder until they are taken, each in a file with its tries, and are sent in the order in
which they came to be; one that is refused is tried again later and lets the others pass. A receiver may get a
message twice (with the same ``webhook-id``), and must take it as a hint: what is in it is one aggregator's
word, so what follows from it goes through `Client`, which checks.

Guarantees: a message is on disk before the daemon counts it as told; whatever the receiver does, the daemon's
own work never waits; at most `MAX_WAITING` messages wait and none longer than `RETRIES_S` together; the
secret leaves this machine in no form but signatures.

Source: Standard Webhooks 1.0 (headers, signature, retries).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import httpx

from offchain.files import NotWritten, write_whole
from protocol.errors import ProtocolError
from protocol.keyfile import write_private

log = logging.getLogger(__name__)

RETRIES_S: Final = (5, 30, 120, 600, 3_600, 6 * 3_600, 24 * 3_600)
"""Pauses after the first, second, … failure; after the last one a message is given up."""
TIMEOUT_S: Final = 15.0
MAX_WAITING: Final = 1_000
MAX_ANSWER_BYTES: Final = 64 * 1024
SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = range(24, 65)
GONE: Final = 410
"""A receiver's "never again"."""

Json = dict[str, Any]


class InvalidSecret(ProtocolError):
    """A file that holds no secret for signing webhooks."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way."""

    id: str
    kind: str
    body: str
    failures: int = 0
    due_s: float = 0.0
    """Unix seconds before which it is not tried again."""

    @classmethod
    def about(cls, kind: str, oid: str, place: int, data: Json, now_s: float) -> Self:
        """A message about the phase at ``place`` of an order; the same one always has the same id."""
        stamp = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds")
        body = {"type": kind, "timestamp": stamp, "data": {"oid": oid, **data}}
        name = hashlib.sha256(f"{kind} {oid} {place}".encode()).hexdigest()[:32]
        return cls(f"msg_{name}", kind, json.dumps(body, separators=(",", ":")))


def make_secret(path: Path) -> str:
    """A new secret, written to ``path`` for its owner's eyes; raises `InvalidKeyFile` if that is there."""
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    write_private(path, secret + "\n")
    return secret


def read_secret(path: Path) -> bytes:
    """The secret in a file; raises `InvalidSecret`, which never quotes it."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except OSError as reason:
        raise InvalidSecret(f"cannot read {path}: {reason.strerror}") from reason
    except (UnicodeDecodeError, binascii.Error):
        key = b""
    if len(key) not in SECRET_BYTES:
        raise InvalidSecret(
            f"{path} holds no webhook secret ({SECRET_PREFIX} and 24 to 64 bytes in base64); "
            "`dtn client webhook` makes one"
        )
    return key


def sign(secret: bytes, name: str, stamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``: version 1 over id, Unix seconds and body."""
    digest = hmac.digest(secret, f"{name}.{stamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(digest).decode()


class Outbox:
    """Messages that wait, in a folder; thread-safe within one process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._waiting: dict[str, Message] = {}
        """By file name, which begins with the number of its turn."""
        for path in sorted(folder.glob("*.json")):
            try:
                self._waiting[path.name] = Message(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as reason:
                log.error("%s is damaged and left where it is: %s", path, reason)
        numbers = [int(name.partition("-")[0]) for name in self._waiting]
        self._next = max(numbers, default=0) + 1

    def add(self, message: Message) -> None:
        """Keep a message until it is taken; the oldest gives way where too many wait."""
        with self._lock:
            while len(self._waiting) >= MAX_WAITING:
                oldest = min(self._waiting)
                log.error("%d webhooks wait: giving up %s", MAX_WAITING, self._waiting[oldest].id)
                self._drop(oldest)
            name = f"{self._next:012d}-{message.id}.json"
            self._next += 1
            self._write(name, message)

    def due(self, now_s: float) -> tuple[str, Message] | None:
        """The first message to be tried now, and the name it is kept under."""
        with self._lock:
            return next(((n, m) for n, m in sorted(self._waiting.items()) if m.due_s <= now_s), None)

    def done(self, name: str) -> None:
        """It was taken, or never will be."""
        with self._lock:
            self._drop(name)

    def failed(self, name: str, now_s: float) -> bool:
        """It was not taken; whether it will be tried again."""
        with self._lock:
            message = self._waiting.get(name)
            if message is None:
                return False
            if message.failures >= len(RETRIES_S):
                self._drop(name)
                return False
            due_s = now_s + RETRIES_S[message.failures]
            self._write(name, replace(message, failures=message.failures + 1, due_s=due_s))
            return True

    def __len__(self) -> int:
        return len(self._waiting)

    def _write(self, name: str, message: Message) -> None:
        write_whole(self._folder / name, json.dumps(asdict(message)))
        self._waiting[name] = message

    def _drop(self, name: str) -> None:
        self._waiting.pop(name, None)
        (self._folder / name).unlink(missing_ok=True)


class Webhooks:
    """Sends what is in an outbox, in a thread of its own."""

    def __init__(
        self, url: str, secret: bytes, folder: Path, *, clock_s: Callable[[], float] = time.time
    ) -> None:
        self.url = url
        self.outbox = Outbox(folder)
        self._secret = secret
        self._clock_s = clock_s
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """End; what waits, waits on disk."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_S + 1)

    def tell(self, kind: str, oid: str, place: int, data: Json) -> None:
        """Keep a message about the phase at ``place`` of an order, and send it soon."""
        self.outbox.add(Message.about(kind, oid, place, data, self._clock_s()))
        self._wake.set()

    def send_due(self) -> bool:
        """Try the first message that is due; whether there was one."""
        found = self.outbox.due(self._clock_s())
        if found is None:
            return False
        name, message = found
        said = self.post(message)
        if said is None:
            self.outbox.done(name)
        elif said == str(GONE):
            self.outbox.done(name)
            log.error("webhook %s (%s) is dropped: the receiver is gone for good", message.id, message.kind)
        elif self.outbox.failed(name, self._clock_s()):
            log.warning("webhook %s (%s) was not taken: %s", message.id, message.kind, said)
        else:
            log.error("webhook %s (%s) is given up: %s", message.id, message.kind, said)
        return True

    def post(self, message: Message) -> str | None:
        """Send a message once; what went wrong, or none."""
        stamp, body = int(self._clock_s()), message.body.encode()
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(self._secret, message.id, stamp, body),
        }
        try:
            return _post(self.url, body, headers)
        except (httpx.HTTPError, httpx.InvalidURL) as reason:
            return str(reason) or type(reason).__name__

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self.send_due():
                    continue
            except (OSError, NotWritten) as reason:
                log.error("the folder of webhooks cannot be written: %s", reason)
            self._wake.wait(1.0)
            self._wake.clear()


def _post(url: str, body: bytes, headers: dict[str, str]) -> str | None:
    """POST once, no redirect followed, in `TIMEOUT_S` altogether; the status if it is no success."""
    deadline_s = time.monotonic() + TIMEOUT_S
    taken = 0
    with httpx.stream(
        "POST", url, content=body, headers=headers, timeout=TIMEOUT_S, follow_redirects=False
    ) as response:
        for chunk in response.iter_raw():
            taken += len(chunk)
            # What it answers is not read: only how, so that it may not hold this thread.
            if taken > MAX_ANSWER_BYTES or time.monotonic() > deadline_s:
                break
    return None if response.is_success else str(response.status_code)
