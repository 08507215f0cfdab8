"""The reference pages are what the code gives."""

from __future__ import annotations

import os

import pytest

from tests.docs import reference

PAGES = reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_gives(name: str) -> None:
    path = reference.TARGET / name
    if os.environ.get("REWRITE"):
        path.write_text(PAGES[name], encoding="utf-8")
    assert path.read_text(encoding="utf-8") == PAGES[name], reference.NOTE


def test_every_key_is_explained() -> None:
    """Of configuration files; an empty cell would be one that nobody explains."""
    rows = [line for line in PAGES["configuration.md"].splitlines() if line.startswith("| `")]
    assert rows and not [row for row in rows if row.endswith("|  |")]
