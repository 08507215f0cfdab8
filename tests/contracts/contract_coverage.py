"""Records which branches the contract tests reach: ``CONTRACT_COVERAGE=1 ape test tests/contracts``.

Every deployment, transaction and call that the tests send is traced on Anvil, refused ones too; what is sent
to a contract and takes more than `MOST_TRACED_GAS` is not. The run fails when fewer than `WANTED_PERCENT` of
the branches went both ways, and prints which did not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Final

import ape
import pytest
from branches import Coverage

WANTED_PERCENT: Final = 95.0
MOST_TRACED_GAS: Final = 3_000_000
"""What takes more does often what others do once, and its trace has millions of steps."""
PATIENCE: Final = 500
TRACE: Final = {"disableStorage": True, "enableMemory": False, "enableReturnData": False}

Json = dict[str, Any]


class Recorder:
    """Stands between ape and the chain."""

    def __init__(self, coverage: Coverage, request: Any) -> None:
        self.coverage = coverage
        self._request = request

    def __call__(self, method: str, parameters: Any) -> Any:
        """What the chain answers; beside it, the trace of what ran."""
        answer = self._request(method, parameters)
        if method == "eth_call":
            self._trace_call(parameters[0])
        if method == "eth_estimateGas" and not self._is_large(parameters[0], answer.get("result")):
            self._trace_call(parameters[0])
        if method in ("eth_sendTransaction", "eth_sendRawTransaction") and "result" in answer:
            self._trace_transaction(answer["result"])
        return answer

    def _ask(self, method: str, *parameters: Any) -> Any:
        answer = self._request(method, list(parameters))
        assert "result" in answer, f"{method}: {answer}"
        return answer["result"]

    @staticmethod
    def _is_large(sent: Json, gas: str | None) -> bool:
        return bool(sent.get("to")) and gas is not None and int(gas, 16) > MOST_TRACED_GAS

    def _trace_call(self, call: Json) -> None:
        steps = self._ask("debug_traceCall", call, "latest", TRACE)["structLogs"]
        self._follow(steps, call.get("to"), call.get("data") or call.get("input"))

    def _trace_transaction(self, hash_: Any) -> None:
        sent = self._ask("eth_getTransactionByHash", hash_)
        receipt = None
        for _ in range(PATIENCE):  # Anvil mines beside its answers; a trace of what waits is empty
            receipt = self._ask("eth_getTransactionReceipt", hash_)
            if receipt is not None:
                break
            time.sleep(0.01)
        if receipt is not None and self._is_large(sent, receipt["gasUsed"]):
            return
        steps = self._ask("debug_traceTransaction", hash_, TRACE)["structLogs"]
        self._follow(steps, sent["to"], sent["input"])

    def _follow(self, steps: list[Json], to: Any, data: Any) -> None:
        self.coverage.follow(steps, _bytes(to) or None, _bytes(data), self._code_at)

    def _code_at(self, address: bytes) -> bytes:
        return _bytes(self._ask("eth_getCode", "0x" + address.hex(), "latest"))


def _bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return bytes.fromhex((value or "").removeprefix("0x"))


@pytest.fixture(scope="session", autouse=True)
def recorded_branches(request: pytest.FixtureRequest) -> Iterator[None]:
    """Watches the whole run, and judges it at its end."""
    if not os.environ.get("CONTRACT_COVERAGE"):
        yield
        return
    provider = ape.networks.provider.web3.provider
    recorder = Recorder(Coverage.compiled(), provider.make_request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provider, "make_request", recorder)
        patch.setattr(provider, "_request_func_cache", (None, None))  # it holds the old one
        yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print("\n" + recorder.coverage.report())
    total, missing = len(recorder.coverage.branches), len(recorder.coverage.uncovered())
    assert 100 * (total - missing) >= WANTED_PERCENT * total, "too few branches are tested"
