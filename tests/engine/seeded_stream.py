"""A seeded stream of commands, for tests that run the same journal more than once or in another process.

`python seeded_stream.py SEED STEPS` prints the state hash at the end.
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))

from engine_world import BUY, FOK, GTC, IOC, SELL, World, market, owner_of

from evermark.protocol.orders import Trigger
from sequencer.engine.commands import InboxEntryKind
from sequencer.engine.snapshot import state_hash


def stream(seed: int, steps: int) -> World:
    """A world after `steps` random commands; its log holds them with their stamps."""
    rng = random.Random(seed)
    world = World(market(0), market(1, open_interest_cap_lots=10**6), settle=False)
    accounts = [world.trader(10 + number, 50 * 7**number) for number in range(5)]
    world.donate(5_000)
    for _ in range(steps):
        pick, account = rng.random(), rng.choice(accounts)
        at, side = rng.randrange(2), rng.choice((BUY, SELL))
        mark = world.state.markets[at].mark
        if pick < 0.45:
            price = mark + rng.randint(-200, 200)
            size, reduce_only = rng.randint(10, 5_000), rng.random() < 0.1
            more = {"display_size": -(-size // 3)} if size % 3 == 0 else {}
            if size % 4 == 0:
                more |= {"builder": owner_of(10), "max_builder_fee_ppm": size % 700}
            world.order(account, side, size, price, GTC, at, reduce_only=reduce_only, **more)
        elif pick < 0.48:
            fields = {"slot": 8, "twap_interval": 10, "expiry": world.state.now + 80}
            world.order(account, side, rng.randint(10, 5_000), mark + side.sign * 300, IOC, at, **fields)
        elif pick < 0.70:
            price = mark + side.sign * 300
            world.order(account, side, rng.randint(10, 5_000), price, rng.choice((IOC, FOK)), at)
        elif pick < 0.74:
            kind = rng.choice(list(Trigger)[1:])
            upward = kind in (Trigger.MARK_ABOVE, Trigger.LAST_ABOVE)
            price = mark + (1 if upward else -1) * rng.randint(1, 300)
            fields = {"trigger": kind, "trigger_price": price, "reduce_only": rng.random() < 0.5}
            world.order(
                account, side, rng.randint(10, 5_000), price + side.sign * 50, IOC, at, slot=9, **fields
            )
        elif pick < 0.78:
            world.cancel(account, rng.randint(1, 5), all_slots=rng.random() < 0.1)
        elif pick < 0.88:
            world.round(
                [max(3_000, market_.mark + rng.randint(-400, 400)) for market_ in world.state.markets]
            )
        elif pick < 0.93:
            for target in accounts:
                world.liquidate(target, at, rng.choice((0, account)) if target != account else 0)
        elif pick < 0.96:
            world.withdraw(account, rng.randint(1, 10**8))
        elif pick < 0.98:
            world.entry(rng.choice(list(InboxEntryKind)), 10 + rng.randrange(5), rng.randint(0, 10**8))
        elif pick < 0.985:
            world.approve(account, owner_of(900), rng.choice((0, 1_000)), transfer_cap=50_000_000)
        elif pick < 0.99:
            signer = rng.choice((owner_of(900), world.state.accounts[account].owner))
            world.transfer(account, rng.randint(0, 3), rng.randint(1, 60_000_000), signer=signer)
        else:
            world.now_s += 3_600 - world.now_s % 3_600
            world.next_round()
            world.funding([rng.randint(-(10**6), 10**6), 777])
    return world


if __name__ == "__main__":
    print(state_hash(stream(int(sys.argv[1]), int(sys.argv[2])).state).hex())
