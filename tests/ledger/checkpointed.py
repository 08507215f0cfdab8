"""A ledger with something in every section, at a checkpoint that a committee signed: for tests of proofs."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.ledger.root import state_root
from aggregator.member.checkpoints import Checkpoints
from aggregator.pbft.messages import StableCheckpoint, VoteKind, cast
from protocol.certificate import SignedVote
from protocol.evidence import PREPARE, evidence_fields
from protocol.roles import Role
from protocol.state_proof import StateProof
from protocol.transactions import Cancel, Evidence
from protocol.typed_data import sign
from tests.ledger.world import DOMAIN, World, key
from tests.pbft.network import committee

MEMBERS, KEYS = committee(4)
assert MEMBERS.domain == DOMAIN, "the committee signs in the ledger's domain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """The ledger, its orders, and what proves its rows."""

    world: World
    settled: bytes
    running: bytes
    checkpoints: Checkpoints
    stable: StableCheckpoint

    def prove(self, section: str, row_key: bytes) -> StateProof:
        """A proof of a row that is there."""
        proof = self.checkpoints.prove(self.stable, section, row_key)
        assert proof is not None
        return proof


def checkpointed(signers: tuple[int, ...] = (0, 1, 2)) -> Checkpointed:
    """Nodes, nonces, a running and a settled order, a settled penalty; signed by ``signers``."""
    world = World.new()
    for name, role in (
        ("aggregator0", Role.AGGREGATOR),
        ("provider0", Role.PROVIDER),
        ("verifier0", Role.VERIFIER),
    ):
        world.stake(name, role)
    settled = world.place()
    world.accept("client", Cancel, oid=settled)
    world.settle()
    world.accept("verifier0", Evidence, **lie())
    world.wait(world.state.parameters["update_s"])
    world.settle()
    running = world.place()
    world.claim("provider0", running, "model")
    checkpoints = Checkpoints(4)
    checkpoints.remember(world.state, 0)
    sequence, root = world.state.sequence, state_root(world.state)
    votes = tuple(cast(DOMAIN, KEYS[i], i, VoteKind.CHECKPOINT, 0, sequence, root) for i in signers)
    stable = StableCheckpoint(sequence, root, votes)
    return Checkpointed(world=world, settled=settled, running=running, checkpoints=checkpoints, stable=stable)


def lie() -> dict[str, object]:
    """Fields of evidence against the first aggregator."""
    votes = [SignedVote(kind=PREPARE, view=0, sequence=1, digest=bytes([n]) * 32) for n in (1, 2)]
    first, second = ((vote, sign(DOMAIN, vote, key("aggregator0"))) for vote in votes)
    return evidence_fields(first, second)
