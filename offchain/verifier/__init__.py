"""The verifier: checks others' validations and challenges the wrong ones (PoT.Verify)."""

from offchain.verifier.verifier import Verifier

__all__ = ["Verifier"]
