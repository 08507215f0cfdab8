"""Plays a story of consensus from a plain-text script and tells who says what to whom.

A script is a file of commands, one a line; ``#`` begins a comment. After each command that lets something
happen comes a line ``----`` and what happened, up to the next empty line: this module writes it, the test
compares it.

    members N               begin with N members (must come first)
    submit NAME             a transaction reaches all members
    run MS                  virtual time passes
    crash I, restart I      power off, power on with what the disk holds
    isolate I, heal         cut one member off; connect everybody
    drop KIND view V        messages of this kind in view V get lost (pre_prepare, prepare, commit, new_view),
      [but to I]            unless they are for member I
    impatient               nobody waits for the votes of all
    equivocate I to J       member I shows J another batch than the rest
    positions               where each member stands

Guarantee: the same script gives the same text: delays come from one seed, keys are fixed.

Source: the style is etcd-io/raft's rafttest; the stories are Castro and Liskov 1999, sections 4.2 to 4.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from aggregator.pbft.events import Misbehaved
from aggregator.pbft.messages import (
    BatchBody,
    CheckpointProof,
    Committed,
    CommittedBatches,
    Fetch,
    FetchBatch,
    LinkMessage,
    NewView,
    PrePrepare,
    Status,
    ViewChange,
    Vote,
    VoteKind,
    cast,
)
from aggregator.pbft.view_change import NULL_DIGEST
from protocol.crypto import keccak256
from tests.pbft.network import Committee, Machine

QUIET = (Status,)
"""Said all the time, and of no interest in a story."""


class Story(Committee):
    """A committee that notes what happens in it."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.lines: dict[str, dict[int, set[int]]] = {}
        """Per thing said or done, who said it and to whom, in the order of the first time."""
        self.names: dict[bytes, str] = {NULL_DIGEST: "null"}
        self.contents: dict[bytes, str] = {}
        """What transactions are called, by their hashes."""
        self.dropped: set[tuple[str, int, int | None]] = set()
        """Kind and view of messages that get lost, and who gets them all the same."""
        self.lies: set[tuple[int, int]] = set()
        self.filter = self._hear

    def _hear(self, sender: int, to: int, message: LinkMessage) -> LinkMessage | None:
        if (sender, to) in self.lies and isinstance(message, PrePrepare):
            message = self._other(sender, message)
        if isinstance(message, PrePrepare):
            names = " ".join(self.contents[content] for content in message.outline.transactions)
            lie = "'" if (sender, to) in self.lies else ""
            self.names.setdefault(message.vote.digest, f"[{names}]{lie}")
        lost = any(
            (kind, view) == (kind_of(message), view_of(message)) and to != spared
            for kind, view, spared in self.dropped
        )
        if not isinstance(message, QUIET):
            self.note(self.describe(message) + (" (lost)" if lost else ""), sender, to)
        return None if lost else message

    def _other(self, sender: int, message: PrePrepare) -> PrePrepare:
        outline = msgspec.structs.replace(message.outline, timestamp_ms=message.outline.timestamp_ms + 1)
        vote = message.vote
        domain, secret = self.members.domain, self.keys[sender]
        other = cast(domain, secret, sender, VoteKind.PRE_PREPARE, vote.view, vote.sequence, outline.digest())
        return PrePrepare(other, outline)

    def note(self, what: str, who: int, to: int | None = None) -> None:
        """Something happened; told once per command, with everybody it happened to."""
        heard = self.lines.setdefault(what, {}).setdefault(who, set())
        if to is not None:
            heard.add(to)

    def _deliver(self, index: int, machine: Machine, committed: Committed) -> None:
        self.note(f"executes {self.named(committed.sequence, committed.batch.digest())}", index)
        super()._deliver(index, machine, committed)

    def _act(self, index: int, machine: Machine, effect: object) -> None:
        if isinstance(effect, Misbehaved):
            proof = " and can prove it" if effect.evidence else ""
            self.note(f"sees that {effect.reason}{proof}", index)
        super()._act(index, machine, effect)  # type: ignore[arg-type]

    # Words -----------------------------------------------------------------------------------------

    def named(self, sequence: int, digest: bytes) -> str:
        """A batch by its number and what is in it."""
        return f"{sequence} {self.names.get(digest, '[?]')}"

    def describe(self, message: LinkMessage) -> str:
        """What a message says, in a few words."""
        match message:
            case Vote(kind=VoteKind.CHECKPOINT):
                return f"has a checkpoint at {message.sequence}"
            case Vote(kind=VoteKind.PRE_PREPARE):
                return f"shows proposal {self.named(message.sequence, message.digest)} of view {message.view}"
            case Vote():
                verb = "prepares" if message.kind is VoteKind.PREPARE else "commits"
                return f"{verb} {self.named(message.sequence, message.digest)} in view {message.view}"
            case PrePrepare(vote=vote):
                return f"proposes {self.named(vote.sequence, vote.digest)} in view {vote.view}"
            case ViewChange(contents=contents):
                proofs = ", ".join(
                    self.named(item.pre_prepare.sequence, item.pre_prepare.digest)
                    for item in contents.prepared
                )
                votes = ", ".join(self.named(item.sequence, item.digest) for item in contents.voted)
                low = contents.stable.sequence if contents.stable else 0
                return (
                    f"asks for view {contents.view}; stable {low}; "
                    f"voted for {votes or 'nothing'}; prepared {proofs or 'nothing'}"
                )
            case NewView(contents=contents):
                first = ", ".join(self.named(vote.sequence, vote.digest) for vote in contents.pre_prepares)
                return f"begins view {contents.view} with {first or 'nothing'}"
            case Fetch(sequence=sequence):
                return f"asks for batches from {sequence} on"
            case CommittedBatches(batches=batches):
                return f"sends batches {batches[0].sequence} to {batches[-1].sequence} with certificates"
            case FetchBatch(digest=digest):
                return f"asks for batch {self.names.get(digest, '[?]')}"
            case BatchBody(batch=batch):
                return f"sends batch {self.names.get(batch.digest(), '[?]')}"
            case CheckpointProof(checkpoint=checkpoint):
                return f"proves checkpoint {checkpoint.sequence}"
        return type(message).__name__

    def told(self) -> list[str]:
        """What happened since this was asked last."""
        lines = []
        for what, who in self.lines.items():
            groups: dict[tuple[int, ...] | None, list[int]] = {}
            for index, heard in who.items():
                everybody = heard in (set(), set(range(len(self.machines))) - {index})
                groups.setdefault(None if everybody else tuple(sorted(heard)), []).append(index)
            for heard_by, by in groups.items():
                to = f" (to {_listed(heard_by)})" if heard_by else ""
                lines.append(f"{_listed(sorted(by))}: {what}{to}")
        self.lines = {}
        return lines


