"""Configuration files that cannot be used are one typed error, for actors and aggregators alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.config import AggregatorConfig
from aggregator.journal.folder import FolderUnusable
from aggregator.journal.journal import Journal
from offchain.config import ClientConfig, ProviderConfig, ValidatorConfig, VerifierConfig
from protocol.errors import ProtocolError


@pytest.mark.parametrize(
    "kind", [AggregatorConfig, ClientConfig, ProviderConfig, ValidatorConfig, VerifierConfig]
)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"key_file = [", b'colour = "red"', b""])
def test_a_file_that_is_no_configuration_is_refused_by_name(
    tmp_path: Path, kind: type[AggregatorConfig] | type[ClientConfig], content: bytes
) -> None:
    path = tmp_path / "role.toml"
    path.write_bytes(content)
    with pytest.raises(ProtocolError, match=r"role\.toml"):
        kind.read(path)


def test_a_data_folder_that_cannot_be_one_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FolderUnusable, match="choose another data_dir"):
        Journal.at(tmp_path / "file" / "journal")
