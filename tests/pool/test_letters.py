"""Members and leader believe only each other, and nothing twice; who is silent or leaves is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtn.devnet.ports import free_port
from offchain.config import InvalidConfig
from offchain.provider.pool.desk import Desk
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
from protocol.crypto import Key

LEADER, ONE, TWO, STRANGER = (Key(bytes([index + 1] * 32)) for index in range(4))


def account(key: Key) -> str:
    return "0x" + key.address.hex()


def report(time_ms: int = 1, **fields: Any) -> Report:
    return Report(**{"time_ms": time_ms, "ready": None, "round": None, "failed": None, **fields})


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_letter_with_any_byte_changed_is_by_nobody_of_the_pool(place: int, change: int) -> None:
    letter = signed(report(5, ready="0xab"), ONE)
    assert opened(letter, Report) == (account(ONE), report(5, ready="0xab"))
    place %= len(letter)
    forged = letter[:place] + bytes([letter[place] ^ change]) + letter[place + 1 :]
    try:
        sender, content = opened(forged, Report)
    except InvalidLetter:
        return
    assert sender != account(ONE) or content == report(5, ready="0xab")


@pytest.mark.parametrize(
    "letter",
    [b"", b"[]", b"{}", b'{"body": 1, "signature": "00"}', b"[" * 5000, b"\xff", bytes(MAX_LETTER_BYTES + 1)],
)
def test_what_is_no_letter_is_refused(letter: bytes) -> None:
    with pytest.raises(InvalidLetter):
        opened(letter, Report)


def test_a_report_does_not_pass_for_an_instruction() -> None:
    with pytest.raises(InvalidLetter):
        opened(signed(report(), LEADER), Instruction)


def test_strangers_and_old_reports_are_not_welcome() -> None:
    roster = Roster([account(ONE)], silence_s=5)
    with pytest.raises(NotWelcome, match="no member"):
        roster.hear(account(STRANGER), report(), 0)
    roster.hear(account(ONE), report(7), 0)
    for old in (6, 7):
        with pytest.raises(NotWelcome, match="running twice"):
            roster.hear(account(ONE), report(old), 1)


def test_who_is_silent_fails_or_leaves_is_lost_to_the_round_and_to_no_other() -> None:
    one, two = account(ONE), account(TWO)
    roster = Roster([one, two], silence_s=5)
    assert roster.lost([one, two], 9, 0) == (one, two), "nobody has reported yet"
    roster.hear(one, report(1, ready="0xab", round=9), 0)
    roster.hear(two, report(1, ready="0xcd", round=9), 3)
    assert roster.ready("0xab", 5) == (one,) and roster.there(5) == (one, two)
    assert roster.lost([one, two], 9, 5) == ()
    assert roster.lost([one, two], 9, 6) == (one,), "silent for more than five seconds"
    roster.hear(one, report(2, failed=9), 6)
    assert roster.lost([one, two], 9, 6) == (one,) and roster.lost([one, two], 10, 6) == ()
    roster.hear(two, report(2, round=None), 6)
    assert roster.lost([two], 9, 6) == (two,), "it started again and knows of no round"


def test_the_desk_answers_members_alone_and_calls_only_who_is_in_the_round() -> None:
    settings = PoolSettings(
        leader=account(LEADER),
        members=(account(ONE), account(TWO)),
        url=f"http://127.0.0.1:{free_port()}",
    )
    desk = Desk(settings, LEADER)
    desk.start()
    try:
        url = settings.url + "/v1/pool/report"
        gathering = Round(
            number=3, coordinator="127.0.0.1:1", accounts=(account(LEADER), account(ONE)), training={}
        )
        desk.announce("0xab")
        desk.call(gathering)

        def ask(key: Key, time_ms: int) -> Instruction:
            answer = httpx.post(url, content=signed(report(time_ms, ready="0xab"), key))
            assert answer.status_code == 200
            sender, instruction = opened(answer.content, Instruction)
            assert sender == account(LEADER) and instruction.answers_ms == time_ms
            assert isinstance(instruction, Instruction)
            return instruction

        assert ask(ONE, 1).round == gathering and ask(TWO, 1).round is None
        assert ask(TWO, 2).order == "0xab" and set(desk.ready("0xab")) == {account(ONE), account(TWO)}
        assert httpx.post(url, content=signed(report(), STRANGER)).status_code == 403
        assert httpx.post(url, content=signed(report(1), ONE)).status_code == 403
        assert httpx.post(url, content=b"nonsense").status_code == 400
        assert httpx.post(url, content=bytes(MAX_LETTER_BYTES + 1)).status_code == 413
    finally:
        desk.stop()


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": [account(LEADER)]},
        {"members": []},
        {"members": ["0x12"]},
        {"url": "127.0.0.1:7801"},
        {"url": "http://127.0.0.1"},
        {"fee_bps": 10_001},
        {"colour": "red"},
    ],
)
def test_a_pool_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, wrong: dict[str, Any]) -> None:
    fields = {"leader": account(LEADER), "members": [account(ONE)], "url": "http://127.0.0.1:7801"}
    path = tmp_path / "pool.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in (fields | wrong).items()))
    with pytest.raises(InvalidConfig, match=r"pool\.toml"):
        PoolSettings.read(path)


def test_the_own_key_says_whether_one_leads() -> None:
    settings = PoolSettings(leader=account(LEADER), members=(account(ONE),), url="http://127.0.0.1:7801")
    assert settings.is_leader(LEADER) and not settings.is_leader(ONE)
    with pytest.raises(InvalidConfig, match="neither leader nor member"):
        settings.is_leader(STRANGER)
