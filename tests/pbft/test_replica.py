"""Safety and progress of the committee: what must hold whatever the network and the machines do."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from aggregator.pbft.events import Broadcast, Misbehaved, Received, Send, Tick, Validate
from aggregator.pbft.messages import Batch, Fetch, Outline, PrePrepare, Status, Vote, VoteKind, cast
from aggregator.pbft.records import BecameCommitted, LeftView, decode_record
from aggregator.pbft.replica import Replica
from aggregator.pbft.slots import Slot
from tests.pbft.network import LIMITS, Committee, committee


def test_every_member_executes_every_batch_in_one_order() -> None:
    network = Committee()
    for number in range(20):
        network.submit(b"transaction %d" % number)
        network.run(200)
    network.run(1000)
    network.check()
    assert network.executed() == [20] * 4
    assert all(machine.replica.view == 0 and not machine.misbehaved for machine in network.machines)


def test_memory_is_freed_at_stable_checkpoints() -> None:
    network = Committee()
    for number in range(40):
        network.submit(b"transaction %d" % number)
        network.run(200)
    network.run(1000)
    for machine in network.machines:
        assert machine.replica.low == 40
        assert len(machine.replica._slots) <= LIMITS.checkpoint_interval
        assert len(machine.replica._bodies) <= LIMITS.checkpoint_interval


def test_the_loss_of_the_primary_is_survived() -> None:
    network = Committee()
    network.submit(b"before")
    network.run(500)
    network.crash(0)
    network.submit(b"after")
    network.run(5000)
    network.check()
    assert network.executed()[1:] == [2, 2, 2]
    assert {machine.replica.view for machine in network.machines[1:]} == {1}


def test_two_primaries_in_a_row_may_fail_in_a_committee_of_seven() -> None:
    network = Committee(7)
    network.crash(0)
    network.crash(1)
    network.submit(b"transaction")
    network.run(20_000)
    network.check()
    assert network.executed()[2:] == [1] * 5


@pytest.mark.parametrize("last", range(4))
def test_who_is_up_before_the_others_suspects_nobody(last: int) -> None:
    """Members start one after the other, work waiting for them, the primary at any place in the row."""
    net = Committee(4)
    for index in range(4):
        net.crash(index)
    order = [index for index in range(4) if index != last] + [last]
    for index in order:
        net.restart(index)
        net.submit(b"waits", to={index})
        net.run(10 * LIMITS.view_timeout_ms if index != order[2] else LIMITS.view_timeout_ms // 2)
    net.run(3_000)
    assert net.executed() == [1] * 4
    assert [(m.replica.view, m.replica.active) for m in net.machines] == [(0, True)] * 4


@pytest.mark.parametrize("index", range(1, 4))
def test_who_slept_suspects_nobody_of_what_it_slept_through(index: int) -> None:
    """A process that the machine did not run for a while, or whose clock leapt."""
    net = Committee(4)
    net.run(100)
    net.submit(b"known to it before it sleeps")
    net.machines[index].up = False
    net.run(5 * LIMITS.view_timeout_ms)
    net.machines[index].up = True
    net.run(3_000)
    assert net.executed() == [1] * 4
    assert [(m.replica.view, m.replica.active) for m in net.machines] == [(0, True)] * 4


def test_a_batch_prepared_before_a_view_change_keeps_its_number() -> None:
    """Commits of view 0 are lost after the batch is prepared; view 1 must propose the same batch again."""
    network = Committee(limits=replace(LIMITS, unanimity_ms=0))
    network.filter = lambda sender, to, m: (
        None if isinstance(m, Vote) and m.kind is VoteKind.COMMIT and m.view == 0 else m
    )
    network.submit(b"prepared in view 0")
    network.run(400)
    assert network.executed() == [0] * 4
    digests = {machine.replica._slots[1].prepared.pre_prepare.digest for machine in network.machines}  # type: ignore[union-attr]
    network.crash(0)
    network.submit(b"later")
    network.run(6000)
    network.check()
    assert {machine.log[0] for machine in network.machines[1:]} == digests


@pytest.mark.parametrize("victim", range(4))
def test_any_member_killed_and_restarted_catches_up(victim: int) -> None:
    network = Committee(seed=victim)
    network.submit(b"first")
    network.run(500)
    network.crash(victim)
    for number in range(30):
        network.submit(b"transaction %d" % number)
        network.run(400)
    network.restart(victim)
    network.run(8000)
    network.check()
    assert len(set(network.executed())) == 1 and network.executed()[0] >= 20
    network.submit(b"last")
    network.run(8000)
    assert len(set(network.executed())) == 1


def test_whoever_is_behind_asks_for_the_view_together_with_the_batches() -> None:
    """Batches show no view, and catching up is progress: until it ends, a member says nothing by itself."""
    network = Committee()
    network.submit(b"first")
    network.run(300)
    late, now_ms = network.machines[0].replica, network.now_ms
    late.step(Tick(now_ms=now_ms))
    told = Status(epoch=0, view=1, active=True, executed=late.executed + 5, stable=0)
    now_ms += LIMITS.retransmit_ms
    answers = late.step(Received(sender=1, message=told, now_ms=now_ms))
    said = [effect.message for effect in answers if isinstance(effect, Send) and effect.to == 1]
    assert [type(message) for message in said] == [Fetch, Status]
    assert not late.step(Received(sender=2, message=told, now_ms=now_ms + 1)), "once, however many are ahead"


def test_a_member_behind_a_partition_catches_up_and_votes_again() -> None:
    network = Committee()
    network.isolate(3)
    for number in range(80):
        network.submit(b"transaction %d" % number, to={0, 1, 2})
        network.run(150)
    assert network.executed()[3] == 0
    network.partition = set()
    network.run(8000)
    network.crash(2)  # now progress needs the member that was behind
    for number in range(20):
        network.submit(b"again %d" % number)
        network.run(500)
    network.run(8000)
    network.check()
    assert network.executed()[0] == network.executed()[1] == network.executed()[3] >= 90


@pytest.mark.parametrize("seed", range(12))
def test_agreement_and_progress_on_a_bad_network_with_restarts(seed: int) -> None:
    network = Committee(seed=seed, loss=0.15, duplication=0.1)
    for number in range(25):
        network.submit(b"transaction %d" % number)
        network.run(network.random.randint(50, 500))
        if number % 6 == 5:
            victim = network.random.randrange(4)
            network.crash(victim)
            network.run(network.random.randint(100, 3000))
            network.restart(victim)
        network.check()
    network.loss = network.duplication = 0.0
    network.submit(b"healed")
    network.run(60_000)
    network.check()
    assert len(set(network.executed())) == 1
    assert all(not machine.pending for machine in network.machines)


def test_an_equivocating_primary_cannot_split_the_committee() -> None:
    """Member 0 proposes one batch to members 1 and 2 and another to member 3."""
    network = Committee()

    def equivocate(sender: int, to: int, message: object) -> object:
        if sender == 0 and to == 3 and isinstance(message, PrePrepare):
            other = Outline(message.outline.timestamp_ms + 1, None, (), message.outline.transactions)
            vote = cast(
                network.members.domain,
                network.keys[0],
                0,
                VoteKind.PRE_PREPARE,
                message.vote.view,
                message.vote.sequence,
                other.digest(),
            )
            return PrePrepare(vote, other)
        return message

    network.filter = equivocate  # type: ignore[assignment]
    network.submit(b"transaction")
    network.run(10_000)
    network.check()
    assert network.executed()[1] >= 1


def test_a_forged_vote_is_noticed_and_changes_nothing() -> None:
    network = Committee()

    def forge(sender: int, to: int, message: object) -> object:
        if sender == 3 and isinstance(message, Vote):
            return Vote(message.kind, message.view, message.sequence, message.digest, 2, message.signature)
        return message

    network.filter = forge  # type: ignore[assignment]
    network.submit(b"transaction")
    network.run(3000)
    network.check()
    assert network.executed() == [1] * 4
    assert any("not signed by member 2" in reason for reason in network.machines[0].misbehaved)


def test_a_proposal_counts_by_its_signature_not_by_who_brings_it() -> None:
    """Two members may have registered one link key; then a link says little about the sender."""
    network = Committee()
    batch = Batch(network.now_ms, None, (), (b"transaction",))
    vote = cast(network.members.domain, network.keys[0], 0, VoteKind.PRE_PREPARE, 0, 1, batch.digest())
    replica = network.machines[1].replica
    effects = replica.step(Received(sender=3, message=PrePrepare(vote, batch.outline), now_ms=network.now_ms))
    assert [type(effect) for effect in effects] == [Validate]
    forged = cast(network.members.domain, network.keys[3], 3, VoteKind.PRE_PREPARE, 0, 2, batch.digest())
    effects = replica.step(
        Received(sender=0, message=PrePrepare(forged, batch.outline), now_ms=network.now_ms)
    )
    assert [type(effect) for effect in effects] == [Misbehaved]


def bound_by(replica: Replica) -> object:
    """Everything that says what a replica may still do."""
    slots = {
        sequence: (
            slot.proposal,
            slot.accepted,
            slot.prepared,
            slot.committed,
            slot.own_prepare,
            slot.own_commit,
        )
        for sequence, slot in sorted(replica._slots.items())
        if slot != Slot() and sequence > replica.low
    }
    return replica.view, replica.active, replica.stable, replica._new_view, slots


@pytest.mark.parametrize("seed", range(12))
def test_a_journal_cut_at_a_checkpoint_binds_as_the_whole_one_did(seed: int) -> None:
    committee = Committee(4, seed=seed, loss=0.1)
    choose = random.Random(seed)
    compared = 0
    for number in range(60):
        committee.submit(b"%d" % number)
        committee.run(150)
        victim = choose.randrange(4)
        if choose.random() < 0.15:
            committee.crash(victim)
            committee.run(choose.choice((300, 3000)))
            committee.restart(victim)
        machine = committee.machines[victim]
        stable = machine.replica.stable
        if stable is None:
            continue
        whole = [decode_record(data) for data in machine.disk]
        later = [
            r for r in whole if isinstance(r, BecameCommitted) and r.committed.sequence > stable.sequence
        ]
        short = [*machine.replica.promises(stable), *later]
        restored = [
            Replica.restore(
                committee.members,
                victim,
                committee.keys[victim],
                records,
                executed=len(machine.log),
                limits=LIMITS,
            )
            for records in (whole, short)
        ]
        assert bound_by(restored[0]) == bound_by(restored[1])
        compared += 1
    assert compared > 10


def test_a_primary_that_serves_others_but_starves_someone_is_replaced() -> None:
    network = Committee()
    network.submit(b"starved", to={1, 2, 3})

    def serve_others(seconds: int) -> None:
        for number in range(5 * seconds):
            network.submit(b"%d %d" % (network.now_ms, number))
            network.run(200)

    serve_others(LIMITS.starvation_timeout_ms // 1000 - 2)
    assert all(machine.replica.view == 0 for machine in network.machines), "others are served: patience"
    assert b"starved" in network.machines[1].pending
    serve_others(4)
    network.check()
    assert all(machine.replica.view == 1 for machine in network.machines)
    assert not any(b"starved" in machine.pending for machine in network.machines[1:])


def test_whoever_only_follows_asks_for_no_view_whatever_its_journal_says() -> None:
    """A journal put back without a vote, or software that does not know the rules: neither has a place."""
    members, keys = committee(4)
    follower = Replica.restore(members, None, keys[3], [LeftView(2)], executed=0, limits=LIMITS)
    said = [
        effect.message
        for now_ms in range(1, 5000, 100)
        for effect in follower.step(Tick(now_ms=now_ms))
        if isinstance(effect, Broadcast | Send)
    ]
    assert said and all(isinstance(message, Status) for message in said)
