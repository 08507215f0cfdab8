"""The demo from nothing to a paid order: seconds per phase, gas per kind of transaction.

    python -m benchmarks.demo [--json]

Runs ``dtn demo`` in a folder of its own, so that nothing of an earlier run is reused but the installed
packages (a warm ``make demo``). Everything is real: Anvil, the committee in processes of its own, training on
CPU. The training, validation and challenge phases last as long as the order's windows say, the others as long
as the work takes. Gas is what the receipts say. The figure to reach is 90 seconds (design 12).

Source: design section 12; PoT 4.2, table 6 (gas).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from dtn.devnet import Shape

TIMEOUT_S: Final = 420
PACKAGES: Final = ("jax", "flax", "web3", "pyOpenSSL", "coincurve")


class DemoFailed(Exception):
    """The demo did not end with a paid order; carries the end of what it said."""


def run_demo(folder: Path) -> dict[str, Any]:
    """One ``dtn demo --json`` with ``folder`` as its home; its JSON.

    Raises:
        DemoFailed: it ended with an error, or not in time.
    """
    command = [
        sys.executable,
        "-m",
        "dtn",
        "demo",
        "--json",
        "--measure",
        "--output",
        str(folder / "model.safetensors"),
    ]
    # A fresh home: no network, key, store or compiled program of an earlier run.
    environment = {**os.environ, "DTN_HOME": str(folder)}
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as reason:
        raise DemoFailed(f"the demo took more than {TIMEOUT_S} s") from reason
    if ended.returncode:
        raise DemoFailed(ended.stderr[-2000:])
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def measure() -> dict[str, Any]:
    """Configuration and figures of one run."""
    shape = Shape()
    with tempfile.TemporaryDirectory(prefix="dtn-demo-") as folder:
        result = run_demo(Path(folder))
    return {
        "config": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in PACKAGES},
            "aggregators": shape.aggregators,
            "providers": shape.providers,
            "validators": shape.validators,
            "verifiers": shape.verifiers,
        },
        "seconds": {
            "total": result["seconds"],
            "network_up_and_down": round(result["seconds"] - result["order_seconds"], 1),
            "order": result["order_seconds"],
            "phases": [{"phase": item["phase"], "seconds": item["seconds"]} for item in result["phases"]],
        },
        "gas": {kind: summary(used) for kind, used in sorted(result["gas"].items())},
        "accounts_credited": len({credit["account"] for credit in result["credits"]}),
        "score_millionths": result["score"],
    }


def summary(used: list[int]) -> dict[str, int]:
    """Transactions of one kind: how many, and their gas."""
    return {
        "transactions": len(used),
        "min": min(used),
        "median": int(statistics.median(used)),
        "max": max(used),
    }


def show(figures: dict[str, Any]) -> None:
    """The figures as tables."""
    config, seconds = figures["config"], figures["seconds"]
    nodes = ", ".join(
        f"{config[role]} {role}" for role in ("aggregators", "providers", "validators", "verifiers")
    )
    print(f"{config['cores']} cores, Python {config['python']}, {nodes}")
    print(f"{'':22}{'seconds':>10}")
    for item in seconds["phases"]:
        print(f"{item['phase']:22}{item['seconds']:>10}")
    print(f"{'order, put to paid':22}{seconds['order']:>10}")
    print(f"{'network up and down':22}{seconds['network_up_and_down']:>10}")
    print(f"{'total':22}{seconds['total']:>10}")
    print(f"{'gas':22}{'count':>10}{'min':>10}{'median':>10}{'max':>10}")
    for kind, used in figures["gas"].items():
        print(f"{kind:22}{used['transactions']:>10}{used['min']:>10}{used['median']:>10}{used['max']:>10}")


def main() -> int:
    """Measure once; print tables, or JSON. Ends with status 1 if the demo fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    try:
        figures = measure()
    except DemoFailed as reason:
        print(f"the demo failed: {reason}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
