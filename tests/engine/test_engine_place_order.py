"""PlaceOrder: what is refused, with the numbers that decide it, beside what is accepted."""

import msgspec
import pytest
from engine_world import (
    BUY,
    FOK,
    GTC,
    IOC,
    SELL,
    START_S,
    USDC,
    World,
    market,
    of_type,
    rejection,
)

from evermark.protocol.orders import Trigger
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import MarketMode
from sequencer.engine.events import CancelReason, OrderCancelled, OrderFilled, OrderRested, Trade
from sequencer.engine.snapshot import restore, snapshot, state_hash


@pytest.fixture
def world():
    return World()


@pytest.fixture
def maker(world):
    return world.trader(10)


@pytest.fixture
def taker(world):
    return world.trader(11)


def test_an_order_that_meets_nothing_rests(world, maker):
    """A limit order waits in the book and reserves margin."""
    events = world.order(maker, BUY, 1_000, 9_900)
    (rested,) = of_type(events, OrderRested)
    assert (rested.price, rested.remaining) == (9_900, 1_000)
    assert world.state.accounts[maker].positions[0].buy_lots == 1_000


def test_a_taker_trades_at_the_makers_price(world, maker, taker):
    """The better price of the two limits goes to the taker, and both pay their fee."""
    world.order(maker, SELL, 1_000, 10_010)
    events = world.order(taker, BUY, 400, 10_050, IOC)
    (trade,) = of_type(events, Trade)
    assert (trade.price, trade.size) == (10_010, 400)
    notional = 400 * 10_010 * 100
    assert (trade.maker_fee, trade.taker_fee) == (notional * 100 // 10**6, notional * 400 // 10**6)
    assert of_type(events, OrderFilled)[0].filled == 400
    assert (world.size(maker), world.size(taker)) == (-400, 400)


@pytest.mark.parametrize(
    "fields, code, field",
    [
        ({"size": 0}, RejectCode.OUT_OF_RANGE, "size"),
        ({"size": 2**62}, RejectCode.OUT_OF_RANGE, "size"),
        ({"price": 0}, RejectCode.OUT_OF_RANGE, "limit_price"),
        ({"price": 2**32}, RejectCode.OUT_OF_RANGE, "limit_price"),
        ({"max_fee_ppm": 2**16}, RejectCode.OUT_OF_RANGE, "max_fee_ppm"),
        ({"expiry": 2**32}, RejectCode.OUT_OF_RANGE, "expiry"),
        ({"slot": 2**16}, RejectCode.OUT_OF_RANGE, "slot"),
        ({"sequence": 2**48}, RejectCode.OUT_OF_RANGE, "sequence"),
        ({"market": "NONE-PERP"}, RejectCode.UNKNOWN_MARKET, "market"),
        ({"slot": 0}, RejectCode.BAD_COMBINATION, "time_in_force"),
        ({"slot": 0, "tif": IOC, "amend": True}, RejectCode.BAD_COMBINATION, "amend"),
        ({"tif": IOC, "post_only": True}, RejectCode.BAD_COMBINATION, "post_only"),
        ({"expiry": START_S}, RejectCode.EXPIRED, "expiry"),
        ({"sequence": (START_S + 86_400) * 1000 + 1}, RejectCode.SEQUENCE_TOO_FAR, "sequence"),
        ({"size": 9}, RejectCode.BELOW_MIN_NOTIONAL, "size"),
        ({"size": 10**9 + 1}, RejectCode.ABOVE_MAX_SIZE, "size"),
        ({"max_fee_ppm": 399}, RejectCode.FEE_ABOVE_MAXIMUM, "max_fee_ppm"),
        ({"reduce_only": True}, RejectCode.REDUCE_ONLY_WOULD_INCREASE, "reduce_only"),
        ({"price": 10_501}, RejectCode.OUTSIDE_PRICE_BAND, "limit_price"),
        ({"amend": True}, RejectCode.NOTHING_TO_AMEND, "slot"),
        ({"trigger": Trigger.MARK_ABOVE}, RejectCode.OUT_OF_RANGE, "trigger_price"),
        ({"builder": b"\1" * 20}, RejectCode.UNKNOWN_ACCOUNT, "builder"),
        ({"max_builder_fee_ppm": 5}, RejectCode.BAD_COMBINATION, "builder"),
        ({"trailing_offset": 1}, RejectCode.BAD_COMBINATION, "trigger"),
        ({"display_size": 1}, RejectCode.OUT_OF_RANGE, "display_size"),
        ({"twap_interval": 1}, RejectCode.OUT_OF_RANGE, "twap_interval"),
        ({"bracket_link": 1, "slot": 1}, RejectCode.BAD_COMBINATION, "bracket_link"),
        ({"signer": rb"\9" * 20}, RejectCode.NOT_AUTHORISED, "signature"),
    ],
)
def test_a_refusal_names_its_field_and_changes_nothing(world, maker, fields, code, field):
    """Each format, authority and limit rule refuses with its own code, before anything is written."""
    order = {"size": 1_000, "price": 9_900, **fields}
    before = unnumbered_hash(world.state)
    size, price, tif = order.pop("size"), order.pop("price"), order.pop("tif", GTC)
    refused = rejection(world.order(maker, BUY, size, price, tif, **order))
    assert (refused.code, refused.field) == (code, field)
    assert unnumbered_hash(world.state) == before


def unnumbered_hash(state):
    """The state's hash but for the number of the last command."""
    copy = restore(snapshot(state))
    copy.sequence = 0
    return state_hash(copy)


@pytest.mark.safety("D15", "sequencer")
def test_an_order_for_another_account_is_refused(world, maker, taker):
    """An order names its owner; it cannot be placed for someone else's account id."""
    world.order(maker, BUY, 1_000, 9_900)
    command, _ = world.log[-1]
    refused = rejection(world.apply(msgspec.structs.replace(command, account=taker)))
    assert refused.code is RejectCode.UNKNOWN_ACCOUNT
    assert not world.state.accounts[taker].orders


def test_the_price_band_tells_mark_and_both_bounds(world, maker):
    """OUTSIDE_PRICE_BAND carries what a client needs; a far passive price may rest."""
    refused = rejection(world.order(maker, SELL, 1_000, 9_400))
    assert refused.details == {"mark": 10_000, "lowest": 9_500, "highest": 10_500}
    assert of_type(world.order(maker, SELL, 1_000, 20_000), OrderRested)


def test_insufficient_margin_carries_requirement_and_available(world):
    """The worst case of position and open orders, with fees at the limit, must be covered."""
    poor = world.trader(12, 100)
    refused = rejection(world.order(poor, BUY, 2_000, 10_000))
    assert refused.code is RejectCode.INSUFFICIENT_MARGIN
    assert refused.details["required"] == 2_000 * 10_000 * 100 * 5 // 100
    assert refused.details["available"] == 100 * USDC - 2_000 * 10_000 * 100 * 400 // 10**6
    assert of_type(world.order(poor, BUY, 1_900, 10_000), OrderRested)
    assert rejection(world.order(poor, BUY, 100, 10_000)).code is RejectCode.INSUFFICIENT_MARGIN


def test_opposite_open_orders_do_not_add_up(world):
    """Per market only the larger of |position + buys| and |position - sells| needs margin."""
    poor = world.trader(12, 100)
    assert of_type(world.order(poor, BUY, 1_800, 9_900), OrderRested)
    assert of_type(world.order(poor, SELL, 1_800, 10_100), OrderRested)


def test_slots_and_sequences(world, maker):
    """A slot's sequence grows; an occupied slot takes only an amend; slot 0's sequence grows too."""
    world.order(maker, BUY, 1_000, 9_900, slot=3, sequence=START_S * 1000 + 500)
    assert (
        rejection(world.order(maker, BUY, 1_000, 9_900, slot=3, sequence=START_S * 1000 + 501)).code
        is RejectCode.SLOT_OCCUPIED
    )
    stale = rejection(world.order(maker, BUY, 1_000, 9_900, slot=3, sequence=START_S * 1000 + 500))
    assert stale.code is RejectCode.STALE_SEQUENCE
    assert stale.details["seen"] == START_S * 1000 + 500
    world.order(maker, BUY, 1_000, 9_900, IOC, sequence=START_S * 1000 + 700)
    again = world.order(maker, BUY, 1_000, 9_900, IOC, sequence=START_S * 1000 + 700)
    assert rejection(again).code is RejectCode.STALE_SEQUENCE


def test_ioc_cancels_what_it_does_not_trade(world, maker, taker):
    """Nothing of an IOC waits."""
    world.order(maker, SELL, 500, 10_010)
    events = world.order(taker, BUY, 800, 10_010, IOC)
    (cancelled,) = of_type(events, OrderCancelled)
    assert (cancelled.filled, cancelled.remaining) == (500, 300)
    assert cancelled.reason is CancelReason.IOC_REMAINDER


def test_fok_trades_whole_or_is_refused(world, maker, taker):
    """A FOK that cannot fill is refused and says how much could trade; the book stays."""
    world.order(maker, SELL, 500, 10_010)
    refused = rejection(world.order(taker, BUY, 800, 10_010, FOK))
    assert (refused.code, refused.details["fillable"]) == (RejectCode.FOK_NOT_FILLABLE, 500)
    assert of_type(world.order(taker, BUY, 500, 10_010, FOK), OrderFilled)


def test_post_only_never_takes(world, maker, taker):
    """A post-only order that would cross is refused, not repriced."""
    world.order(maker, SELL, 500, 10_010)
    refused = rejection(world.order(taker, BUY, 500, 10_010, post_only=True))
    assert (refused.code, refused.details["best"]) == (RejectCode.POST_ONLY_WOULD_CROSS, 10_010)
    assert of_type(world.order(taker, BUY, 500, 10_009, post_only=True), OrderRested)


def test_reduce_only_stops_at_a_flat_position(world, maker, taker):
    """A reduce-only order closes at most the position; the rest of it ends."""
    world.order(maker, SELL, 500, 10_010)
    world.order(taker, BUY, 500, 10_010, IOC)
    world.order(maker, BUY, 900, 10_000)
    events = world.order(taker, SELL, 900, 9_990, IOC, reduce_only=True)
    assert world.size(taker) == 0
    assert of_type(events, OrderCancelled)[-1].reason is CancelReason.REDUCE_ONLY


def test_resting_reduce_only_orders_leave_with_the_position(world, maker, taker):
    """When the position is closed otherwise, the waiting reduce-only orders are cancelled in the same
    command."""
    world.order(maker, SELL, 500, 10_010)
    world.order(taker, BUY, 500, 10_010, IOC)
    world.order(taker, SELL, 500, 10_100, reduce_only=True)
    world.order(maker, BUY, 500, 10_000)
    events = world.order(taker, SELL, 500, 10_000, IOC)
    assert [event.reason for event in of_type(events, OrderCancelled)] == [CancelReason.REDUCE_ONLY]
    assert not world.state.accounts[taker].orders


@pytest.mark.safety("B25", "sequencer")
def test_self_trade_cancels_the_resting_order(world, maker, taker):
    """One's own waiting order is cancelled, the next one's is traded."""
    world.order(taker, SELL, 500, 10_000)
    world.order(maker, SELL, 500, 10_000)
    events = world.order(taker, BUY, 500, 10_000, IOC)
    assert of_type(events, OrderCancelled)[0].reason is CancelReason.SELF_TRADE
    assert of_type(events, Trade)[0].maker == maker


def test_a_maker_outside_the_band_is_cancelled_when_met(world, maker, taker):
    """After the mark has moved, an order that is too good to be true is not traded."""
    world.order(maker, SELL, 500, 10_000)
    world.round([10_600, 10_000])
    events = world.order(taker, BUY, 500, 10_700, IOC)
    assert [event.reason for event in of_type(events, OrderCancelled)] == [
        CancelReason.PRICE_BAND,
        CancelReason.IOC_REMAINDER,
    ]


def test_a_maker_without_margin_is_cancelled_and_matching_continues(world, maker, taker):
    """The vault's closing check is made before each fill; the next maker gets the trade."""
    poor = world.trader(12, 100)
    world.order(poor, SELL, 1_900, 10_000)
    world.order(maker, SELL, 1_900, 10_010)
    world.round([10_400, 10_000])
    events = world.order(taker, BUY, 1_900, 10_400, IOC)
    assert of_type(events, OrderCancelled)[0].reason is CancelReason.MARGIN
    assert of_type(events, Trade)[0].maker == maker


def test_a_maker_with_a_stale_position_does_not_grow(world, maker, taker):
    """A waiting order that would add risk is cancelled while another position's price is stale."""
    other = world.trader(12)
    world.order(maker, SELL, 500, 10_000)
    world.order(taker, BUY, 500, 10_000, IOC)
    world.order(maker, SELL, 500, 10_000, market_id=1)
    world.round([0, 10_000], after_s=65)
    events = world.order(other, BUY, 500, 10_000, IOC, market_id=1)
    assert of_type(events, OrderCancelled)[0].reason is CancelReason.MARGIN
    assert not of_type(events, Trade)
    world.next_round()


def test_a_taker_without_margin_stops(world, maker):
    """A market order that passes the worst case at the mark may still fail at the price it would get."""
    poor = world.trader(12, 110)
    world.order(maker, SELL, 2_000, 10_200)
    events = world.order(poor, BUY, 2_000, 10_300, IOC)
    assert [event.reason for event in of_type(events, OrderCancelled)] == [CancelReason.MARGIN]
    assert world.size(poor) == 0


def test_expired_orders_leave_at_the_round(world, maker):
    """An order is gone as soon as engine time reaches its expiry."""
    world.order(maker, BUY, 500, 9_900, expiry=START_S + 5)
    events = world.round([10_000, 10_000])
    assert [event.reason for event in of_type(events, OrderCancelled)] == [CancelReason.EXPIRED]


@pytest.mark.safety("B03", "sequencer")
def test_open_interest_cap():
    """A fill that would exceed the cap stops the taker, and new risk is refused at the cap; reducing goes
    on."""
    world = World(market(0, open_interest_cap_lots=1_000))
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 600, 10_000)
    world.order(maker, SELL, 600, 10_010)
    events = world.order(taker, BUY, 1_200, 10_010, IOC)
    assert of_type(events, OrderCancelled)[-1].reason is CancelReason.OPEN_INTEREST_CAP
    world.order(maker, SELL, 400, 10_000)
    world.order(taker, BUY, 400, 10_000, IOC)
    assert rejection(world.order(taker, BUY, 100, 9_000)).code is RejectCode.OPEN_INTEREST_CAP
    world.order(maker, BUY, 400, 10_000)
    assert of_type(world.order(taker, SELL, 400, 10_000, IOC), Trade)


