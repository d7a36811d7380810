"""Actors at work against a small exchange in memory: they converge, adopt, live with refusals."""

import pytest
from small_exchange import MARKETS, NOW_S, SmallBank, SmallClient, SmallExchange, refused

from evermark.actors import leveraged as leveraged_module
from evermark.actors import takers as takers_module
from evermark.actors.common import Actor
from evermark.actors.config import LeveragedConfig, MakerConfig, TakersConfig, WalletConfig
from evermark.actors.flow import open_flows
from evermark.actors.leveraged import Leveraged
from evermark.actors.maker import Maker
from evermark.actors.takers import Takers
from evermark.actors.wallet import Wallet
from evermark.client import Refused
from evermark.protocol.orders import Side

BASE = {"url": "http://x", "rpc_url": "http://x", "manifest": "x", "dev_account": 1}
BTC_ONLY = BASE | {"markets": ("BTC-PERP",)}
TAKER, MAKER = 5, 4


@pytest.fixture
def exchange():
    """An empty one."""
    return SmallExchange()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Actors look without waiting."""
    for module in ("maker", "takers"):
        monkeypatch.setattr(f"evermark.actors.{module}.LOOK_S", 0.0)
    monkeypatch.setattr("evermark.actors.maker.ACCOUNT_EVERY_S", -1.0)
    for module in (takers_module, leveraged_module):
        monkeypatch.setattr(module, "make_bank", lambda client, config: SmallBank(client))


async def market_maker(exchange, **changes) -> Maker:
    """A maker that knows its markets and has looked a few times."""
    config = MakerConfig(**(BASE | {"orders_per_s": 1_000.0} | changes))
    maker = Maker(config, SmallClient(exchange, MAKER), Actor("maker", ""))
    maker._markets = tuple(
        market for market in MARKETS if not config.markets or market.symbol in config.markets
    )
    await looks(maker, 3)
    return maker


async def looks(maker: Maker, count: int) -> None:
    """Several steps."""
    for _ in range(count):
        await maker.step()


def book(exchange, side):
    """Prices of the maker's resting orders on one side of BTC, best first."""
    found = [order.limit_price for order, _ in exchange.resting.values() if order.side is side]
    return sorted(found, reverse=side is Side.BUY)


async def test_the_maker_quotes_every_market_and_then_rests(exchange):
    """Three levels a side and market, all post-only; without a move of the mark no further order is sent."""
    maker = await market_maker(exchange)
    assert len(exchange.resting) == 24
    assert all(order.post_only for order in exchange.placed)
    await looks(maker, 3)
    assert len(exchange.placed) == 24


async def test_the_maker_follows_the_mark_by_amending(exchange):
    """The same slots, no cancels, prices around the new mark."""
    maker = await market_maker(exchange, markets=("BTC-PERP",))
    slots = set(exchange.resting)
    exchange.marks["BTC-PERP"] = 1_150_000
    await looks(maker, 2)
    assert set(exchange.resting) == slots
    assert book(exchange, Side.BUY)[0] < 1_150_000 < book(exchange, Side.SELL)[0] < 1_151_000
    assert all(order.amend for order in exchange.placed[6:])


async def test_the_maker_renews_what_was_taken(exchange):
    """A filled quote comes back in its slot, and the quotes lean against the position."""
    maker = await market_maker(exchange, markets=("BTC-PERP",))
    before = book(exchange, Side.BUY)[0]
    taker = SmallClient(exchange, TAKER)
    answer = await taker.place_market("BTC-PERP", Side.SELL, size_lots=15_000)
    assert answer.filled == 15_000
    await looks(maker, 3)
    assert len(exchange.resting) == 6
    assert book(exchange, Side.BUY)[0] < before
    assert exchange.positions[MAKER, "BTC-PERP"] == 15_000


async def test_a_restarted_maker_adopts_its_quotes(exchange):
    """The next process amends what the last one left."""
    await market_maker(exchange, markets=("BTC-PERP",))
    exchange.marks["BTC-PERP"] = 1_210_000
    await market_maker(exchange, markets=("BTC-PERP",))
    assert len(exchange.resting) == 6
    assert all(order.amend for order in exchange.placed[6:])


async def test_the_maker_leaves_a_market_without_a_price(exchange):
    """A stale price cancels the quotes; a fresh one brings them back."""
    maker = await market_maker(exchange, markets=("BTC-PERP",))
    exchange.age_s = 61
    await looks(maker, 1)
    assert exchange.resting == {}
    exchange.age_s = 0
    await looks(maker, 1)
    assert len(exchange.resting) == 6


async def test_a_refusing_market_is_left_alone_for_a_while(exchange):
    """A halted market is noted and does not stop the others."""
    exchange.refusals = [refused("MARKET_HALTED")]
    maker = await market_maker(exchange)
    assert len(exchange.resting) == 18
    assert maker._actor.status.errors == 1


