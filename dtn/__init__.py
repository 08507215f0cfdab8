"""The ``dtn`` command: the one room that may use all the others, because it puts them together.

Nothing imports it but tests and benchmarks (docs/decisions/0002-dtn-room.md).
"""
