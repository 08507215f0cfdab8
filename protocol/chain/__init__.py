"""The chain as the protocol sees it: contract artifacts, deployment plan, address book.

Guarantees: no module here opens a connection by itself; whoever calls brings a ``Web3`` or an ape
provider. Source: design section 5; PoT 3.3.1 to 3.3.4 (the on-chain part).
"""
