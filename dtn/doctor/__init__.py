"""What is wrong with a node, and what to do about it: `diagnose` looks, `dtn doctor` shows.

Every check is a function of its arguments that returns a `Finding`, changes nothing and takes seconds.
"""

from dtn.doctor.diagnosis import diagnose
from dtn.doctor.finding import Finding, Verdict

__all__ = ["Finding", "Verdict", "diagnose"]
