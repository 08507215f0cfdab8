"""Checks of the aggregators: who answers, whether they agree, whose clock is right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec

from dtn.doctor.finding import Finding, failed, ok, skipped, warning
from protocol.chain.deployment import AddressBook
from protocol.version import SUPPORTED, Versions, beyond

TIMEOUT_S: Final = 3.0
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_SKEW_S: Final = 5.0
"""A proposal further ahead of a member's clock gets no vote from it (docs/operating.md, "Clocks")."""
MAX_BEHIND: Final = 256
"""A replica's window: whoever is further behind fetches what it lacks."""
MOST_ASKED: Final = 30


class NetworkOf(msgspec.Struct, frozen=True, rename="camel"):
    """Which network an aggregator serves, as it says itself."""

    chain_id: int
    parameters: str


class UpgradeOf(msgspec.Struct, frozen=True):
    """The protocol version that takes over with batch ``first``."""

    version: int
    first: int


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """Where an aggregator stands, as it says itself."""

    network: NetworkOf
    member: int | None
    members: tuple[str, ...]
    executed: int
    settled_epoch: int
    clock_ms: int
    alarms: tuple[str, ...]
    protocol_version: int = 1
    """In force there."""
    protocol_upgrade: UpgradeOf | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one aggregator said, and this machine's clock half-way through."""

    url: str
    status: Status | None
    at_s: float
    reason: str = ""


def ask(url: str, client: httpx.Client) -> Answer:
    """One aggregator's status; never raises for what the other side does."""
    began_s = time.time()
    try:
        with client.stream("GET", f"{url.rstrip('/')}/v1/status", timeout=TIMEOUT_S) as response:
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_ANSWER_BYTES:
                    return Answer(url, None, began_s, "answers with too much")
        status = msgspec.json.decode(bytes(data), type=Status)
    except (httpx.HTTPError, httpx.InvalidURL) as reason:
        return Answer(url, None, began_s, str(reason) or type(reason).__name__)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Answer(url, None, began_s, f"answers {response.status_code} with no status")
    return Answer(url, status, (began_s + time.time()) / 2)


def ask_all(urls: Sequence[str]) -> list[Answer]:
    """What each of the aggregators says, `MOST_ASKED` at most."""
    with httpx.Client(follow_redirects=False) as client:
        return [ask(url, client) for url in urls[:MOST_ASKED]]


def check_answers(answers: Sequence[Answer], book: AddressBook) -> Finding:
    """Whether enough aggregators answer, and for this network."""
    name = "aggregators"
    if not answers:
        return skipped(name, "none is known")
    silent = [f"{answer.url} ({answer.reason})" for answer in answers if answer.status is None]
    others = [
        answer.url
        for answer in answers
        if answer.status is not None
        and (answer.status.network.chain_id, answer.status.network.parameters.lower())
        != (book.chain_id, book.parameters.lower())
    ]
    if others:
        do = "get the network file of this network from whoever deployed it"
        return failed(name, f"{', '.join(others)} serve another network", do)
    need = (len(answers) - 1) // 3 + 1
    told = len(answers) - len(silent)
    what = f"{told} of {len(answers)} answer"
    if told < need:
        do = "look at your connection; if others reach them, renew the file with `dtn network create`"
        return failed(name, f"{what}; {need} must: {'; '.join(silent)}", do)
    if silent:
        do = "nothing, if they come back; else renew the file with `dtn network create`"
        return warning(name, f"{what}: {'; '.join(silent)}", do)
    return ok(name, what)


def check_agreement(answers: Sequence[Answer]) -> Finding:
    """Whether those who answer are at one settlement, near each other, and without alarms."""
    name = "agreement"
    known = [(answer.url, answer.status) for answer in answers if answer.status is not None]
    if not known:
        return skipped(name, "no aggregator answers")
    top = max(status.executed for _, status in known)
    behind = [
        f"{url} by {top - status.executed}" for url, status in known if top - status.executed > MAX_BEHIND
    ]
    settled = {status.settled_epoch for _, status in known}
    alarms = [f"{url}: {alarm}" for url, status in known for alarm in status.alarms]
    if behind:
        return warning(
            name, f"behind the others: {', '.join(behind)}", "ask others until they have caught up"
        )
    if max(settled) - min(settled) > 1:
        do = "look at the chain nodes of those behind: settlements reach the ledger through them"
        return warning(name, f"they are at settlements {sorted(settled)}", do)
    if alarms:
        return warning(name, "; ".join(alarms)[:400], 'see docs/operating.md, "Logs and alarms"')
    return ok(name, f"at settlement {max(settled)}, batch {top}")


def check_clock(answers: Sequence[Answer]) -> Finding:
    """Whether this machine's clock is that of most aggregators."""
    name = "clock"
    skews = sorted(
        answer.at_s - answer.status.clock_ms / 1000 for answer in answers if answer.status is not None
    )
    if not skews:
        return skipped(name, "no aggregator answers")
    # The middle one: a liar must not make an honest clock look wrong.
    skew_s = skews[len(skews) // 2]
    what = f"{abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} the aggregators' clocks"
    if abs(skew_s) > MAX_SKEW_S:
        do = "run NTP here: deadlines are missed, and an aggregator's proposals get no votes"
        return failed(name, what, do)
    return ok(name, what)


def check_protocol(answers: Sequence[Answer], known: Versions = SUPPORTED) -> Finding:
    """Whether this software knows the rules that the aggregators follow, and those to come.

    What more than a third of them say counts: one liar must not make a healthy node look old.
    """
    name = "protocol"
    said = [answer.status for answer in answers if answer.status is not None]
    if not said:
        return skipped(name, "no aggregator answers")
    need = (len(said) - 1) // 3 + 1
    in_force = Counter(status.protocol_version for status in said)
    coming = Counter(status.protocol_upgrade for status in said if status.protocol_upgrade is not None)
    do = "install the newer release and start again; nothing is lost meanwhile"
    for version, count in in_force.items():
        if version not in known and count >= need:
            return failed(name, beyond(version, None, known), do)
    for upgrade, count in coming.items():
        if upgrade.version not in known and count >= need:
            return warning(name, beyond(upgrade.version, upgrade.first, known), do)
    versions = ", ".join(map(str, sorted(in_force)))
    return ok(name, f"this software knows {known}, the aggregators follow {versions}")


def member_accounts(answers: Sequence[Answer]) -> dict[str, Any]:
    """By URL, the account that an aggregator says it is."""
    found = {}
    for answer in answers:
        status = answer.status
        if status is not None and status.member is not None and status.member < len(status.members):
            found[answer.url] = status.members[status.member].lower()
    return found
