"""An HTTP server on loopback that answers as a test tells it to: a lying member, a dead gateway, a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.loopback import Quiet, listening

Answer = tuple[int, bytes]
"""Status and body."""


@contextmanager
def serving(answer: Callable[[str], Answer], post: Callable[[bytes], Answer] | None = None) -> Iterator[str]:
    """An HTTP server on loopback that answers as it is told; gives its URL. ``post`` is told bodies."""

    class Handler(Quiet):
        def do_POST(self) -> None:
            body = self.body()
            self.answer(*(post(body) if post is not None else (405, b"")))

        def do_GET(self) -> None:
            self.answer(*answer(self.path))

    with listening(Handler) as url:
        yield url