def test_at_most_200_open_orders(world):
    """The 201st waiting order is refused; an amend of one is not."""
    rich = world.trader(12, 10**6)
    for slot in range(1, 201):
        world.order(rich, BUY, 100, 9_000, slot=slot)
    assert rejection(world.order(rich, BUY, 100, 9_000)).code is RejectCode.TOO_MANY_ORDERS
    assert of_type(world.order(rich, BUY, 100, 9_001, slot=7, amend=True), OrderRested)


def test_at_most_16_open_markets():
    """Markets with a position or an order that may open one count."""
    world = World(*(market(number) for number in range(17)))
    trader = world.trader(10)
    for number in range(16):
        assert of_type(world.order(trader, BUY, 100, 9_000, market_id=number), OrderRested)
    refused = rejection(world.order(trader, BUY, 100, 9_000, market_id=16))
    assert (refused.code, refused.details["open"]) == (RejectCode.TOO_MANY_MARKETS, 16)


@pytest.mark.parametrize(
    "mode, code",
    [
        (MarketMode.POST_ONLY, RejectCode.MARKET_POST_ONLY),
        (MarketMode.REDUCE_ONLY, RejectCode.MARKET_REDUCE_ONLY),
        (MarketMode.CANCEL_ONLY, RejectCode.MARKET_CANCEL_ONLY),
        (MarketMode.HALTED, RejectCode.MARKET_HALTED),
    ],
)
def test_market_modes_refuse_by_name(world, maker, mode, code):
    """Each mode refuses what it does not take, and cancelling is always possible."""
    world.order(maker, BUY, 500, 9_900, slot=1)
    world.mode(mode)
    assert rejection(world.order(maker, BUY, 500, 9_900)).code is code
    if mode is not MarketMode.HALTED:
        assert of_type(world.cancel(maker, 1), OrderCancelled)
    else:
        assert not world.state.accounts[maker].orders
    world.mode(MarketMode.NORMAL)
    assert of_type(world.order(maker, BUY, 500, 9_900), OrderRested)


