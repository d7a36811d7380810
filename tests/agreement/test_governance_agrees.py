"""Markets, modes and keepers change for engine, contracts and model in the same batch; what follows agrees to the last unit."""

import random

import boa
import pytest
from msgspec.structs import replace

from evermark.chain.governor import listing_arguments
from evermark.protocol.markets import Market, Tier, load_markets
from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import MarketMode
from sequencer.engine.events import CommandRejected, EntryApplied, EntrySkipped, MarketModeChanged, Trade
from sequencer.engine.snapshot import restore, snapshot
from tests import fast_evm
from tests.agreement.exchange import Exchange, signer
from tests.agreement.three_ways import ThreeWays

START = 1_760_129_400
PRICES = [(1_136_000, 1_136_200), (383_000, 383_100), (19_500, 19_510), (22_100, 22_120)]
MARKETS = load_markets()
PEPE = replace(
    MARKETS[3],
    symbol="PEPE-PERP",
    base="PEPE",
    size_decimals=0,
    price_decimals=6,
    lot_tick_value=1,
    tiers=(Tier(0, 100_000, 0), Tier(10_000 * 10**6, 200_000, 1_000 * 10**6)),
    open_interest_cap_lots=400_000_000_000,
    fund_position_cap_lots=40_000_000_000,
    max_order_lots=100_000_000_000,
)
PEPE_PRICE = (12_000, 12_010)


@pytest.fixture
def exchange():
    with boa.swap_env(fast_evm.fresh()):
        made = ThreeWays(MARKETS, START)
        made.donate(500_000 * 10**6)
        made.round(PRICES)
        for name in ("maker", "taker"):
            made.deposit(signer(name), 100_000 * 10**6)
        yield made


def outcome(events) -> type:
    """Whether an entry applied or was skipped."""
    return next(type(event) for event in events if isinstance(event, (EntryApplied, EntrySkipped)))


def codes(events) -> list[RejectCode]:
    return [event.reject.code for event in events if isinstance(event, CommandRejected)]


def trade(exchange: Exchange, market: int, price: int, size: int, slot: int = 9) -> list[Trade]:
    """The maker sells, the taker buys; the trades that came of it."""
    exchange.order(signer("maker"), market, Side.SELL, size, price, slot=slot)
    events = exchange.order(signer("taker"), market, Side.BUY, size, price, slot=0)
    return [event for event in events if isinstance(event, Trade)]


def settle(exchange: Exchange, prices) -> None:
    """Everything onto the chain, and compared; the state survives a snapshot."""
    exchange.round(prices)
    exchange.confirm()
    exchange.compare()
    assert snapshot(restore(snapshot(exchange.state))) == snapshot(exchange.state)


def words_agree(exchange: Exchange) -> None:
    """The vault's words of every market are what its parameters and mode pack to."""
    for at in exchange.state.markets:
        p, t0, *_ = exchange.vault.market_words(at.market_id)
        market: Market = at.market
        assert p & 0xFFFFFFFF == market.lot_tick_value
        assert p >> 88 & 2**64 - 1 == market.open_interest_cap_lots
        assert p >> 32 & 0xFFFFFF == market.price_band_ppm
        assert t0 >> 48 & 0xFFFFFF == market.tiers[0].initial_fraction_ppm


