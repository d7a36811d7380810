"""Random fills in a settled market, lawful and not, beside trades elsewhere: vault and reference model agree to the last unit."""

import pytest
from builders import USDC
from test_model import Twin, funding_hour, move_time, some_trades

from evermark.protocol.oracle import SETTLED_BIT
from tests.compiled_contracts import evaluate

MARKET_P = 1 << 39
SETTLED = 5


def settle_market(twin: Twin, market: int, price: int) -> None:
    """As governor and oracle leave it: the mode through the vault's door, the price in the rounds from the next one on."""
    exchange = twin.exchange
    word = exchange.vault.word(MARKET_P | market) & (1 << 248) - 1
    exchange.vault.write(MARKET_P | market, word | SETTLED << 248, sender=exchange.clerk.address)
    exchange.oracle.end_market(market, exchange.clock, sender=exchange.governor)
    evaluate(exchange.oracle, f"self._endings[{market}] = {price << 136}")
    exchange.oracle.settle_market(market, sender=exchange.governor)
    exchange.jumps = [*exchange.jumps]
    exchange.jumps[market] |= price << SETTLED_BIT
    twin.model.settled[market] = price


@pytest.mark.safety("B27", "contract")
@pytest.mark.safety("C02", "contract")
def test_vault_and_model_agree_on_random_settlements() -> None:
    """In the end nothing is left in the market, whoever was below zero at its price."""
    twin = Twin(7, poor=False)
    pick, vault = twin.random, twin.exchange.vault
    parties = []
    for number, amount in enumerate((2_000_000, 9_000, 4_000, 2_000)):
        batch = twin.exchange.batch()
        parties.append(twin.deposit(number, amount * USDC, batch))
        assert twin.settle(batch)
    for _ in range(14):
        move_time(twin)
        batch = twin.exchange.batch()
        some_trades(twin, batch, parties)
        twin.settle(batch)
    settle_market(twin, 0, twin.exchange.last[0].mark_ticks * 9 // 10)
    done = refused = 0
    while any(vault.position(party.account, 0).size for party in parties):
        move_time(twin)
        hours = funding_hour(twin) if pick.random() < 0.3 else []
        batch = twin.exchange.batch()
        batch.hours = hours
        if hours:
            batch.markets = {0, 1, 2, 3}
        for _ in range(pick.randint(1, 2)):
            one, other = pick.sample(parties, 2)
            least = min(abs(vault.position(party.account, 0).size) for party in (one, other))
            size = pick.choice((least, least // 3, least // 4, least // 4, least + 1)) or 1
            batch.settle_in_cash(one.account, 0, other.account, size)
        if pick.random() < 0.2:
            some_trades(twin, batch, parties)
        if twin.settle(batch):
            done += 1
        else:
            refused += 1
    assert done >= 3
    assert refused >= 3
    assert vault.market_state(0).open_interest == 0