@pytest.mark.safety("E09", "sequencer")
def test_unsettled_exposure_is_bounded(world, maker, taker, monkeypatch):
    """At the bound of unsettled batches only reducing orders are taken, until the chain confirms."""
    monkeypatch.setattr("sequencer.engine.order_checks.MAX_UNSETTLED_BATCHES", 2)
    world.confirms = False
    world.order(maker, SELL, 500, 10_000)
    world.order(taker, BUY, 500, 10_000, IOC)
    world.next_round()
    world.order(maker, BUY, 100, 10_000)
    world.order(taker, SELL, 100, 10_000, IOC)
    world.next_round()
    assert rejection(world.order(taker, BUY, 500, 10_000)).code is RejectCode.UNSETTLED_LIMIT
    assert of_type(world.order(taker, SELL, 100, 10_000), OrderRested)
    world.confirm(world.state.sealed_batch)
    assert of_type(world.order(taker, BUY, 500, 9_990), OrderRested)


@pytest.mark.safety("A13", "keeper")
@pytest.mark.safety("E09", "sequencer")
def test_unsettled_time_is_bounded(world, maker, taker):
    """A settlement that falls behind stops new risk, and further behind all trading; confirming ends both."""
    world.confirms = False
    world.order(maker, SELL, 500, 10_000)
    world.order(taker, BUY, 500, 10_000, IOC)
    world.next_round()
    for _ in range(6):
        world.next_round()
    refused = rejection(world.order(taker, BUY, 500, 9_900))
    assert (refused.code, refused.details["age_s"]) == (RejectCode.UNSETTLED_LIMIT, 35)
    assert of_type(world.order(taker, SELL, 100, 10_100), OrderRested)
    for _ in range(6):
        world.next_round()
    assert rejection(world.order(taker, SELL, 100, 10_100)).code is RejectCode.UNSETTLED_LIMIT
    world.confirm(world.state.sealed_batch)
    assert of_type(world.order(taker, BUY, 500, 9_900), OrderRested)


def test_without_a_recent_round_orders_wait_for_prices(world, maker):
    """A batch pinned to an old round could not settle, so nothing new enters it."""
    world.now_s += 61
    assert rejection(world.order(maker, BUY, 500, 9_900)).code is RejectCode.STALE_PRICE
    world.next_round()
    assert of_type(world.order(maker, BUY, 500, 9_900), OrderRested)
