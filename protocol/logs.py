"""Logs: one line per event on standard error, for people or as JSON, with the ids that join processes.

`about` says what the lines inside it are about: an order (``oid``), a model (``mid``), a transaction
(``tx``), a batch (``sequence``), a settlement (``epoch``). In JSON these are fields, the same names in every
process, so that one order's life can be read from the logs of all who took part. As text they stand in the
message, where they matter.

Guarantees: an event is one line, whatever a message holds, and in JSON one object; as text, control
characters are replaced and only a traceback has lines of its own, which are indented; a message has at most
`MAX_MESSAGE_CHARS`; secrets are nobody's business here, see `protocol.keyfile`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from protocol.errors import ProtocolError
from protocol.text import printable

Format = Literal["text", "json"]
Id = Literal["oid", "mid", "tx", "sequence", "epoch", "member", "transaction"]

LEVEL: Final = "DTN_LOG"
FORMAT: Final = "DTN_LOG_FORMAT"
MAX_MESSAGE_CHARS: Final = 16_384
NOISY: Final = ("httpx", "httpcore", "urllib3", "web3", "jax", "absl", "asyncio")
"""Libraries that tell more than anybody wants to read, unless something is wrong."""

_ids: ContextVar[Mapping[str, str | int]] = ContextVar("ids", default={})  # noqa: B039 (never changed)


class BadLogFormat(ProtocolError):
    """A format or level of logs that does not exist."""


@contextmanager
def about(**ids: str | int) -> Iterator[None]:
    """Lines logged inside, by this thread or task, carry these ids; names are those of `Id`."""
    assert set(ids) <= set(get_args(Id)), f"no such id: {sorted(ids)}"
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, process, thread, ids, and an error if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = _bounded(record.getMessage())
        at = datetime.fromtimestamp(record.created, UTC)
        told: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            "process": record.process,
            "thread": record.threadName,
            **_ids.get(),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)[-MAX_MESSAGE_CHARS:]
        return json.dumps(told, ensure_ascii=True, default=str)


class TextFormatter(logging.Formatter):
    """One line per event for people, and tracebacks under it; what strangers sent cannot look like a line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line."""
        record.message = printable(_bounded(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """The traceback."""
        lines = super().formatException(ei)[-MAX_MESSAGE_CHARS:].splitlines()
        return "\n".join("  " + printable(line) for line in lines)


def _bounded(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE_CHARS else message[:MAX_MESSAGE_CHARS] + "…"


def configure(level: str | None = None, form: str | None = None) -> None:
    """Log to standard error; what is not given comes from ``$DTN_LOG`` and ``$DTN_LOG_FORMAT``.

    Raises:
        BadLogFormat: there is no such level or format.
    """
    level = (level or os.environ.get(LEVEL) or "INFO").upper()
    form = form or os.environ.get(FORMAT) or "text"
    if form not in get_args(Format):
        raise BadLogFormat(f"logs come as {' or '.join(get_args(Format))}, not {form!r}: correct ${FORMAT}")
    if level not in logging.getLevelNamesMapping():
        raise BadLogFormat(f"{level!r} is no level of logs; ${LEVEL} is DEBUG, INFO, WARNING or ERROR")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
