"""What the chain said: contract events up to a block that the committee agrees on.

Source: design section 5 ("The ledger reads the chain deterministically").
"""
