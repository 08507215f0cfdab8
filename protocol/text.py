"""Strings of strangers, made fit for a terminal and a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` on one line without control characters: each becomes a replacement character.

    A terminal obeys some of them, and a line break in a log looks like another line of the program's own.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
