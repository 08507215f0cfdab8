"""What `dtn put --follow` and `dtn demo` tell of an order while it runs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dtn import follow as follow_module
from dtn.follow import follow
from offchain.network import NetworkError
from tests.answers import account, open_order, seat, settled_order

Json = dict[str, Any]
OID = "0x" + "ab" * 32


def detail(*phases: str, settled: bool = False) -> Json:
    """An order that went through ``phases``."""
    mid, undecided = "0x" + "cd" * 32, {"score": None, "digest": None}
    jurors = [seat(account(name)) for name in ("one", "two", "three")]
    told = {
        "oid": OID,
        "phases": [{"phase": phase, "atMs": 1000 * number} for number, phase in enumerate(phases)],
        "disputes": [
            {"of": "model", "mid": mid, "round": 1, "jurors": jurors, "open": False, "verdict": undecided}
        ],
        "appeals": [{"of": "model", "subject": mid, "appellant": account("ef"), "bondWei": "1"}],
    }
    return settled_order(**told) if settled else open_order(**told, phase=phases[-1])


class Told:
    """Answers of a network, one after the other."""

    def __init__(self, *answers: Json | Exception) -> None:
        self.answers = list(answers)

    def get(self, path: str) -> Json:
        assert path == f"/v1/orders/{OID}"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "POLL_S", 0)


def test_rounds_of_verdicts_after_an_appeal_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    once = ("training", "reveal", "validation", "validation_reveal", "challenge", "verdict", "verdict_reveal")
    twice = (*once, "appeal", "verdict", "verdict_reveal")
    network = Told(detail(*once), NetworkError("gone for a moment"), detail(*twice, "sealed", settled=True))
    assert follow(network, OID, quiet=False)["result"] == "won"  # type: ignore[arg-type]
    lines = [line.partition(" s  ")[2] for line in capsys.readouterr().err.splitlines()]
    phases = [line.removeprefix("phase ") for line in lines if line.startswith("phase ")]
    assert phases == [*once, "appeal", "verdict (round 2)", "verdict_reveal (round 2)"]
    assert lines[-2:] == ["sealed: won", "settled in epoch 4 by 0x" + "99" * 32]
    assert len(lines) == len(set(lines)), "each thing is told once"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    follow(Told(detail("training", "sealed", settled=True)), OID, quiet=True)  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_lines_of_a_caller_with_a_clock_of_its_own_go_on_counting(capsys: pytest.CaptureFixture[str]) -> None:
    network = Told(detail("training", "sealed", settled=True))
    follow(network, OID, quiet=False, began_s=time.monotonic() - 1000)  # type: ignore[arg-type]
    assert all(float(line.split()[0]) >= 1000 for line in capsys.readouterr().err.splitlines())
