"""Random liquidations, deleveraging, debts and the fund's way out, for the comparison of vault and model."""

from typing import Any

from builders import Builder, Party

from evermark.protocol.orders import Side


def some_liquidations(twin: Any, batch: Builder, parties: list[Party]) -> None:
    """Triggers against whoever is near maintenance, on the book or by the fund."""
    pick = twin.random
    for party in parties:
        margin = twin.exchange.margin(party.account)
        if not margin.maintenance or margin.equity * 100 > margin.maintenance * 101:
            continue
        for market in range(4):
            size = abs(twin.exchange.vault.position(party.account, market).size)
            if not size or pick.random() < 0.2:
                continue
            closed = pick.choice((size, -(-size // 5), size + (pick.random() < 0.1)))
            keeper = pick.choice((None, parties[0].account))
            deep = margin.equity * 3 < margin.maintenance * 2
            held = abs(twin.exchange.vault.position(1, market).size)
            if deep and twin.poor and pick.random() < (0.9 if held else 0.2):
                some_deleveraging(twin, batch, party, market, closed, parties)
                continue
            if pick.random() < (0.9 if deep else 0.1):
                batch.take_over(party.account, market, min(closed, 2) if twin.poor else closed, keeper)
                continue
            long = twin.exchange.vault.position(party.account, market).size > 0
            mark = twin.exchange.last[market].mark_ticks
            price = mark - (1 if long else -1) * pick.randint(-20, mark // 600)
            side = Side.BUY if long else Side.SELL
            maker = parties[0]
            batch.liquidate(
                party.account,
                market,
                batch.order(maker, side, closed, price, slot=9, market=market),
                closed,
                keeper,
            )


def some_deleveraging(
    twin: Any, batch: Builder, target: Party, market: int, closed: int, parties: list[Party]
) -> None:
    """Against whoever is opposite, or now and then against anybody."""
    size = twin.exchange.vault.position(target.account, market).size
    opposite = [
        party
        for party in parties
        if twin.exchange.vault.position(party.account, market).size * size < 0 or twin.random.random() < 0.05
    ]
    if opposite:
        other = twin.random.choice(opposite)
        held = abs(twin.exchange.vault.position(other.account, market).size)
        batch.deleverage(target.account, market, other.account, max(1, min(closed, held)))


def fund_exits(twin: Any, batch: Builder, parties: list[Party]) -> None:
    """Orders against what the fund holds."""
    for market in range(4):
        held = twin.exchange.vault.position(1, market).size
        if held and twin.random.random() < 0.7:
            mark = twin.exchange.last[market].mark_ticks
            side = Side.BUY if held > 0 else Side.SELL
            size = max(1, abs(held) // twin.random.choice((1, 3)))
            batch.fill_fund(batch.order(parties[1], side, size, mark, market=market), size)


def some_debts(twin: Any, batch: Builder, parties: list[Party]) -> None:
    """Where the fund is poor: whoever is below zero may close at a price better than the mark, and stays in debt; debts are
    written off, and now and then what is none."""
    pick = twin.random
    for party in parties[1:] if twin.poor else ():
        account = twin.exchange.vault.account(party.account)
        if pick.random() < (0.7 if account.collateral < 0 and not account.open_positions else 0.02):
            batch.write_off(party.account)
        elif (
            pick.random() < 0.4
            and account.open_positions == 1
            and twin.exchange.margin(party.account).equity < 0
        ):
            sizes = {market: twin.exchange.vault.position(party.account, market).size for market in range(4)}
            market, size = next((key, size) for key, size in sizes.items() if size)
            mark = twin.exchange.last[market].mark_ticks
            side = Side.SELL if size > 0 else Side.BUY
            batch.trade(parties[0], party, side, abs(size), mark - side.sign * (mark // 300), market)
