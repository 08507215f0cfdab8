"""State proofs: one row of the ledger, checked by a stranger who knows nothing but the committee.

Every row (a node, a nonce, an order, an order's receipt root, …) is a leaf of a Merkle tree whose root a
quorum of members signs at every checkpoint. A proof holds the row's bytes, its path to the root and those
signatures: whoever serves it cannot change any of them.

Guarantees: a proof that verifies shows what the ledger held at ``sequence``, not what it holds now. There are
no proofs of absence: a tree of leaves in order could give them, but pairs are hashed sorted, so places are
lost.

Source: design section 6 ("State has a root hash; checkpoints sign it"); Castro and Liskov 1999, section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol import merkle
from protocol.certificate import (
    CHECKPOINT,
    MAX_SIGNATURES,
    InvalidCertificate,
    MemberSignature,
    SignedVote,
    signatures_to_json,
    verify_quorum,
)
from protocol.crypto import keccak256
from protocol.typed_data import Bytes32, Domain, Uint64, parse_hex

HEAD: Final = "head"
"""The section of the one row that holds everything but maps; its key is empty."""
SECTIONS: Final = (HEAD, "nodes", "nonces", "table", "receipt_roots", "punished")
"""What the ledger consists of: `protocol.state_rows` says what a row of each is."""
MAX_PATH: Final = 64

_ENCODER: Final = msgspec.msgpack.Encoder()


def row_leaf(section: str, key: bytes, value: bytes) -> bytes:
    """Merkle leaf (32 bytes) of a row; ``value`` is the row in canonical MessagePack.

    The three parts form one MessagePack array, so that no row can pass for another.
    """
    return keccak256(keccak256(b"\x93" + _ENCODER.encode(section) + _ENCODER.encode(key) + value))


class StateProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row at a checkpoint, and the quorum that says so."""

    sequence: Uint64
    """The last batch that the row includes the effects of."""
    root: Bytes32
    signatures: tuple[MemberSignature, ...]
    section: str
    key: bytes
    value: bytes
    path: tuple[Bytes32, ...]

    def verify(self, domain: Domain, members: Sequence[bytes]) -> None:
        """Raise unless a quorum of ``members`` signed a state that holds this row.

        Raises:
            InvalidCertificate: with what does not fit.
        """
        leaf = row_leaf(self.section, self.key, self.value)
        if not merkle.verify(leaf, self.path, self.root):
            raise InvalidCertificate("the row is not in the proof's state")
        vote = SignedVote(kind=CHECKPOINT, view=0, sequence=self.sequence, digest=self.root)
        verify_quorum(domain, members, vote, self.signatures)


def state_proof_to_json(proof: StateProof) -> dict[str, Any]:
    """The public JSON form: hex for bytes, numbers for counts and indices."""
    return {
        "sequence": proof.sequence,
        "root": "0x" + proof.root.hex(),
        "signatures": signatures_to_json(proof.signatures),
        "section": proof.section,
        "key": "0x" + proof.key.hex(),
        "value": "0x" + proof.value.hex(),
        "path": ["0x" + item.hex() for item in proof.path],
    }


def state_proof_from_json(document: object) -> StateProof:
    """Inverse of `state_proof_to_json`; raises `InvalidCertificate` for anything else."""
    try:
        assert isinstance(document, dict)
        if len(document["signatures"]) > MAX_SIGNATURES or len(document["path"]) > MAX_PATH:
            raise InvalidCertificate("a proof with too many parts")
        fields = {
            "sequence": document["sequence"],
            "root": parse_hex(document["root"]),
            "signatures": tuple(
                {"member": item["member"], "signature": parse_hex(item["signature"])}
                for item in document["signatures"]
            ),
            "section": document["section"],
            "key": parse_hex(document["key"]),
            "value": parse_hex(document["value"]),
            "path": tuple(parse_hex(item) for item in document["path"]),
        }
        return msgspec.convert(fields, StateProof, builtin_types=(bytes,))
    except (AssertionError, KeyError, TypeError, ValueError) as reason:
        raise InvalidCertificate(f"not a state proof: {reason}") from reason
