"""Consensus of one request: seconds from a client's signed request to the replies, on real sockets.

    python -m benchmarks.consensus [--nodes N …] [--payload BYTES …] [--transactions K] [--repeat R]
        [--latency-ms L] [--bandwidth-mbps B] [--until all|quorum] [--durable]
        [--relay auto|on|off] [--unanimity-ms T] [--virtual] [--view-timeout-ms T] [--json]

Real replicas, real links: loopback TCP, TLS 1.3, votes signed and checked by everyone as in the product,
every reply signed and checked by the client. ``--transactions 0`` (the default) orders one opaque blob of
``--payload`` bytes, signed by its client; ``--transactions K`` orders K signed claims, which every member
authenticates and its ledger executes. Time runs until replies from all members are in, or from 2f + 1 of them
(``--until quorum``); that the others reply too is awaited either way.

``--relay``: votes travel through the primary (`Limits.relay_votes`) or to everyone; ``auto`` relays where no
network is emulated.

``--unanimity-ms 0``: members do not wait for the votes of all (`Limits.unanimity_ms`), so every batch takes
prepares and commits.

Members share processes, one pinned to each core, unless they execute transactions: then each has its own.
``--virtual`` runs the same members in virtual time instead, each on a machine of its own, where computing
takes as long as it was measured to take (`benchmarks._virtual`).

Beside each figure stand two floors: what the emulated network alone costs, and what the signatures alone cost
these cores. The figures to reach are in design section 12. Source: PoT 4.1, figures 5 to 8 and table 5.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from aggregator.node import now_ms
from aggregator.pbft.limits import Limits
from benchmarks import _sockets, _virtual
from benchmarks._claims import claims, ledger_with_order
from benchmarks._member import DOMAIN, batches_of, committee, make_request, open_request
from benchmarks._wire import Conditions, floor_s
from protocol.certificate import places_root
from protocol.crypto import Key, keccak256, recover

WARM_UPS: Final = 2
"""Requests on sockets before the clock counts: the first ones meet small TCP windows and cold code."""
PACKAGES: Final = ("pyOpenSSL", "coincurve", "msgspec", "safe-pysha3")
SIGNATURES_TIMED: Final = 300


def payloads(members: tuple[bytes, ...], size: int, transactions: int, count: int, at_ms: int) -> list[Any]:
    """``count`` payloads: blobs that differ, or lists of claims that follow each other."""
    if not transactions:
        return [(number.to_bytes(8, "big") + os.urandom(size - 8),) for number in range(count)]
    _, oid = ledger_with_order(DOMAIN, members, at_ms)
    signed = claims(DOMAIN, oid, transactions * count)
    return [tuple(signed[start : start + transactions]) for start in range(0, len(signed), transactions)]


def signature_floor_s(nodes: int, quorum: int, transactions: int, cores: int, *, unanimous: bool) -> float:
    """What signing and checking alone cost ``cores``, at the speed of one measured here now.

    Per member: its votes and reply, the proposal, request or transactions, and the prepares of all others, or
    of a quorum and its commits.
    """
    key, digest = Key(keccak256(b"signer")), keccak256(b"signed")
    start = time.perf_counter()
    for _ in range(SIGNATURES_TIMED):
        signature = key.sign(digest)
    sign_s = (time.perf_counter() - start) / SIGNATURES_TIMED
    start = time.perf_counter()
    for _ in range(SIGNATURES_TIMED):
        recover(digest, signature)
    verify_s = (time.perf_counter() - start) / SIGNATURES_TIMED
    votes, signed = (nodes - 2, 2) if unanimous else (quorum - 2 + quorum - 1, 3)
    checks = 1 + votes + max(1, transactions)
    return nodes * (signed * sign_s + checks * verify_s) / cores + nodes * verify_s


def measure(arguments: argparse.Namespace, nodes: int, size: int) -> dict[str, Any]:
    """One row."""
    members, _ = committee(nodes)
    transactions, cores = arguments.transactions, os.cpu_count() or 1
    conditions = Conditions(latency_ms=arguments.latency_ms, bandwidth_mbps=arguments.bandwidth_mbps)
    started_ms = now_ms()
    warm_ups = 0 if arguments.virtual else WARM_UPS
    every = payloads(members.addresses, size, transactions, warm_ups + arguments.repeat, started_ms)
    replies = members.quorum if arguments.until == "quorum" else nodes
    processes = 1 if arguments.virtual else nodes if transactions else min(cores, nodes)
    run = _virtual.running if arguments.virtual else _sockets.running
    taken, agreed, bytes_sent = [], [], 0
    with run(
        nodes,
        processes,
        ledger=bool(transactions),
        durable=arguments.durable,
        conditions=conditions,
        started_ms=started_ms,
        limits=Limits(
            view_timeout_ms=arguments.view_timeout_ms,
            relay_votes=relays(arguments),
            unanimity_ms=arguments.unanimity_ms,
        ),
    ) as network:
        for number, payload in enumerate(every):
            data = make_request(network.client_key, number, payload, opaque=not transactions)
            bytes_sent = len(data)
            batches = batches_of(data, open_request(data))
            roots = [places_root([keccak256(item) for item in batch]) for batch in batches]
            seconds, all_agreed = network.request(data, roots, replies)
            if number >= warm_ups:
                taken.append(seconds)
                agreed.append(all_agreed)
    busy = nodes if arguments.virtual else min(cores, nodes)
    return {
        "nodes": nodes,
        "payload_bytes": sum(map(len, every[0])),
        "transactions": transactions,
        "request_bytes": bytes_sent,
        "processes": processes,
        "seconds": {
            "min": round(min(taken), 5),
            "median": round(statistics.median(taken), 5),
            "max": round(max(taken), 5),
        },
        "all_nodes_replied": all(agreed),
        "floor_seconds": {
            "network": round(floor_s(nodes, members.quorum, replies, bytes_sent, conditions), 5),
            "signatures": round(
                signature_floor_s(
                    nodes, members.quorum, transactions, busy, unanimous=bool(arguments.unanimity_ms)
                ),
                5,
            ),
        },
    }


def relays(arguments: argparse.Namespace) -> bool:
    """Whether votes travel through the primary: by default where the network costs no time."""
    if arguments.relay == "auto":
        return not arguments.latency_ms and not arguments.bandwidth_mbps
    return bool(arguments.relay == "on")


def config(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "votes": "through the primary" if relays(arguments) else "to everyone",
        "versions": {name: version(name) for name in PACKAGES},
        "carried_by": "virtual time, one machine per member"
        if arguments.virtual
        else "loopback TCP, TLS 1.3",
        "until": arguments.until,
        "repeat": arguments.repeat,
        "warm_ups": 0 if arguments.virtual else WARM_UPS,
        "latency_ms": [0.1 * arguments.latency_ms, arguments.latency_ms],
        "bandwidth_mbps": arguments.bandwidth_mbps,
        "durable": arguments.durable,
        "view_timeout_ms": arguments.view_timeout_ms,
        "unanimity_ms": arguments.unanimity_ms,
    }


def show(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    shown = figures["config"]
    print(f"{shown['carried_by']}, {shown['cores']} cores, load {shown['load_before']}")
    print(
        f"{'nodes':>5}{'bytes':>10}{'tx':>7}{'min':>10}{'median':>10}{'max':>10}{'network':>10}{'signing':>10}"
    )
    for row in figures["results"]:
        seconds, floors = row["seconds"], row["floor_seconds"]
        print(
            f"{row['nodes']:5}{row['payload_bytes']:10}{row['transactions']:7}{seconds['min']:10.4f}"
            f"{seconds['median']:10.4f}{seconds['max']:10.4f}{floors['network']:10.4f}{floors['signatures']:10.4f}"
        )


def main(given: Sequence[str] | None = None) -> None:
    """Measure all rows; print a table, or JSON as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--payload", type=int, nargs="+", default=[3_000, 30_000])
    parser.add_argument("--transactions", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--bandwidth-mbps", type=float, default=0.0)
    parser.add_argument("--until", choices=("all", "quorum"), default="all")
    parser.add_argument("--view-timeout-ms", type=int, default=Limits().view_timeout_ms)
    parser.add_argument("--unanimity-ms", type=int, default=Limits().unanimity_ms)
    parser.add_argument("--relay", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--durable", action="store_true")
    parser.add_argument("--virtual", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    sizes = [0] if arguments.transactions else arguments.payload
    figures = {
        "config": config(arguments),
        "results": [measure(arguments, nodes, size) for nodes in arguments.nodes for size in sizes],
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
