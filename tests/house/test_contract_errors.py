"""Every refusal of the contracts is provoked by a test: each has an error of its own."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNREACHABLE = {
    "MemberCode__NotWritten": "creating a contract fails only where gas ran out before",
}


def words(*patterns: str) -> str:
    """All text of these files."""
    return "\n".join(
        path.read_text(encoding="utf-8") for pattern in patterns for path in sorted(ROOT.glob(pattern))
    )


def test_each_error_is_declared_thrown_and_provoked() -> None:
    sources, tests = words("contracts/**/*.sol"), words("tests/contracts/*.py", "tests/contracts/*.sol")
    declared = re.findall(r"error (\w+__\w+)\(", sources)
    assert len(declared) > 40 and len(set(declared)) == len(declared)
    for name in declared:
        assert len(re.findall(rf"\b{name}\b", sources)) > 1, f"{name} is never thrown"
    missing = {name for name in declared if not re.search(rf"\b{name}\b", tests)}
    assert missing == set(UNREACHABLE)
