"""The deterministic simulator: real replicas and real ledgers in virtual time, with members that lie.

``python -m tests.simulation --seeds 1000``; a seed replays exactly with ``--seed N --story``.

`faults` draws every parameter from the seed, `world` runs it, `byzantine` holds the liars' menu, `checkers`
look on and know nothing of how consensus works, `mutants` plants bugs to prove that the checkers see.

Models: TigerBeetle's VOPR, FoundationDB's simulation, Twins (Bano et al. 2021) for equivocation.
"""
