"""How an actor stands, for those who watch over it: what it counts and sees, and where it says so."""

from offchain.standing.meters import Meters
from offchain.standing.monitor import Monitor

__all__ = ["Meters", "Monitor"]
