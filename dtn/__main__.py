"""Entry point of ``dtn``: one line for every expected failure, exit code 1; usage errors exit with 2."""

from __future__ import annotations

import sys

from protocol.errors import ProtocolError
from protocol.text import printable


def main() -> None:
    """Run the command line."""
    try:
        # Importing takes most of a second, in which somebody may press Ctrl-C.
        from dtn.app import app

        app()
    except ProtocolError as reason:
        print(f"dtn: {printable(' '.join(str(reason).split()))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("dtn: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
