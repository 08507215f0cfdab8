"""Webhooks: signed, tried again, durable, and never in the way of the daemon's work."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from offchain.client import webhooks
from offchain.client.webhooks import (
    RETRIES_S,
    InvalidSecret,
    Message,
    Outbox,
    Webhooks,
    make_secret,
    read_secret,
)
from protocol.keyfile import InvalidKeyFile
from tests.client.receiver import Receiver

OID = "0x" + "ab" * 32


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().up() as up:
        yield up


@pytest.fixture
def secret(tmp_path: Path) -> bytes:
    make_secret(tmp_path / "secret")
    return read_secret(tmp_path / "secret")


def test_a_message_carries_a_signature_that_only_the_secret_makes(
    tmp_path: Path, receiver: Receiver, secret: bytes
) -> None:
    hooks = Webhooks(receiver.url, secret, tmp_path / "out", clock_s=Clock())
    hooks.tell("order.phase", OID, 2, {"phase": "reveal"})
    assert hooks.send_due() and not hooks.send_due() and len(hooks.outbox) == 0
    ((headers, body),) = receiver.taken
    assert json.loads(body)["data"] == {"oid": OID, "phase": "reveal"}
    # As the standard says it, by hand: base64 of HMAC-SHA256 over id.timestamp.body.
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}" and headers["webhook-timestamp"] == "1800000000"


def test_what_is_refused_is_tried_again_later_and_lets_others_pass(
    tmp_path: Path, receiver: Receiver, secret: bytes
) -> None:
    clock = Clock()
    hooks = Webhooks(receiver.url, secret, tmp_path / "out", clock_s=clock)
    receiver.statuses = [503, 302]
    hooks.tell("order.phase", OID, 0, {"phase": "training"})
    assert hooks.send_due()
    hooks.tell("order.phase", OID, 1, {"phase": "reveal"})
    assert hooks.send_due() and not hooks.send_due(), "a redirect is no success, and both wait now"
    clock.now_s += RETRIES_S[0]
    assert hooks.send_due() and hooks.send_due() and not hooks.send_due()
    ids = [headers["webhook-id"] for headers, _ in receiver.taken]
    assert ids[:2] == ids[2:] and ids[0] != ids[1]
    stamps = {headers["webhook-timestamp"] for headers, _ in receiver.taken}
    assert len(stamps) == 2, "each try is signed anew"


def test_after_the_last_try_a_message_is_given_up(
    tmp_path: Path, receiver: Receiver, secret: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    hooks = Webhooks(receiver.url, secret, tmp_path / "out", clock_s=clock)
    receiver.statuses = [500] * 100
    hooks.tell("order.phase", OID, 0, {})
    for pause_s in (*RETRIES_S, 0):
        assert hooks.send_due() and not hooks.send_due()
        clock.now_s += pause_s
    assert len(receiver.taken) == len(RETRIES_S) + 1 and len(hooks.outbox) == 0
    assert "given up" in caplog.text and not list((tmp_path / "out").iterdir())


def test_who_says_gone_is_not_asked_again(tmp_path: Path, receiver: Receiver, secret: bytes) -> None:
    hooks = Webhooks(receiver.url, secret, tmp_path / "out")
    receiver.statuses = [410]
    hooks.tell("order.phase", OID, 0, {})
    assert hooks.send_due() and len(hooks.outbox) == 0


def test_what_waits_survives_a_restart_with_its_tries(tmp_path: Path, secret: bytes) -> None:
    clock = Clock()
    dead = Webhooks("http://127.0.0.1:1/", secret, tmp_path / "out", clock_s=clock)
    dead.tell("order.phase", OID, 0, {"phase": "training"})
    dead.tell("order.phase", OID, 1, {"phase": "reveal"})
    assert dead.send_due()
    (tmp_path / "out" / "000000000009-x.json").write_text("{")
    with Receiver().up() as receiver:
        again = Webhooks(receiver.url, secret, tmp_path / "out", clock_s=clock)
        assert len(again.outbox) == 2
        assert again.send_due() and not again.send_due(), "the first one's pause is kept"
        clock.now_s += RETRIES_S[0]
        assert again.send_due()
        places = [json.loads(body)["data"]["phase"] for _, body in receiver.taken]
        assert places == ["reveal", "training"]


def test_too_many_drop_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_WAITING", 3)
    outbox = Outbox(tmp_path / "out")
    messages = [Message.about("order.phase", OID, place, {}, 0.0) for place in range(5)]
    for message in messages:
        outbox.add(message)
    assert len(outbox) == 3 == len(list((tmp_path / "out").iterdir()))
    first = outbox.due(1.0)
    assert first is not None and first[1] == messages[2]


def test_a_receiver_that_never_answers_holds_nobody(
    tmp_path: Path, secret: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.2)
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # listens, and answers nobody
    try:
        url = f"http://127.0.0.1:{silent.server_address[1]}"
        hooks = Webhooks(url, secret, tmp_path / "out")
        hooks.start()
        for place in range(3):
            hooks.tell("order.phase", OID, place, {})
        hooks.stop()
        assert len(Outbox(tmp_path / "out")) == 3
    finally:
        silent.server_close()


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    text = make_secret(path)
    assert path.stat().st_mode & 0o077 == 0 and len(read_secret(path)) == 32
    with pytest.raises(InvalidKeyFile):
        make_secret(path)
    assert text.startswith("whsec_")


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "whsec_%%%", "whsec_" + "A" * 200, "\xff"])
def test_what_is_no_secret_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidSecret, match="dtn client webhook") as refusal:
        read_secret(path)
    assert text.removeprefix("whsec_") not in str(refusal.value) or not text.removeprefix("whsec_")
    with pytest.raises(InvalidSecret, match="cannot read"):
        read_secret(tmp_path / "none")
