"""An aggregator of the next release: this software with the rules of one more protocol version.

``python -m tests.end_to_end.newer_release --config FILE``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aggregator.config import AggregatorConfig
from aggregator.service import run
from protocol.logs import configure
from tests.ledger.versions import NEWER


def main() -> None:
    """Run it until it is told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    configure()
    run(AggregatorConfig.read(parser.parse_args().config), NEWER)


if __name__ == "__main__":
    main()
