"""What a hostile sequencer builds from signatures that it holds: well-formed batches that should not settle, or not harm.

Each deal takes the world and an empty batch and fills it. Honest signatures are used as they are; hostile traders sign anything.
"""

from __future__ import annotations

from collections.abc import Callable

from builders import USDC, Builder
from hostile_ledger import INSURANCE_FUND
from hostile_world import TRADED, World

from evermark.protocol.orders import Side, TimeInForce

Deal = Callable[[World, Builder], None]
DEALS: dict[str, Deal] = {}


def deal(function: Deal) -> Deal:
    DEALS[function.__name__] = function
    return function


@deal
def fill_an_old_order(world: World, batch: Builder) -> None:
    """Any order that ever rested, in whatever state, against a hostile taker, by more or less than is left."""
    pick = world.random
    if not world.resting:
        return
    old = batch.again(pick.choice(world.resting))
    size = max(1, int(old.order.size * pick.choice((0.3, 1, 1, 2))))
    taker = pick.choice(world.hostile)
    side = old.order.side.opposite
    batch.fill(old, world.order(batch, taker, side, size, old.order.limit_price, old.market), size)


@deal
def force_a_close(world: World, batch: Builder) -> None:
    """Anybody's position, asked for or not, against anybody's or a hostile order, in any size."""
    pick = world.random
    account, market = pick.choice(sorted(world.now.positions))
    held = world.now.held(account, market)
    lots = max(1, int(abs(held) * pick.choice((0.1, 1, 1, 2))))
    maker = world.hostile[0]
    if pick.random() < 0.4:
        side = Side.BUY if held > 0 else Side.SELL
        mark = world.exchange.last[market].mark_ticks
        price = mark - side.opposite.sign * -mark // pick.choice((50, 150, 400))
        row = world.order(batch, maker, side, lots, price, market, slot=6)
        batch.force_on_book(account, market, row, lots)
        return
    other = pick.choice(sorted(at for at, traded in world.now.positions if traded == market))
    batch.force(account, market, other, lots)


@deal
def fill_two_orders_of_a_slot(world: World, batch: Builder) -> None:
    """An order and its replacement in one batch, the older one last."""
    pick = world.random
    maker, taker = pick.choice(world.parties), pick.choice(world.hostile)
    market = pick.randrange(len(TRADED))
    mark = world.exchange.last[market].mark_ticks
    side = pick.choice((Side.BUY, Side.SELL))
    size = world.size(maker, market)
    rows = [
        world.order(batch, maker, side, size, mark, market, slot=2, amend=pick.random() < 0.5)
        for _ in range(2)
    ]
    pick.shuffle(rows)
    for row in rows:
        batch.fill(row, world.order(batch, taker, side.opposite, size, mark, market, slot=5), size)


@deal
def trade_at_the_band(world: World, batch: Builder) -> None:
    """Hostile traders move value between each other at the worst lawful price, or a little beyond it."""
    pick = world.random
    maker, taker = pick.choice(world.hostile), pick.choice(world.hostile)
    market = pick.randrange(len(TRADED))
    mark = world.exchange.last[market].mark_ticks
    side = pick.choice((Side.BUY, Side.SELL))
    distance = mark * TRADED[market].price_band_ppm // 10**6 + pick.choice((-1, 0, 0, 1))
    price = mark + side.sign * distance
    size = world.size(maker, market) * pick.choice((1, 4, 40))
    resting = world.order(
        batch, maker, side, size, price, market, slot=pick.randint(1, 3), max_fee_ppm=65_535
    )
    taking = world.order(batch, taker, side.opposite, size, price, market, max_fee_ppm=65_535)
    batch.fee_classes = (pick.choice(((100, 400), (65_535 >> 1, 65_535), (-400, 400))),)
    batch.fill(resting, taking, size)


@deal
def trade_with_oneself(world: World, batch: Builder) -> None:
    """Maker and taker are one account, at a price far from the mark and a high fee."""
    pick = world.random
    party = pick.choice(world.hostile)
    market = pick.randrange(len(TRADED))
    price = world.exchange.last[market].mark_ticks * pick.choice((96, 100, 104)) // 100
    size = world.size(party, market) * pick.choice((1, 10))
    resting = world.order(batch, party, Side.BUY, size, price, market, slot=1)
    taking = world.order(
        batch, party, Side.SELL, size, price, market, max_fee_ppm=pick.choice((1_000, 65_535))
    )
    batch.fee_classes = (pick.choice(((100, 400), (-400, 400), (500, 1_000))),)
    batch.fill(resting, taking, size)


@deal
def round_trip(world: World, batch: Builder) -> None:
    """A position opened and closed within one batch at prices that hand equity to a partner."""
    pick = world.random
    victim, partner = pick.sample(world.hostile, 2)
    market = pick.randrange(len(TRADED))
    mark = world.exchange.last[market].mark_ticks
    edge = mark * TRADED[market].price_band_ppm // 10**6
    size = world.size(victim, market) * pick.choice((1, 3, 10))
    for side, slot in ((Side.SELL, 1), (Side.BUY, 2)):
        price = mark + side.sign * -edge
        resting = world.order(batch, partner, side, size, price, market, slot=slot)
        taking = world.order(
            batch, victim, side.opposite, size, price, market, slot=slot, time_in_force=TimeInForce.IOC
        )
        batch.fill(resting, taking, size)


