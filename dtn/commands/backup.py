"""``dtn aggregator backup|restore``: a member's journal in a file, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dtn.commands import staking
from dtn.commands.staking import Config
from dtn.output import JsonFlag, console, print_json


def extend(app: typer.Typer) -> None:
    """Add the commands to those of an aggregator."""
    app.command(name="backup")(back_up)
    app.command()(restore)


def back_up(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    config: Config,
    move: Annotated[
        bool,
        typer.Option(
            "--move", help="Of a stopped aggregator: complete, to be restored once; retires the journal."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the journal to a file, while the aggregator runs or not."""
    from aggregator.config import AggregatorConfig
    from aggregator.journal.backup import backup

    settings = AggregatorConfig.read(config)
    made = backup(
        settings.data_dir / "journal",
        file,
        _owner(settings),
        "move" if move else "copy",
        time.time_ns() // 1_000_000,
    )
    if as_json:
        print_json({"path": str(file), "kind": made.kind, "files": made.files})
        return
    console.print(f"wrote {file}, {len(made.files)} files", soft_wrap=True)
    console.print("the key is not in it; back that up apart")
    if move:
        console.print("this journal is retired: restore the backup once, and delete it then")


def restore(
    file: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
    config: Config,
    as_json: JsonFlag = False,
) -> None:
    """Put the journal of a backup in place; see docs/operating.md for when it votes again."""
    from aggregator.config import AggregatorConfig
    from aggregator.journal.backup import restore as put_back

    settings = AggregatorConfig.read(config)
    # By the chain as it is now: of every committee so far the member may have promised anything.
    epoch = staking.chain_at(settings.rpc_url, settings.book(), settings.key()).committee_epoch()
    made = put_back(file, settings.data_dir / "journal", _owner(settings), epoch)
    if as_json:
        print_json({"path": str(settings.data_dir / "journal"), "kind": made.kind, "epoch": epoch})
        return
    console.print(f"restored {settings.data_dir / 'journal'}", soft_wrap=True)
    if made.kind == "move":
        console.print("it votes at once; delete the backup, it must not be restored again")
    else:
        console.print(f"it follows without a vote until a committee after epoch {epoch} orders")


def _owner(settings: Any) -> Any:
    from aggregator.journal.backup import Owner

    book = settings.book()
    return Owner(settings.key().address, book.chain_id, bytes.fromhex(book.parameters[2:]))
