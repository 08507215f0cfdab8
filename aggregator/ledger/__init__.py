"""The global ledger: a pure state machine over batches of chain events and signed transactions.

``apply_batch(state, block) -> (state, results, events)`` is total and deterministic: integers, sorted
iteration, no clock, no randomness, no input or output. See `state` for what is kept, `transition` for
how it changes, `tasks` for the task protocols, `settlement` for what goes to the chain.

Source: PoT 3.1.2, 3.2 and 3.3.4.
"""
