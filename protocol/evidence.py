"""Evidence of equivocation: two signed votes of one member that no honest member casts both.

An honest member votes once per kind, view and sequence number, restarts included: the vote is in its journal
before it leaves. So two votes of the same `PUNISHABLE` kind, view and sequence with different digests and the
same signer prove a lie to anyone, without a committee, a clock or a witness.

Guarantees: `accused_in` names exactly who signed both; one pair of votes has one `Evidence` form and one id.

Source: design section 4 ("evidence that anyone can check"); Castro and Liskov 1999, section 4.2.
"""

from __future__ import annotations

from typing import Any, Final

from protocol import typed_data
from protocol.certificate import SignedVote
from protocol.crypto import keccak256, recover
from protocol.errors import InvalidSignature, ProtocolError
from protocol.transactions import Evidence
from protocol.typed_data import Domain

PRE_PREPARE: Final = 1
PREPARE: Final = 2
COMMIT: Final = 3
NEW_VIEW: Final = 6
PUNISHABLE: Final = frozenset({PRE_PREPARE, PREPARE, COMMIT, NEW_VIEW})
"""`SignedVote.kind` of which an honest member signs one digest per view and sequence.

Not view changes (5): a member that restarts may ask for the same view again with a newer checkpoint. Not
checkpoints (4): a wrong state root is a bug of that member's ledger, which stops it, rather than a lie.
"""


class InvalidEvidence(ProtocolError):
    """Votes that do not contradict each other, or are not signed by one account."""


def evidence_fields(first: tuple[SignedVote, bytes], second: tuple[SignedVote, bytes]) -> dict[str, Any]:
    """The fields of an `Evidence`, all but sender and nonce, from two votes with their signatures.

    Raises:
        InvalidEvidence: the votes are not about the same thing.
    """
    (vote, signature), (other, other_signature) = sorted((first, second), key=lambda item: item[0].digest)
    if (vote.kind, vote.view, vote.sequence) != (other.kind, other.view, other.sequence):
        raise InvalidEvidence("the votes are about different things, so both may be honest")
    return {
        "vote_kind": vote.kind,
        "view": vote.view,
        "sequence": vote.sequence,
        "first_digest": vote.digest,
        "first_signature": signature,
        "second_digest": other.digest,
        "second_signature": other_signature,
    }


def accused_in(domain: Domain, evidence: Evidence) -> bytes:
    """Address of the account that signed both votes.

    Raises:
        InvalidEvidence: with what is missing for a proof.
    """
    if evidence.vote_kind not in PUNISHABLE:
        raise InvalidEvidence(f"votes of kind {evidence.vote_kind} prove no lie: honest ones may differ")
    if evidence.first_digest >= evidence.second_digest:
        raise InvalidEvidence("two different digests are needed, the lower one first")
    try:
        signers = [
            recover(digest, signature)
            for digest, signature in zip(
                vote_digests(domain, evidence),
                (evidence.first_signature, evidence.second_signature),
                strict=True,
            )
        ]
    except InvalidSignature as reason:
        raise InvalidEvidence(str(reason)) from reason
    if signers[0] != signers[1]:
        raise InvalidEvidence(f"two accounts signed: 0x{signers[0].hex()} and 0x{signers[1].hex()}")
    return signers[0]


def vote_digests(domain: Domain, evidence: Evidence) -> tuple[bytes, bytes]:
    """The EIP-712 digests (32 bytes) of the two votes."""
    kind, view, sequence = evidence.vote_kind, evidence.view, evidence.sequence
    first, second = (
        typed_data.digest_of(domain, SignedVote(kind=kind, view=view, sequence=sequence, digest=digest))
        for digest in (evidence.first_digest, evidence.second_digest)
    )
    return first, second


def evidence_id(domain: Domain, accused: bytes, evidence: Evidence) -> bytes:
    """Names a contradiction, whoever reports it: the hash of who voted and of both votes."""
    return keccak256(accused + b"".join(vote_digests(domain, evidence)))


def offence_id(accused: bytes, evidence: Evidence) -> bytes:
    """Names what is punished once: a third digest for the same vote is the same offence."""
    return keccak256(
        accused
        + evidence.vote_kind.to_bytes(1, "big")
        + evidence.view.to_bytes(8, "big")
        + evidence.sequence.to_bytes(8, "big")
    )
