"""Links between aggregators: authenticated, encrypted, bound to the link keys registered on the chain.

Source: design section 6 ("Links"); TLS 1.3 (RFC 8446), used as libp2p uses it, by OpenSSL.
"""
