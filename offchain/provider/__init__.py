"""The provider: trains models for orders and claims the rewards (PoT 3.3.2, the mining cycle)."""

from offchain.provider.provider import Provider

__all__ = ["Provider"]
