"""What members and leader of a pool send each other: small JSON objects, signed by their accounts.

Guarantee: what `opened` returns was signed by the account it names, for this purpose. Members are told from
strangers by it; a report that is repeated or older than the last one of its sender is refused by the roster.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.crypto import Key, keccak256, recover
from protocol.errors import InvalidSignature, ProtocolError

PURPOSE: Final = b"DTN pool letter v1"
MAX_LETTER_BYTES: Final = 64 * 1024


class InvalidLetter(ProtocolError):
    """A letter that is malformed, or not by whom it must be."""


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Report(_Content):
    """What a member says of itself, every second or so."""

    kind: Literal["report"] = "report"
    time_ms: int = Field(ge=0, lt=2**63)
    """The member's clock: reports of one member rise."""
    ready: str | None
    """OID of the order whose task and data this member holds, checked."""
    round: int | None
    """The round that this member takes part in, or took part in to its end."""
    failed: int | None
    """The last round in which its process ended in failure."""


class Round(_Content):
    """One gathering of training processes."""

    number: int
    """Rises with each round of a leader, over restarts too."""
    coordinator: str
    """``host:port`` where the processes meet."""
    accounts: tuple[str, ...]
    """Who runs which process, from process 0, the leader's."""
    training: dict[str, Any]
    """The leader's ``TrainingConfig``."""


class Instruction(_Content):
    """The leader's answer to a report."""

    kind: Literal["instruction"] = "instruction"
    answers_ms: int
    """``time_ms`` of the report: an old answer cannot be sent again."""
    order: str | None
    """OID of the order to get ready for."""
    round: Round | None
    """The round to take part in; any other process of this member must end."""


def signed(content: Report | Instruction, key: Key) -> bytes:
    """The letter: the content with its signature."""
    body = content.model_dump(mode="json")
    return json.dumps({"body": body, "signature": key.sign(_digest(body)).hex()}).encode()


def opened(letter: bytes, kind: type[Report] | type[Instruction]) -> tuple[str, Any]:
    """``(account, content)`` of a letter of that kind; the account in lower-case 0x-hex.

    Raises:
        InvalidLetter: malformed, or the signature fits nothing.
    """
    if len(letter) > MAX_LETTER_BYTES:
        raise InvalidLetter(f"a letter has at most {MAX_LETTER_BYTES} bytes, this one has {len(letter)}")
    try:
        parts = json.loads(letter)
        content = kind.model_validate(parts["body"])
        account = recover(_digest(parts["body"]), bytes.fromhex(parts["signature"]))
    except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature, ValidationError) as reason:
        raise InvalidLetter(f"not a letter of a pool: {reason}") from reason
    return "0x" + account.hex(), content


def _digest(body: Any) -> bytes:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return keccak256(PURPOSE + keccak256(canonical))
