"""Who did what is on record, whatever kills the leader; a reward splits by it to the last wei."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.provider.pool.contributions import Contribution, ContributionRecord, StepCounter, Work, work_of
from offchain.provider.pool.payouts import NothingContributed, split, weight
from offchain.provider.pool.settings import PoolSettings

A, B, C, D = ("0x" + letter * 40 for letter in "abcd")


def pool(**fields: Any) -> PoolSettings:
    return PoolSettings(**{"leader": A, "members": (B, C), "url": "http://127.0.0.1:7801", **fields})


def done(**fields: Any) -> Contribution:
    defaults: dict[str, Any] = {
        "oid": "0x01",
        "round": 1,
        "from_step": 0,
        "to_step": 10,
        "taken_ms": 500,
        "batch_size": 12,
        "accounts": (A, B),
        "devices": (1, 2),
    }
    return Contribution(**defaults | fields)


amounts = st.integers(0, 10**27)
works = st.builds(Work, st.integers(0, 10**9), st.integers(0, 10**12), st.integers(0, 10**12))


@given(
    reward_wei=amounts,
    work=st.dictionaries(st.sampled_from([A, B, C, D]), works),
    fee_bps=st.integers(0, 10_000),
    by=st.sampled_from(["samples", "steps", "time"]),
)
def test_payouts_sum_to_the_reward_and_are_in_proportion_to_what_counts(
    reward_wei: int, work: dict[str, Work], fee_bps: int, by: str
) -> None:
    settings = pool(fee_bps=fee_bps, split_by=by)
    total = sum(weight(each, settings) for each in work.values())
    if not total:
        with pytest.raises(NothingContributed, match="data_dir"):
            split(reward_wei, work, settings)
        return
    payouts = split(reward_wei, work, settings)
    assert sum(each.amount_wei for each in payouts) == reward_wei
    assert {each.account for each in payouts} == {*work, A}
    fee = reward_wei * fee_bps // 10_000
    assert [each.fee_wei for each in payouts] == [fee] + [0] * (len(payouts) - 1)
    for each in payouts:
        exact = (reward_wei - fee) * weight(each.work, settings)
        assert 0 <= each.share_wei * total - exact + total <= 2 * total, "off by more than a wei"


def test_wei_left_over_go_to_the_leader_then_to_members_in_the_order_of_the_file() -> None:
    even = {account: Work(1, 1, 1) for account in (D, C, B, A)}
    assert [(each.account, each.share_wei) for each in split(6, even, pool(members=(C, B)))] == [
        (A, 2),
        (C, 2),
        (B, 1),
        (D, 1),
    ]


def test_work_counts_steps_samples_and_time_by_account_and_order() -> None:
    items = [done(), done(round=2, from_step=10, to_step=12, accounts=(A,), devices=(1,)), done(oid="0x02")]
    assert work_of(items, "0x01") == {
        A: Work(12, 10 * 4 + 2 * 12, 1000),
        B: Work(10, 10 * 8, 1000),
    }
    assert work_of(items, "0x03") == {}


def test_a_contribution_that_cannot_be_is_none() -> None:
    for wrong in (
        {"to_step": 0},
        {"from_step": -1},
        {"devices": (1,)},
        {"devices": (0, 3)},
        {"batch_size": 10},
        {"taken_ms": -1},
    ):
        with pytest.raises(ValueError):
            done(**wrong)


def test_a_line_torn_by_a_kill_costs_itself_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "pool" / "contributions.jsonl"
    record = ContributionRecord(path)
    assert list(record) == []
    first, second = done(), done(from_step=10, to_step=20)
    record.add(first)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut].strip(b"\n"))
        ContributionRecord(path).add(second)
        read = list(record)
        assert read[0] == first and read[-1] == second and len(read) <= 3


def test_steps_are_written_every_few_seconds_and_at_the_end_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("offchain.provider.pool.contributions.time.monotonic", lambda: now[0])
    record = ContributionRecord(tmp_path / "contributions.jsonl")
    counter = StepCounter(record, oid="0x01", number=7, batch_size=12, accounts=(A, B), devices=(1, 2))
    for step in range(100, 200, 10):
        now[0] += 1.0
        counter.count(step, step + 10)
    counter.write()
    counter.write()
    lines = list(record)
    assert [(line.from_step, line.to_step) for line in lines] == [(100, 150), (150, 200)]
    assert sum(line.taken_ms for line in lines) == 10_000
