"""A real aggregator with something to see, served on a socket from a thread of its own.

Guarantees: everything shown went through the real ledger; time is the member's own, with short windows.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from protocol.chain_events import EndpointChanged, ParameterChanged, Staked
from protocol.crypto import commitment
from protocol.roles import Role
from protocol.transactions import (
    Cancel,
    Claim,
    ClaimReveal,
    TestRelease,
    Validation,
    ValidationReveal,
    Verdict,
    VerdictReveal,
    claim_body,
    score_body,
)
from protocol.typed_data import Domain
from tests.api.network import Network, running
from tests.api.test_api import hexed
from tests.ledger.world import DOMAIN, FRAGMENTS, STAKE, answer, mid, salt, who

T = TypeVar("T")
PATIENCE_S: Final = 180.0
HOSTILE: Final = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
SCORES: Final = {"provider0": 947_312, "provider1": 981_540, "provider2": 962_208, "provider3": 913_077}
V_STAKE: Final = 5 * 10**18


class Stage:
    """The aggregator, its URL, and a way to make it do things from outside its thread."""

    def __init__(self, folder: Path, domain: Domain = DOMAIN, order_book: str | None = None) -> None:
        self.url = ""
        self._domain, self._order_book = domain, order_book
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(folder)))
        self._thread.start()
        self._ready.result(PATIENCE_S)

    async def _serve(self, folder: Path) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with (
                running(folder, self._domain, self._order_book) as self.net,
                self.net.served() as self.url,
            ):
                self._ready.set_result(None)
                await self._stop.wait()
        except Exception as reason:
            if self._ready.done():
                raise
            self._ready.set_exception(reason)

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Let something happen in the aggregator's thread; returns what it gives."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        """End it."""
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)


async def people(net: Network, api: str) -> None:
    """Nodes of every role, one of them hostile, and short windows."""
    staked = [(f"provider{n}", Role.PROVIDER, 3 + n) for n in range(1, 4)]
    staked += [(f"validator{n}", Role.VALIDATOR, 1 + n) for n in range(1, 3)]
    staked += [(f"verifier{n}", Role.VERIFIER, 1) for n in range(1, 4)]
    staked += [("aggregator0", Role.AGGREGATOR, 10), ("outsider0", Role.PROVIDER, 1)]
    windows = {"verdict_s": 5, "verdict_reveal_s": 5, "appeal_s": 2}
    endpoints = {
        "aggregator0": f"tcp://127.0.0.1:5701,{api}",
        "provider1": "http://gpu.example.net:7704",
        "outsider0": HOSTILE + ",javascript:alert(1),http://ok.example/" + "x" * 200,
    }
    net.chain.blocks.append(
        [
            *(ParameterChanged(key=name, value=value) for name, value in windows.items()),
            *(
                Staked(account=who(name), role=int(role), amount=share * STAKE, bonded=share * STAKE)
                for name, role, share in staked
            ),
            *(
                EndpointChanged(account=who(name), endpoint=text, link_key=bytes(32))
                for name, text in endpoints.items()
            ),
        ]
    )
    await net.until(lambda: who("outsider0") in net.node.state.nodes)


async def phase(net: Network, oid: bytes, name: str) -> None:
    """Wait until an order is in a phase."""
    await net.until(lambda: net.node.state.table[oid].task.phase == name)


async def claimed(net: Network, oid: bytes) -> None:
    """Four providers claim, with a moment between."""
    for number, name in enumerate(SCORES):
        body = claim_body(mid(name), 20_000 + 777 * number)
        committed = commitment(oid, who(name), body, salt(name))
        await net.send(name, Claim, oid=oid, commitment=committed)
        await asyncio.sleep(0.3)


async def whole_order(net: Network) -> str:
    """One order from the chain to its settlement, with a validator that was wrong and a verdict."""
    oid = await net.place(train_window=4, validate_window=6, challenge_window=1, baseline=900_000)
    await claimed(net, oid)
    await phase(net, oid, "reveal")
    await net.send("client", TestRelease, oid=oid, fragments=FRAGMENTS, links=("http://files.example/t",))
    for number, name in enumerate(SCORES):
        links = (f"http://gpu{number}.example.net/ipfs/model", "javascript:alert(document.domain)")
        fields = {"mid": mid(name), "size_bytes": 20_000 + 777 * number, "links": links, "salt": salt(name)}
        await net.send(name, ClaimReveal, oid=oid, **fields)
    await phase(net, oid, "validation")
    given = {
        (validator, name): answer(
            score - (31_000 if validator == "validator2" and name == "provider2" else 0)
        )
        for name, score in SCORES.items()
        for validator in ("validator0", "validator1", "validator2")
    }
    for (validator, name), said in given.items():
        committed = commitment(oid, who(validator), score_body(mid(name), *said), salt(validator))
        fields = {"mid": mid(name), "commitment": committed, "v_stake": V_STAKE}
        await net.send(validator, Validation, oid=oid, **fields)
    await phase(net, oid, "validation_reveal")
    for (validator, name), (score, digest) in given.items():
        fields = {"mid": mid(name), "score": score, "digest": digest, "salt": salt(validator)}
        await net.send(validator, ValidationReveal, oid=oid, **fields)
    await phase(net, oid, "verdict")
    disputed, said = mid("provider2"), answer(SCORES["provider2"])
    jurors = [f"verifier{number}" for number in range(4)]
    for juror in jurors:
        committed = commitment(oid, who(juror), score_body(disputed, *said), salt(juror))
        await net.send(juror, Verdict, oid=oid, mid=disputed, commitment=committed)
    await phase(net, oid, "verdict_reveal")
    for juror in jurors:
        fields = {"mid": disputed, "score": said[0], "digest": said[1], "salt": salt(juror)}
        await net.send(juror, VerdictReveal, oid=oid, **fields)
    await net.settle(b"the settlement", gas_used=412_338)
    return hexed(oid)


async def cancelled_order(net: Network) -> str:
    """An order that its client took back, settled."""
    oid = await net.place(kind="open")
    await net.send("client", Cancel, oid=oid)
    while oid in net.node.state.table:
        await net.settle(oid, gas_used=118_204)
    return hexed(oid)


async def hostile_order(net: Network) -> str:
    """An order whose every string is an attack."""
    oid = await net.place(kind=HOSTILE, task_link="javascript:document.title='owned'")
    return hexed(oid)
