"""One member of the committee: replica, ledger, pool and journal in one synchronous piece.

    from aggregator.member.member import Member

`Member` is made of layers, each in a file: `execution` (ledger and journal), `pooling` (transactions on
their way in), `succession` (snapshots, hand-overs), `ordering` (proposals), `member` (time and messages).
What they are built from stands beside them, a file each.
"""
