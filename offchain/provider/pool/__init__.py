"""A pool: several hosts train one model, one of them stakes, claims and is paid, and all share the reward.

    settings       the pool's file, the same at every member
    letters        what members and leader send each other, signed
    roster         who is there and ready for what (pure)
    desk           the leader's HTTP server, at which members report and are told what to do
    child          a training process as its provider sees it
    job            the leader's job: rounds of training, each with whoever is there
    member         the other hosts' loop
    contributions  the durable record of who did which steps
    payouts        how a reward splits (pure)

Source: design section 8 ("a pool of hosts trains one model data-parallel through ``jax.distributed``").
"""

from offchain.provider.pool.member import PoolMember
from offchain.provider.pool.settings import PoolSettings

__all__ = ["PoolMember", "PoolSettings"]
