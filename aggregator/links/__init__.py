"""Links between aggregators: authenticated, encrypted, bound to the link keys registered on the chain.

Source: design section 6 ("Links"); CurveZMQ (RFC 26) and ZAP (RFC 27) do the cryptography.
"""
