"""The pool's file: who belongs to it, where its leader is reached, how rewards are shared.

One TOML file, the same at every member, so that everybody knows by what rule they are paid. Which part a
provider plays follows from its own key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from offchain.config import InvalidConfig, read_toml
from protocol.crypto import Key


def _address(text: str) -> str:
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
        raise ValueError(f"{text!r} is no address: write 0x and 40 hex digits")
    return text.lower()


Address = Annotated[str, AfterValidator(_address)]


class PoolSettings(BaseModel):
    """What all members of a pool have agreed on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    leader: Address
    """The account that stakes, claims and is paid; its host runs process 0."""
    members: tuple[Address, ...] = Field(min_length=1, max_length=255)
    """The other hosts' accounts, which the leader pays."""
    url: str
    """Where the leader listens for its members: ``http://HOST:PORT``."""
    coordinator_port: int = Field(default=0, ge=0, lt=65536)
    """Where the training processes meet, on the host of ``url``; 0 takes a free one each time."""
    fee_bps: int = Field(default=0, ge=0, le=10_000)
    """What the leader keeps of a reward before it is split, in basis points."""
    split_by: Literal["samples", "steps", "time"] = "samples"
    """What counts: samples computed (more devices, more samples), steps taken part in, or time of devices."""
    gather_s: float = Field(default=15.0, ge=0, le=600)
    """How long the first round of an order waits for members that are still fetching its data."""
    silence_s: float = Field(default=5.0, gt=0, le=600)
    """A member that has not reported for so long is gone, and the others go on without it."""
    start_s: float = Field(default=120.0, gt=0, le=3600)
    """How long a round may take to its first dispatch: joining and compiling."""
    stall_s: float = Field(default=30.0, gt=0, le=3600)
    """How long a round may show no progress; must be more than one scoring takes."""
    regroup_s: float = Field(default=60.0, gt=0)
    """A round lasts at least so long before it is ended in order to take in a member that came late."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if len({self.leader, *self.members}) != 1 + len(self.members):
            raise ValueError("leader and members must all be different accounts")
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or parts.port is None:
            raise ValueError(f"url must be http://HOST:PORT, not {self.url!r}")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """The settings in the TOML file at ``path``; raises `InvalidConfig`."""
        return read_toml(cls, path)

    @property
    def host(self) -> str:
        """Where the leader's host is reached."""
        return str(urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        """Where the leader listens for reports."""
        port = urlsplit(self.url).port
        assert port is not None, "validated"
        return port

    def is_leader(self, key: Key) -> bool:
        """Whether ``key`` is the leader's.

        Raises:
            InvalidConfig: it is nobody's in this pool.
        """
        account = "0x" + key.address.hex()
        if account != self.leader and account not in self.members:
            raise InvalidConfig(f"{account} is neither leader nor member of this pool: correct its file")
        return account == self.leader