def test_a_market_is_listed_and_trades(exchange):
    """Without a price it takes no risk; with one it trades, is margined by its tiers, and funded."""
    exchange.govern("listing", *listing_arguments(PEPE), 12)
    assert [at.market.symbol for at in exchange.state.markets][-1] == "PEPE-PERP"
    exchange.round(PRICES)
    assert codes(exchange.order(signer("maker"), 4, Side.SELL, 1_000, 12_000, slot=9)) != []
    settle(exchange, PRICES)
    prices = [*PRICES, PEPE_PRICE]
    exchange.round(prices)
    assert trade(exchange, 4, 12_010, 2_000_001)
    settle(exchange, prices)
    assert exchange.vault.position(exchange.account(signer("taker")), 4).size == 2_000_001
    exchange.funding(exchange.now // 3600 - 1, [10, 0, 0, 0, 99_999])
    settle(exchange, prices)
    words_agree(exchange)


def test_a_market_is_tuned_while_orders_wait(exchange):
    """Margins and fees of waiting orders follow; what the vault checks is what the engine reserved."""
    exchange.order(signer("maker"), 0, Side.SELL, 3_000, 1_136_200, slot=5)
    assert trade(exchange, 0, 1_136_200, 1_000)
    settle(exchange, PRICES)
    tuned = replace(
        MARKETS[0], tiers=(Tier(0, 50_000, 0),), maker_fee_ppm=-50, taker_fee_ppm=777, max_price_age_s=600
    )
    exchange.govern("tuning", 0, *listing_arguments(tuned), execute=False)
    exchange.now += 172_800
    exchange.round(PRICES)
    exchange.order(signer("maker"), 0, Side.SELL, 3_000, 1_136_200, slot=6)
    assert trade(exchange, 1, 383_100, 1_000)  # posts the round, whose index the governor's contract looks at
    settle(exchange, PRICES)
    exchange.execute(1)
    exchange.order(signer("taker"), 0, Side.BUY, 2_345, 1_136_200, slot=0)
    settle(exchange, PRICES)
    assert exchange.state.markets[0].market == tuned
    words_agree(exchange)


@pytest.mark.parametrize(
    "mode", [MarketMode.POST_ONLY, MarketMode.REDUCE_ONLY, MarketMode.CANCEL_ONLY, MarketMode.HALTED]
)
def test_a_pause_begins_and_ends_by_itself(exchange, mode):
    """From the entry's batch on the engine refuses what the vault would; with the first round after its end all is as before."""
    refusal = {
        MarketMode.POST_ONLY: RejectCode.MARKET_POST_ONLY,
        MarketMode.REDUCE_ONLY: RejectCode.MARKET_REDUCE_ONLY,
        MarketMode.CANCEL_ONLY: RejectCode.MARKET_CANCEL_ONLY,
        MarketMode.HALTED: RejectCode.MARKET_HALTED,
    }[mode]
    assert trade(exchange, 0, 1_136_200, 1_000)
    assert outcome(exchange.pause(0, mode, 300)) is EntryApplied
    assert codes(exchange.order(signer("taker"), 0, Side.BUY, 10, 1_136_200, slot=0)) == [refusal]
    assert trade(exchange, 1, 383_100, 1_000)
    if mode is MarketMode.REDUCE_ONLY:
        exchange.order(signer("maker"), 0, Side.BUY, 400, 1_136_200, slot=7)
        events = exchange.order(signer("taker"), 0, Side.SELL, 400, 1_136_200, slot=0)
        assert [event.size for event in events if isinstance(event, Trade)] == [400]
    settle(exchange, PRICES)
    exchange.round(PRICES, 290)
    assert exchange.state.markets[0].effective_mode == mode
    events = exchange.round(PRICES, 20)
    changed = [event.mode for event in events if isinstance(event, MarketModeChanged)]
    assert changed == [MarketMode.NORMAL]
    assert trade(exchange, 0, 1_136_200, 1_000, slot=11)
    settle(exchange, PRICES)


def test_a_lifted_pause_is_over_at_once(exchange):
    """And the vault takes the trade that follows in the next batch."""
    exchange.pause(0, MarketMode.HALTED, 3_600)
    settle(exchange, PRICES)
    exchange.pause(0, 0, 0)
    assert trade(exchange, 0, 1_136_200, 1_000)
    settle(exchange, PRICES)


def test_keepers_change_with_the_round_after_their_entry(exchange):
    """The last round of the old keepers settles although one of them is gone by then; the next needs the new one."""
    old, new = exchange.keepers[0], signer("new keeper")
    exchange.govern("keeper", 0, "0x" + new.address.hex(), True, slow=True)
    settle(exchange, PRICES)
    exchange.govern("keeper", 0, "0x" + old.address.hex(), False)
    assert trade(exchange, 0, 1_136_200, 1_000)
    assert codes(exchange.round(PRICES)) == [RejectCode.NOT_AUTHORISED]
    del exchange.reports[max(exchange.reports)]
    exchange.keepers = sorted([*exchange.keepers[1:], new], key=lambda key: key.address)
    exchange.round(PRICES)
    assert trade(exchange, 0, 1_136_200, 1_000)
    settle(exchange, PRICES)
    assert exchange.state.genesis.oracle_keepers.count(new.address) == 1
    assert exchange.governance.proposal(2).state == 4


def test_random_pauses_and_tunings_agree(exchange):
    """A seeded stream of orders under modes that come and go and parameters that change."""
    source = random.Random(10)
    prices = list(PRICES)
    for step in range(60):
        market = source.randrange(3)
        kind = source.randrange(12)
        if kind == 0:
            exchange.pause(market, source.randrange(1, 5), source.choice((60, 300)))
        elif kind == 1:
            exchange.pause(market, 0, 0)
        elif kind < 4:
            exchange.round(prices, source.choice((5, 30, 120)))
        else:
            owner = signer(source.choice(("maker", "taker")))
            side, size = Side(source.randrange(2)), source.randrange(1, 5_000)
            price = prices[market][1] + source.randrange(-20, 20)
            exchange.order(owner, market, side, size, price, slot=source.choice((0, 1 + step % 5)))
    exchange.round(prices)
    settle(exchange, prices)
    words_agree(exchange)


def test_a_delisting_leaves_reducing_beside_a_pause(exchange):
    """The same modes on both sides, while a pause runs and when it is over."""
    assert trade(exchange, 0, 1_136_200, 1_000)
    settle(exchange, PRICES)
    exchange.govern("delisting", 0, execute=False)
    exchange.round(PRICES, 172_800)
    exchange.pause(0, MarketMode.POST_ONLY, 300)
    exchange.execute(1)
    assert exchange.state.markets[0].effective_mode == MarketMode.CANCEL_ONLY
    settle(exchange, PRICES)
    exchange.round(PRICES, 310)
    assert codes(exchange.order(signer("taker"), 0, Side.BUY, 10, 1_136_200, slot=0)) == [
        RejectCode.MARKET_REDUCE_ONLY
    ]
    exchange.order(signer("maker"), 0, Side.BUY, 400, 1_136_200, slot=7)
    events = exchange.order(signer("taker"), 0, Side.SELL, 400, 1_136_200, slot=0)
    assert [event.size for event in events if isinstance(event, Trade)] == [400]
    settle(exchange, PRICES)