async def test_the_makers_budget_bounds_its_orders(exchange):
    """With four orders a second, a look sends four; the rest follows later."""
    await market_maker(exchange, orders_per_s=4.0)
    assert 4 <= len(exchange.placed) <= 5


async def test_takers_follow_the_flow_within_their_limits(exchange):
    """Immediate orders in slot 0 against the maker's quotes; the sampled fraction is shown."""
    await market_maker(exchange)
    config = TakersConfig(**BASE, orders_per_s=500.0)
    clients = [SmallClient(exchange, number) for number in (TAKER, TAKER + 1)]
    takers = Takers(config, clients, Actor("takers", ""))
    takers._markets = {market.symbol: market for market in MARKETS}
    takers._flows = open_flows(MARKETS, config, NOW_S)
    clients[0].clock.heard(0)
    clients[0].clock._heard_ms += 30_000
    quoted = len(exchange.placed)
    await takers.step()
    taken = exchange.placed[quoted:]
    assert len(taken) > 20
    assert {order.slot for order in taken} == {0}
    assert {order.owner for order in taken} == {client.owner for client in clients}
    facts = takers._actor.status.facts
    assert facts["filled"] > 0
    assert facts["flow_seen"] >= len(taken)
    assert facts["sampled_ppm"] == len(taken) * 1_000_000 // facts["flow_seen"]


async def test_takers_live_with_refusals(exchange):
    """A refused order is noted; the next one goes out."""
    await market_maker(exchange)
    config = TakersConfig(**BASE, orders_per_s=500.0)
    client = SmallClient(exchange, TAKER)
    takers = Takers(config, [client], Actor("takers", ""))
    takers._flows = open_flows(MARKETS, config, NOW_S)
    client.clock._heard_ms += 10_000
    exchange.refusals = [refused("INSUFFICIENT_MARGIN"), refused("RATE_LIMITED")]
    await takers.step()
    assert takers._actor.status.errors == 2
    assert takers._actor.status.facts["filled"] > 0


async def test_leveraged_accounts_open_and_come_back(exchange):
    """One position an account on markets in turn; after a loss a new deposit and the other side."""
    await market_maker(exchange)
    config = LeveragedConfig(**BASE, accounts=4, pause_s=0.0, slippage_ppm=20_000)
    clients = [SmallClient(exchange, TAKER + number) for number in range(4)]
    actors = Leveraged(config, clients, Actor("leveraged", ""))
    actors._markets = MARKETS
    await actors.step()
    held = {
        market.symbol: exchange.positions.get((TAKER + n, market.symbol), 0)
        for n, market in enumerate(MARKETS)
    }
    assert all(size > 0 for size in held.values())
    exchange.positions[TAKER, "BTC-PERP"] = 0
    exchange.collateral[TAKER] = 0
    await actors.step()
    await actors.step()
    assert exchange.positions[TAKER, "BTC-PERP"] < 0
    assert actors._actor.status.facts["lost_positions"] == 1
    assert actors._actor.status.facts["deposits"] == 5


async def test_the_wallet_goes_all_the_way(exchange):
    """Deposit, buy, sell, withdraw, payout: it ends by itself with a flat account."""
    await market_maker(exchange)
    client = SmallClient(exchange, TAKER)
    actor = Actor("wallet", "")
    await Wallet(WalletConfig(**BTC_ONLY), client, SmallBank(client), actor).run()
    assert actor.status.facts["step"] == "done"
    assert exchange.positions[TAKER, "BTC-PERP"] == 0
    assert exchange.collateral[TAKER] == 1_300 * 10**6


async def test_the_wallet_waits_while_withdrawals_are_held(exchange):
    """A hold is waited out; any other refusal ends it."""
    await market_maker(exchange)
    client = SmallClient(exchange, TAKER)
    actor = Actor("wallet", "")
    wallet = Wallet(WalletConfig(**BTC_ONLY), client, SmallBank(client), actor)
    exchange.refusals = [refused("WITHDRAWALS_HELD", retry_after_ms=1), refused("WITHDRAWALS_HELD")]
    exchange.collateral[TAKER] = 2_000 * 10**6
    assert await wallet._withdraw() == 700 * 10**6
    exchange.refusals = [refused("INSUFFICIENT_WITHDRAWABLE")]
    with pytest.raises(Refused):
        await wallet._withdraw()


async def test_a_status_file_is_written(exchange, tmp_path):
    """One JSON with health and facts, whole at any time."""
    actor = Actor("wallet", str(tmp_path / "status" / "wallet.json"))
    await market_maker(exchange)
    client = SmallClient(exchange, TAKER)
    wallet = Wallet(WalletConfig(**BTC_ONLY), client, SmallBank(client), actor)
    await actor.run(wallet.run)
    text = (tmp_path / "status" / "wallet.json").read_text()
    assert '"step":"done"' in text
    assert '"health":"ok"' in text
