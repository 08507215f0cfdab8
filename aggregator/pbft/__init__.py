"""Practical Byzantine fault tolerance, without input or output (Castro and Liskov, 1999; PoT 3.1.2).

    from aggregator.pbft.replica import Replica
    effects = replica.step(event)

The replica takes events (`events`) and returns effects (`effects`); it reads no clock, opens no socket or
file and draws no random number, so the same code runs in processes, in simulation and in benchmarks.

Reading order: `messages` (what is said), `quorum` (when enough have said it), `agreement` (the normal case),
`view_change` and `views` (when a primary fails), `replica` (the step, time, catching up, restart).
"""
