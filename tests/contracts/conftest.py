"""Keeps the contract tests to ``ape test tests/contracts``, and the ordinary test run away from them.

They need ape's pytest plug-in and a chain of its own. Ape's run is known by the ``pytest.ini`` beside this
file, which pytest takes when this folder is what it is given; any other run ignores the folder.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures in ape's run only: elsewhere ape may not even be installed."""
    if _is_ape_run(config):
        config.pluginmanager.import_plugin("contract_fixtures")
        config.pluginmanager.import_plugin("contract_coverage")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests to ape's run."""
    return None if _is_ape_run(config) else True


def _is_ape_run(config: pytest.Config) -> bool:
    return config.inipath == HERE / "pytest.ini"