def kind_of(message: LinkMessage) -> str:
    """A message's kind, as scripts name it."""
    return message.kind.name.lower() if isinstance(message, Vote) else str(message.__struct_config__.tag)


def view_of(message: LinkMessage) -> int | None:
    """The view that a message belongs to, if it belongs to one."""
    if isinstance(message, Vote):
        return message.view
    if isinstance(message, PrePrepare):
        return message.vote.view
    return message.contents.view if isinstance(message, NewView | ViewChange) else None


def _listed(items: Iterable[int]) -> str:
    return " ".join(map(str, items))


def play(script: str) -> str:
    """The script with what happens written under its commands; what stood there before is replaced."""
    out: list[str] = []
    story: Story | None = None
    skipping = False
    for line in script.splitlines():
        command = line.partition("#")[0].split()
        if skipping and line.strip():
            continue
        skipping = line.strip() == "----"
        if skipping:
            continue
        if line.strip() or out[-1:] != [""]:
            out.append(line.rstrip())
        if not command:
            continue
        if command[0] == "members":
            story = Story(int(command[1]))
            continue
        assert story is not None, "a script begins with its members"
        told = _do(story, command)
        if told:
            out += ["----", *told, ""]
    assert story is not None
    story.check()
    return "\n".join(out).rstrip() + "\n"


def _do(story: Story, command: list[str]) -> list[str]:
    match command:
        case ["submit", name]:
            story.contents[keccak256(name.encode())] = name
            story.submit(name.encode())
        case ["run", duration]:
            story.run(int(duration))
        case ["crash", who]:
            story.crash(int(who))
        case ["restart", who]:
            story.restart(int(who))
        case ["isolate", who]:
            story.isolate(int(who))
        case ["heal"]:
            story.partition = set()
        case ["drop", kind, "view", view]:
            story.dropped.add((kind, int(view), None))
        case ["drop", kind, "view", view, "but", "to", spared]:
            story.dropped.add((kind, int(view), int(spared)))
        case ["impatient"]:
            for machine in story.machines:
                machine.replica.limits = replace(story.limits, unanimity_ms=0)
        case ["equivocate", who, "to", whom]:
            story.lies.add((int(who), int(whom)))
        case ["positions"]:
            return [_position(index, machine) for index, machine in enumerate(story.machines)]
        case _:
            raise ValueError(f"no such command: {' '.join(command)}")
    return story.told()


def _position(index: int, machine: Machine) -> str:
    replica = machine.replica
    if not machine.up:
        return f"{index}: down"
    return (
        f"{index}: view {replica.view}{'' if replica.active else ' wanted'}, executed {replica.executed}, "
        f"stable {replica.low}, {len(replica._slots)} numbers kept"
    )