@deal
def close_out(world: World, batch: Builder) -> None:
    """Anybody's position, healthy or not, against a hostile maker at a hostile price, with a hostile keeper."""
    pick = world.random
    held = [key for key in world.now.positions if key[0] != INSURANCE_FUND]
    if not held:
        return
    account, market = pick.choice(held)
    size = abs(world.now.held(account, market))
    size = pick.choice((size, size, max(1, size // 5), size + 1))
    keeper = pick.choice((None, pick.choice(world.hostile).account, account))
    if pick.random() < 0.4:
        batch.take_over(account, market, size, keeper)
        return
    others = [at for at, of in world.now.positions if of == market and at not in (account, INSURANCE_FUND)]
    if others and pick.random() < 0.3:
        batch.deleverage(account, market, pick.choice(others), size)
        return
    mark = world.exchange.last[market].mark_ticks
    side = Side.BUY if world.now.held(account, market) > 0 else Side.SELL
    price = mark - side.sign * mark * pick.choice((-2_000, 0, 1_000, 3_000, 8_000, 49_000)) // 10**6
    maker = pick.choice([party for party in world.hostile if party.account != account])
    resting = world.order(batch, maker, side, size, price, market, slot=pick.randint(1, 3))
    batch.liquidate(account, market, resting, size, keeper)


@deal
def drain_the_fund(world: World, batch: Builder) -> None:
    """Orders against the fund that would grow or turn its position, or pay for more than it holds."""
    pick = world.random
    market = pick.randrange(len(TRADED))
    held = world.now.held(INSURANCE_FUND, market)
    side = pick.choice((Side.BUY, Side.SELL))
    mark = world.exchange.last[market].mark_ticks
    size = max(1, abs(held) * pick.choice((1, 1, 2)))
    price = mark + side.sign * pick.choice((-1, 0, 100))
    batch.fill_fund(world.order(batch, pick.choice(world.hostile), side, size, price, market), size)


@deal
def cancel_or_approve_for_others(world: World, batch: Builder) -> None:
    """Voids an honest trader's orders, or makes itself its agent, with hostile signatures."""
    pick = world.random
    victim, thief = pick.choice(world.honest), pick.choice(world.hostile)
    if pick.random() < 0.5:
        batch.cancel(victim, by=thief.signer, all_slots=True, sequence=world.exchange.sequence())
    else:
        batch.approve(victim, thief.signer.address, world.exchange.clock + 3_600, by=thief.signer)


@deal
def order_by_a_stranger(world: World, batch: Builder) -> None:
    """An honest trader's order that the attacker signed, well-formed and matched."""
    pick = world.random
    victim, thief = pick.choice(world.honest), pick.choice(world.hostile)
    market = pick.randrange(len(TRADED))
    mark = world.exchange.last[market].mark_ticks
    size = world.size(victim, market)
    resting = world.order(batch, thief, Side.SELL, size, mark + mark // 30, market, slot=1)
    forged = batch.order(victim, Side.BUY, size, mark + mark // 20, market=market, by=thief.signer)
    batch.fill(resting, forged, size)


@deal
def agent_overreaches(world: World, batch: Builder) -> None:
    """The attacker has an agent's key: it trades, which it may, and moves, withdraws and approves, which it may not."""
    pick = world.random
    victim, thief = pick.choice(world.honest), world.hostile[0]
    kind = pick.randrange(4)
    if kind == 0:
        batch.transfer(victim, 1, pick.choice((11, 20, 400)) * USDC, by=thief.signer)
    elif kind == 1:
        batch.withdraw(victim, USDC, by=thief.signer)
    elif kind == 2:
        batch.approve(victim, thief.signer.address, world.exchange.clock + 900, by=thief.signer)
    else:
        mark = world.exchange.last[0].mark_ticks
        size = world.size(victim, 0)
        resting = world.order(
            batch, pick.choice(world.hostile), Side.SELL, size, mark + mark // 40, 0, slot=1
        )
        price = resting.order.limit_price
        batch.fill(resting, world.order(batch, victim, Side.BUY, size, price, 0, by=thief.signer), size)


@deal
def write_off_anybody(world: World, batch: Builder) -> None:
    """The fund is to pay for an account that has positions, or no debt."""
    batch.write_off(world.random.choice(world.parties).account)


@deal
def transfer_to_oneself(world: World, batch: Builder) -> None:
    """A transfer that an honest owner signed, with the attacker's account as the one that receives."""
    victim, thief = world.random.choice(world.honest), world.random.choice(world.hostile)
    batch.transfer(victim, 1, 11 * USDC, target=thief.account)
