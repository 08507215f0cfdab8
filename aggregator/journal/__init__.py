"""The durable log: what a replica promised and what the committee committed, on disk.

Source: design section 6 ("Persist before send, always") and section 11 (power loss mid-write).
"""
