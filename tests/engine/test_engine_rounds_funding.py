"""OracleRound and FundingHour: quorum, order, staleness, and exactly-once hours."""

import msgspec
import pytest
from engine_world import (
    BUY,
    IOC,
    KEEPERS,
    SELL,
    SIGNATURE,
    START_S,
    USDC,
    World,
    market,
    of_type,
    rejection,
)

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.oracle import SignedPriceReport, pack_price
from evermark.protocol.reject import RejectCode
from evermark.protocol.signing import PriceReport
from evermark.protocol.units import FUNDING_SCALE
from sequencer.engine.commands import MarketMode, OracleRound
from sequencer.engine.events import BatchSealed, FundingApplied, MarketModeChanged, RoundApplied, Trade
from sequencer.settlement.reconciliation import sums_of


@pytest.fixture
def world():
    return World()


def reports(world, round_=None, keepers=KEEPERS, prices=(10_000, 10_000), timestamp=None):
    timestamp = world.now_s + 5 if timestamp is None else timestamp
    report = PriceReport(
        round=timestamp // 5 if round_ is None else round_,
        timestamp=timestamp,
        prices=tuple(pack_price(price, price) for price in prices),
    )
    return OracleRound(reports=tuple(SignedPriceReport(report, keeper, SIGNATURE) for keeper in keepers))


def test_a_round_takes_the_medians(world):
    """Each market's price is the lower median of the reports."""
    command = reports(world)
    changed = [
        msgspec.structs.replace(
            signed,
            report=msgspec.structs.replace(signed.report, prices=(pack_price(9_000 + n, 8_000 + n), 0)),
        )
        for n, signed in enumerate(command.reports)
    ]
    (applied,) = of_type(world.apply(OracleRound(reports=tuple(changed))), RoundApplied)
    assert (applied.round.prices[0].index_ticks, applied.round.prices[0].mark_ticks) == (9_001, 8_001)
    assert applied.round.prices[1].updated_at == START_S


