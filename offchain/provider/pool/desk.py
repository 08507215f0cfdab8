"""The leader's desk: members report at it every second or so, and are told what to do.

``POST /v1/pool/report`` takes a signed `Report` and answers with a signed `Instruction`. Nothing else is
served.
"""

from __future__ import annotations

import threading
import time

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from offchain.provider.pool.letters import (
    MAX_LETTER_BYTES,
    Instruction,
    InvalidLetter,
    Report,
    Round,
    opened,
    signed,
)
from offchain.provider.pool.roster import NotWelcome, Roster
from offchain.provider.pool.settings import PoolSettings
from offchain.serving import HttpServer
from protocol.crypto import Key


class Desk:
    """What the leader wants of its members, and what they say; safe to use from several threads."""

    def __init__(self, settings: PoolSettings, key: Key) -> None:
        self.settings = settings
        self._key = key
        self._lock = threading.Lock()
        self._roster = Roster(settings.members, settings.silence_s)
        self._order: str | None = None
        self._round: Round | None = None
        self._server = HttpServer(_app(self), "pool's desk", settings.host, settings.port)

    def start(self) -> None:
        """Listen; raises `CannotServe`."""
        self._server.start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.stop()

    def announce(self, oid: str | None) -> None:
        """Have the members get ready for an order; None when there is none."""
        with self._lock:
            self._order = oid

    def call(self, gathering: Round | None) -> None:
        """Have its accounts take part in a round, and all others end theirs."""
        with self._lock:
            self._round = gathering

    def there(self) -> tuple[str, ...]:
        """Members that have reported lately."""
        with self._lock:
            return self._roster.there(time.monotonic())

    def ready(self, oid: str) -> tuple[str, ...]:
        """Members that are ready for an order."""
        with self._lock:
            return self._roster.ready(oid, time.monotonic())

    def lost(self, gathering: Round) -> tuple[str, ...]:
        """Members on which a round cannot count any more."""
        with self._lock:
            return self._roster.lost(gathering.accounts[1:], gathering.number, time.monotonic())

    def answer(self, letter: bytes) -> bytes:
        """The answer to a report; raises `InvalidLetter` or `NotWelcome`."""
        account, report = opened(letter, Report)
        with self._lock:
            self._roster.hear(account, report, time.monotonic())
            wanted = self._round if self._round is not None and account in self._round.accounts else None
            instruction = Instruction(answers_ms=report.time_ms, order=self._order, round=wanted)
        return signed(instruction, self._key)


def _app(desk: Desk) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/v1/pool/report")
    async def report(request: Request) -> Response:
        letter = bytearray()
        async for chunk in request.stream():
            letter += chunk
            if len(letter) > MAX_LETTER_BYTES:
                return PlainTextResponse("too long for a report", 413)
        try:
            return Response(desk.answer(bytes(letter)), media_type="application/json")
        except InvalidLetter as reason:
            return PlainTextResponse(str(reason), 400)
        except NotWelcome as reason:
            return PlainTextResponse(str(reason), 403)

    return app
