"""The takers' flow: thinning to a rate, bounds of an order, which account trades; budgets and retries."""

from decimal import Decimal

import pytest

from evermark.actors.common import DEV_MNEMONIC, RateLimiter, dev_signer, least_lots, lots_for, retry_pause
from evermark.actors.config import LeveragedConfig, TakersConfig
from evermark.actors.flow import (
    Intent,
    MarketFlow,
    Sampler,
    choose_account,
    draw,
    intent,
    largest_spot_tapes,
    open_flows,
)
from evermark.actors.leveraged import position_lots
from evermark.client.errors import Refused, Unreachable
from evermark.protocol.margin import initial_margin
from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from evermark.tapes import Trade, discover, write_seeded_day

MARKETS = load_markets()
BTC, _, _, AVAX = MARKETS
NOW_S = 1_760_129_400
BASE = {"url": "http://x", "rpc_url": "http://x", "manifest": "x", "dev_account": 1}
CONFIG = TakersConfig(**BASE)


def trade(number: int, amount: str = "0.5", side: Side = Side.BUY) -> Trade:
    """A print with this number as its id."""
    return Trade(NOW_S * 10**6 + number, side, Decimal(120_000), Decimal(amount), str(number))


def test_a_slow_flow_is_kept_whole():
    """Below the allowed rate every trade is repeated."""
    sampler = Sampler(4.0, 1)
    for second in range(60):
        batch = [("btc", trade(2 * second)), ("btc", trade(2 * second + 1))]
        assert sampler.keep(batch, float(second)) == batch
    assert sampler.seen == 120


def test_a_fast_flow_is_thinned_to_the_rate():
    """A hundred trades a second at four allowed: about four per cent."""
    sampler, kept = Sampler(4.0, 1), 0
    for second in range(300):
        kept += len(sampler.keep([("btc", trade(100 * second + n)) for n in range(100)], float(second)))
    assert 900 < kept < 1_600
    assert sampler.seen == 30_000


def test_the_choice_depends_on_seed_and_trade_alone():
    """The same trade is drawn alike in every run, and differently with another seed."""
    draws = [draw(1, "btc", str(number)) for number in range(1_000)]
    assert draws == [draw(1, "btc", str(number)) for number in range(1_000)]
    assert draws != [draw(2, "btc", str(number)) for number in range(1_000)]
    assert 400_000 < sum(draws) / 1_000 < 600_000


@pytest.mark.parametrize(
    "amount, lots",
    [("0.02", 2_000), ("0.00000001", 16), ("500", 5_000), ("0.000171", 18)],
    ids=["as it is", "at least the smallest", "at most the largest", "rounded up"],
)
def test_an_order_stays_within_its_bounds(amount, lots):
    """Between about 20 and 6,000 USDC at a mark of 120,000."""
    assert intent(BTC, trade(1, amount), 1_200_000, CONFIG) == Intent(BTC, Side.BUY, lots)


def test_accounts_take_turns_and_keep_their_limit():
    """The next in turn that stays within the limit; when none does, nobody trades."""
    buy = Intent(BTC, Side.BUY, 10)
    assert choose_account([0, 0, 0], buy, 100, turn=4) == 1
    assert choose_account([95, 95, 0], buy, 100, turn=0) == 2
    assert choose_account([95, 91], buy, 100, turn=0) is None
    assert choose_account([95, 91], Intent(BTC, Side.SELL, 10), 100, turn=1) == 1


def test_a_flow_is_read_up_to_the_present_once():
    """No trade twice, none of the future."""
    flow = MarketFlow(BTC, "x", iter([trade(number) for number in (0, 5, 9, 20)]))
    start = NOW_S * 10**6
    assert [one.trade_id for one in flow.until(start + 5)] == ["0", "5"]
    assert [one.trade_id for one in flow.until(start + 5)] == []
    assert [one.trade_id for one in flow.until(start + 19)] == ["9"]
    assert not flow.ended
    assert [one.trade_id for one in flow.until(start + 20)] == ["20"]
    assert flow.ended
    assert flow.seen == 4


def test_flows_follow_the_largest_spot_tape(tmp_path):
    """Perpetuals are no flow for us: their amounts are contracts. Without tapes the flow is generated."""
    write_seeded_day(tmp_path, MARKETS, start_s=NOW_S, seconds=600, seed=1)
    best = largest_spot_tapes(discover(tmp_path, MARKETS))
    assert {market: tape.venue for market, tape in best.items()}.keys() == {0, 1, 2, 3}
    assert "PERP" not in best[3].symbol
    recorded = open_flows(MARKETS, TakersConfig(**BASE, tapes=str(tmp_path)), NOW_S + 60)
    assert [flow.label for flow in recorded][:1] == ["venue-a BTCUSD"]
    assert all(flow.until((NOW_S + 60) * 10**6) == [] for flow in recorded)
    made = open_flows(MARKETS, CONFIG, NOW_S)
    assert {flow.label for flow in made} == {"generated"}
    assert all(len(flow.until((NOW_S + 60) * 10**6)) > 20 for flow in made)


def test_budget_bounds_the_rate():
    """A burst of one second's worth, then the rate."""
    clock = [0.0]
    limiter = RateLimiter(4.0, lambda: clock[0])
    taken = [limiter.try_take() for _ in range(6)]
    assert taken == [True] * 4 + [False] * 2
    clock[0] = 0.25
    assert [limiter.try_take(), limiter.try_take()] == [True, False]
    clock[0] = 100.0
    assert sum(limiter.try_take() for _ in range(10)) == 4


async def test_budget_is_waited_for():
    """`take` returns once the budget allows."""
    limiter = RateLimiter(50.0)
    for _ in range(55):
        await limiter.take()


def test_the_exchanges_own_pause_is_respected():
    """Retry-after of a rate limit, otherwise the actor's own backoff."""
    limited = Refused({"code": 210, "name": "RATE_LIMITED", "details": {"retry_after_ms": 1_500}})
    assert retry_pause(limited, 0.5) == 1.5
    assert retry_pause(Unreachable("x"), 0.5) == 0.5


def test_leveraged_positions_stay_within_initial_margin():
    """The share of the greatest leverage, in lots; too small a deposit opens nothing."""
    lots = position_lots(BTC, 400_000_000, 1_200_000, 850_000)
    required = initial_margin(BTC, BTC.notional(lots, 1_200_000))
    assert 0.84 * 400_000_000 < required <= 0.85 * 400_000_000 + 1
    assert position_lots(BTC, 100_000, 1_200_000, 850_000) == 0
    assert lots_for(BTC, 10, 1_200_000) < least_lots(BTC, 1_200_000) == 9


def test_dev_accounts_are_the_well_known_ones():
    """The first address of the public development mnemonic; indexes beyond the funded ones are refused."""
    assert dev_signer(0).address.hex() == "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"
    assert DEV_MNEMONIC.count("test") == 11
    with pytest.raises(ValueError, match="dev_account 20"):
        LeveragedConfig(**(BASE | {"dev_account": 20}))