@pytest.mark.safety("A02", "sequencer")
def test_rounds_only_go_forward(world):
    """An equal or older round is refused; so is a time outside its round."""
    assert rejection(world.apply(reports(world, timestamp=START_S))).code is RejectCode.STALE_SEQUENCE
    assert rejection(world.apply(reports(world, timestamp=START_S - 50))).code is RejectCode.STALE_SEQUENCE
    assert rejection(world.apply(reports(world, round_=START_S // 5 + 7))).code is RejectCode.MALFORMED


@pytest.mark.safety("A04", "sequencer")
def test_a_round_needs_a_quorum_of_registered_keepers(world):
    """Too few, repeated, unsorted or unknown signers make no round."""
    assert rejection(world.apply(reports(world, keepers=KEEPERS[:2]))).code is RejectCode.MALFORMED
    assert rejection(world.apply(reports(world, keepers=KEEPERS[:2] * 2))).code is RejectCode.MALFORMED
    assert rejection(world.apply(reports(world, keepers=KEEPERS[::-1]))).code is RejectCode.MALFORMED
    unknown = (*KEEPERS[:2], b"\xff" * 20)
    assert rejection(world.apply(reports(world, keepers=unknown))).code is RejectCode.NOT_AUTHORISED


@pytest.mark.safety("A03", "sequencer")
def test_zero_and_malformed_prices_are_refused(world):
    """A report with half a price, or for more markets than there are, makes no round; one that ends early abstains."""
    command = reports(world)
    for prices in ((pack_price(0, 5), 0), (pack_price(5, 0), 0), (1 << 70, 0), (pack_price(1, 1),) * 3):
        changed = tuple(
            msgspec.structs.replace(signed, report=msgspec.structs.replace(signed.report, prices=prices))
            for signed in command.reports
        )
        assert rejection(world.apply(OracleRound(reports=changed))).code is RejectCode.MALFORMED


@pytest.mark.safety("A12", "sequencer")
def test_each_market_goes_stale_by_its_own_age():
    """A market without a fresh price is reduce-only and recovers with one; others are unaffected."""
    world = World(market(0, max_price_age_s=30), market(1, max_price_age_s=90))
    world.round([0, 0], after_s=30)
    assert world.state.stale_markets == 0
    (changed,) = of_type(world.round([0, 0]), MarketModeChanged)
    assert (changed.market_id, changed.mode) == (0, MarketMode.REDUCE_ONLY)
    (changed,) = of_type(world.round([10_000, 0]), MarketModeChanged)
    assert (changed.market_id, changed.mode) == (0, MarketMode.NORMAL)


def test_a_round_seals_the_batch_of_the_old_prices(world):
    """The batch names the round whose prices it used and the last command in it."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 500, 10_000)
    world.order(taker, BUY, 500, 10_000, IOC)
    last = world.state.sequence
    (sealed,) = of_type(world.round([10_100, 10_000]), BatchSealed)
    assert sealed.round.timestamp == START_S
    assert sealed.batch.journal_sequence == last
    assert not of_type(world.next_round(), BatchSealed)


def hour_later(world):
    world.now_s += 3_600 - world.now_s % 3_600
    world.next_round()


def test_funding_moves_from_longs_to_shorts(world):
    """A positive rate: longs pay what shorts receive, to the unit, when the position next changes."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC)
    hour_later(world)
    events = world.funding([1_000_000, 0])
    assert of_type(events, FundingApplied)[0].rate_ppb == 1_000_000
    before = world.collateral(maker), world.collateral(taker)
    world.order(maker, BUY, 1_000, 10_000)
    world.order(taker, SELL, 1_000, 10_000, IOC)
    value = 1_000 * USDC
    paid = value // 1_000
    assert world.collateral(taker) - before[1] == value - paid - value * 400 // 10**6
    assert world.collateral(maker) - before[0] == -value + paid - value * 100 // 10**6
    assert world.state.funding_pool == 0
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("C04", "sequencer")
@pytest.mark.safety("G15", "sequencer")
def test_an_hour_applies_once(world):
    """A repeated or older hour is refused, and one that is not over; a gap pays nothing."""
    hour_later(world)
    hour = world.state.now // 3_600 - 1
    assert rejection(world.funding([1, 1], hour + 1)).code is RejectCode.NOT_READY
    world.funding([1_000, 1_000], hour)
    assert rejection(world.funding([1_000, 1_000], hour)).code is RejectCode.STALE_SEQUENCE
    assert rejection(world.funding([1_000, 1_000], hour - 1)).code is RejectCode.STALE_SEQUENCE
    cumulative = world.state.markets[0].cumulative
    hour_later(world)
    hour_later(world)
    world.funding([1_000, 1_000])
    assert world.state.markets[0].cumulative == 2 * cumulative


@pytest.mark.safety("C03", "sequencer")
def test_rates_are_clamped_to_the_cap(world):
    """min(4 %, half the first maintenance fraction) an hour, whatever the keepers sign."""
    hour_later(world)
    events = of_type(world.funding([10**9, -(10**9)]), FundingApplied)
    assert [event.rate_ppb for event in events] == [50_000 * 250, -50_000 * 250]


def test_a_stale_market_misses_the_hour(world):
    """Funding needs a fresh price; the others get theirs in a batch that does not name the stale one."""
    world.round([0, 10_000], after_s=3_600)
    events = world.funding([1_000, 1_000])
    assert [event.market_id for event in of_type(events, FundingApplied)] == [1]
    assert of_type(events, BatchSealed)[-1].batch.markets == (1,)
    world.round([0, 0], after_s=3_600)
    assert rejection(world.funding([1_000, 1_000])).code is RejectCode.STALE_PRICE


@pytest.mark.safety("B14", "sequencer")
def test_unsettled_funding_counts_in_margin(world):
    """What a position owes is in its equity before it is settled."""
    maker, taker = world.trader(10), world.trader(11, 60)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC)
    for _ in range(4):
        hour_later(world)
        world.funding([12_500_000, 0])
    assert world.collateral(taker) < 0
    world.donate(1_000)
    assert of_type(world.liquidate(taker), Trade)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("C06", "sequencer")
def test_funding_dust_goes_to_the_fund(world):
    """Odd sizes round against everybody; the remainders add up to whole units for the fund, and nothing is
    lost."""
    maker = world.trader(10, 10**6)
    for number in range(7):
        taker = world.trader(20 + number)
        world.order(maker, SELL, 101 + number, 10_000)
        world.order(taker, BUY, 101 + number, 10_000, IOC)
    for _ in range(40):
        hour_later(world)
        world.round([10_000, 10_000], index=[9_999, 10_000])
        world.funding([333_333, 0])
        world.order(maker, SELL, 11, 10_000, post_only=True)
        world.order(taker, BUY, 11, 10_000, IOC)
    assert world.collateral(1) > 0
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("G27", "sequencer")
def test_whole_dust_counts_as_paid_at_a_batch_s_last_command(world):
    """The vault pays it as the batch ends, the engine as it seals, a command later: compared at the last one, they agree."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_001, 10_000)
    world.order(taker, BUY, 1_001, 10_000, IOC)
    hour_later(world)
    world.funding([1_000_001, 0])
    world.order(maker, BUY, 1_001, 10_000)
    world.order(taker, SELL, 1_001, 10_000, IOC)
    assert world.state.dust == FUNDING_SCALE
    at_last_command = sums_of(world.state)
    world.next_round()
    assert (world.state.dust, world.state.accounts[INSURANCE_FUND].collateral) == (0, 1)
    sealed = sums_of(world.state)
    assert (at_last_command.funding_pool, at_last_command.dust) == (sealed.funding_pool, sealed.dust)
