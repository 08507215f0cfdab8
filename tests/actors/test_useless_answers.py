"""An aggregator that answers, but with nothing of use, keeps no actor from its work."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offchain.actor import Actor
from offchain.config import ClientConfig
from protocol.keyfile import write_private
from tests.chain import chainless_network
from tests.scripts.serving import serving

MOST_ROUNDS = 20


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Leave this process its own way to end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Looking(Actor):
    """Works once it has been told a phase."""

    rounds = 0
    told: Any = None

    def act(self) -> None:
        self.rounds += 1
        if self.rounds >= MOST_ROUNDS:
            self.stopping.set()
        self.told = self.network.get("/v1/orders/0xaa")["phase"]
        self.stopping.set()


@pytest.mark.parametrize("useless", [b"{}", b'{"phases": []}', b"[]", b"nothing"])
def test_the_next_aggregator_is_asked_where_one_answers_uselessly(tmp_path: Path, useless: bytes) -> None:
    write_private(tmp_path / "key", "77" * 32)
    honest = json.dumps({"phase": "training"}).encode()
    with serving(lambda _: (200, useless)) as liar, serving(lambda _: (200, honest)) as other:
        (tmp_path / "network.json").write_text(chainless_network(liar, other).model_dump_json())
        config = ClientConfig(
            key_file=tmp_path / "key", data_dir=tmp_path, network=tmp_path / "network.json", poll_s=0.01
        )
        actor = Looking(config)
        actor.run()
    assert actor.told == "training" and actor.rounds < MOST_ROUNDS
