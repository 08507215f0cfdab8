"""Why the ledger refuses a transaction: one type per reason, with what was had and what was needed.

    Refused
    ├── UnknownOrder          no such order, or it is settled and dropped
    ├── StaleNonce            the sender used this nonce or a later one
    ├── NonceTooFar           the nonce is so far ahead that it would lock the account out
    ├── WrongKind             the order's task protocol does not know this transaction
    ├── WrongPhase            not accepted in the phase the order is in
    ├── NotAllowed            the sender is not who may do this
    ├── NotStaked             too little free stake in the role
    ├── NoStanding            an account without stake, and not the client of the order it names
    ├── NotProven             votes that contradict nothing, or are not signed by one account
    ├── NothingToSlash        the accused has no stake as aggregator
    ├── UnknownThing          the claim, model, validation or challenge named does not exist
    ├── OrderFull             the order has as many claims, validations, reports or appeals as it may
    ├── QueueFull             as much waits for the next settlement as may wait
    ├── AlreadyDone           it was done before and cannot be done again
    └── Mismatch              what is revealed does not open the commitment, or does not match a hash

A refusal is a result, not a failure: the state is untouched and the reason goes back to the sender.
"""

from __future__ import annotations

from collections.abc import Sequence


class Refused(Exception):
    """Base of all refusals; ``code`` is stable and for machines, the message is for people."""

    @property
    def code(self) -> str:
        return type(self).__name__


class UnknownOrder(Refused):
    def __init__(self, oid: bytes) -> None:
        super().__init__(f"there is no open order 0x{oid.hex()}")


class StaleNonce(Refused):
    def __init__(self, have: int, need: int) -> None:
        super().__init__(f"nonce {have} was used; the next one is at least {need}")


class NonceTooFar(Refused):
    def __init__(self, have: int, most: int) -> None:
        super().__init__(f"nonce {have} is too far ahead; use the time in milliseconds, at most {most} now")


class WrongKind(Refused):
    def __init__(self, have: str, kind: str) -> None:
        super().__init__(f"an order of kind {kind!r} takes no {have}")


class WrongPhase(Refused):
    def __init__(self, have: str, need: Sequence[str]) -> None:
        accepted = " and ".join(repr(str(phase)) for phase in need)
        super().__init__(f"the order is in phase {str(have)!r}; this is accepted in {accepted}")


class NotAllowed(Refused):
    pass


class NotStaked(Refused):
    def __init__(self, role: str, have: int, need: int) -> None:
        super().__init__(
            f"as {role} you have {have} wei of free stake and need {need}; run `dtn {role} register`"
        )


class NoStanding(Refused):
    pass


class NotProven(Refused):
    pass


class NothingToSlash(Refused):
    def __init__(self, accused: bytes, have: int) -> None:
        super().__init__(f"0x{accused.hex()} holds {have} wei of stake as aggregator; too little to slash")


class OrderFull(Refused):
    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"the order has {most} {what}, as many as it may; choose another order")


class QueueFull(Refused):
    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"{most} {what} wait for a settlement, as many as may; try again after the next one")


class UnknownThing(Refused):
    pass


class AlreadyDone(Refused):
    pass


class Mismatch(Refused):
    pass
