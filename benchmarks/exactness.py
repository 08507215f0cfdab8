"""Digests of the fixed suite of ``exact-1``: run it on two machines and compare the lines.

    python -m benchmarks.exactness [--json] [--backend auto] [--batch 24] [--container auto]

Every digest must be the one in ``tests/golden/exactness.json``, on any device, JAX version, batch
size and container; the exit status says whether they all are.

Source: PoT section 2.5 "Validation Definiteness"; docs/validation.md, "Comparing machines".
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import jax

from offchain.evaluation import conformance
from offchain.evaluation.containers import CHOICES
from offchain.evaluation.means import Means

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "exactness.json"


def main() -> int:
    """Run the suite; print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--backend", choices=("auto", "specification", "jax"), default="auto")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--container", choices=CHOICES, default="auto")
    arguments = parser.parse_args()
    found = conformance.run(arguments.backend, arguments.batch, Means(container=arguments.container))
    agreed = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    result = {
        "suite": conformance.SUITE,
        "digest": found.digest.hex(),
        "per_model": [{"model": name, "digest": digest.hex()} for name, digest in found.per_model.items()],
    }
    wrong = [row["model"] for row in result["per_model"] if row not in agreed.get("per_model", [])]  # type: ignore[index]
    if arguments.json:
        about = {
            "device": jax.default_backend(),
            "jax": jax.__version__,
            "backend": arguments.backend,
            "container": arguments.container,
        }
        print(json.dumps({**result, **about, "differs": wrong}))
    else:
        for name, digest in found.per_model.items():
            print(f"{name:32}{digest.hex()}{'  DIFFERS' if name in wrong else ''}")
        print(f"{conformance.SUITE:32}{found.digest.hex()}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
