"""The validator: scores revealed models with the network's validation function (PoT.Validate)."""

from offchain.validator.validator import Validator

__all__ = ["Validator"]
