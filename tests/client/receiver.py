"""A program on loopback that takes webhooks, or refuses them as a test tells it to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.loopback import Quiet, listening


class Receiver:
    """A program that takes messages, or refuses them."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        """What the next answers are; 200 after them."""
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    @contextmanager
    def up(self) -> Iterator[Receiver]:
        receiver = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                body = self.body()
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.answer(status, Location="http://127.0.0.1:1/elsewhere")

        with listening(Handler) as url:
            self.url = f"{url}/hook"
            yield self
