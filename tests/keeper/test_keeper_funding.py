"""The funding keeper's decisions: samples, the hour's report, what a restart or a silent exchange changes."""

import msgspec
import pytest
from keeper_cases import BTC, MARKETS

from evermark.protocol.funding import HOUR_S, hourly_rate_ppb
from evermark.protocol.signing import FundingReport
from keeper.actions import Outcome
from keeper.funding import (
    SEND_AGAIN_S,
    CloseHour,
    FundingRules,
    FundingStrategy,
    FundingView,
    KeepSample,
    Sample,
    close_hour,
    commitment,
    due,
    sample_bytes,
    take_sample,
)
from keeper.samples import SampleStore

HOUR = 488_924
START = HOUR * HOUR_S
RULES = FundingRules()
DEEP = 10**9  # lots enough for any impact notional


def look(now_s, *, wall_s=0.0, index=1_000_000, bid=1_000_100, ask=1_000_200, markets=(0, 1, 2, 3)):
    """A view in which every market has the same index and a deep book."""
    return FundingView(
        now_s,
        wall_s,
        dict.fromkeys(markets, index),
        dict.fromkeys(markets, ((bid, DEEP),)),
        dict.fromkeys(markets, ((ask, DEEP),)),
    )


def samples(count, premium=1_000, every=5):
    """`count` samples of the hour with the same premium in every market."""
    return [Sample(START + every * number, (premium,) * 4) for number in range(count)]


def test_a_sample_is_the_premium_of_the_impact_prices():
    """A book above the index gives a positive premium, below it a negative one, around it none."""
    assert take_sample(MARKETS, look(START)).premiums_ppb == (100_000,) * 4
    assert take_sample(MARKETS, look(START, bid=999_800, ask=999_900)).premiums_ppb == (-100_000,) * 4
    assert take_sample(MARKETS, look(START, bid=999_900, ask=1_000_100)).premiums_ppb == (0,) * 4


def test_a_side_too_thin_counts_as_the_index():
    """One lot does not carry a premium."""
    thin = msgspec.structs.replace(look(START), bids={0: ((1_100_000, 1),)}, asks={0: ()})
    assert take_sample(MARKETS, thin).premiums_ppb == (0, None, None, None)


def test_no_sample_without_an_index_or_a_book():
    """Unknown is not zero."""
    assert take_sample(MARKETS, look(START, markets=(1,))).premiums_ppb == (None, 100_000, None, None)


def test_samples_are_due_once_an_interval():
    """The interval, not the distance, decides: a late sample does not shift the following ones."""
    assert not due(100, 104, RULES)
    assert due(104, 105, RULES)
    assert due(0, START, RULES)


@pytest.mark.parametrize("count, reported", [(720, True), (360, True), (359, False), (0, False)])
def test_an_hour_needs_its_share_of_samples(count, reported):
    """Half of 720 by default; below it the hour is skipped with its numbers."""
    decision = close_hour(MARKETS, HOUR, samples(count), RULES)
    assert (decision.report is not None) == reported
    assert (decision.samples, decision.expected) == (count, 720)
    if not reported:
        assert decision.reason == f"{count} of 720 samples, 360 needed for any market"


def test_the_report_carries_the_protocols_rates_and_a_commitment():
    """Rates by `hourly_rate_ppb`; the commitment is over the hour's samples in time order."""
    held = samples(720)
    report = close_hour(MARKETS, HOUR, [*reversed(held), Sample(START - 5, (9, 9, 9, 9))], RULES).report
    assert report == FundingReport(
        hour=HOUR,
        rates_ppb=tuple(hourly_rate_ppb([1_000] * 720, market) for market in MARKETS),
        samples=commitment(held),
    )


@pytest.mark.safety("C03", "keeper")
def test_rates_are_within_the_cap():
    """A premium of 50 % for an hour still gives the market's capped rate."""
    report = close_hour(MARKETS, HOUR, samples(720, premium=500_000_000), RULES).report
    assert report is not None
    assert report.rates_ppb == tuple(market.funding_cap_ppb for market in MARKETS)


@pytest.mark.safety("C04", "keeper")
def test_a_market_without_samples_pays_nothing():
    """Gaps are zero payments; the other markets of the hour are reported."""
    held = [Sample(one.time_s, (None, 1_000, 1_000, 1_000)) for one in samples(720)]
    report = close_hour(MARKETS, HOUR, held, RULES).report
    assert report is not None
    assert report.rates_ppb[0] == 0
    assert report.rates_ppb[1] == hourly_rate_ppb([1_000] * 720, MARKETS[1])


def test_sample_bytes_are_fixed():
    """Time, then one signed word a market; an unknown premium is the lowest number."""
    raw = sample_bytes(Sample(1, (2, -1, None)))
    assert raw.hex() == "0000000000000001" + "0000000000000002" + "ff" * 8 + "8000000000000000"


def run_hour(strategy, *, until=START + HOUR_S):
    """Sample a whole hour; returns the number of samples kept."""
    kept = 0
    for now in range(START, until, 5):
        actions = strategy.decide(look(now))
        kept += sum(isinstance(action, KeepSample) for action in actions)
        assert not any(isinstance(action, CloseHour) for action in actions)
    return kept


def closings(actions):
    """The hours that a decision closes."""
    return [action for action in actions if isinstance(action, CloseHour)]


@pytest.mark.safety("C04", "keeper")
def test_an_hour_is_reported_until_the_exchange_has_decided_it():
    """After its end once; again after a while as long as it is only held; never again once decided."""
    strategy = FundingStrategy(MARKETS, RULES)
    assert run_hour(strategy) == 720
    (first,) = closings(strategy.decide(look(START + HOUR_S, wall_s=100.0)))
    strategy.learn(first, Outcome(True, "2 of 3"))
    assert closings(strategy.decide(look(START + HOUR_S + 5, wall_s=101.0))) == []
    (again,) = closings(strategy.decide(look(START + HOUR_S + 10, wall_s=100.0 + SEND_AGAIN_S)))
    assert again.decision.report == first.decision.report
    strategy.learn(again, Outcome(False, "", "LATE"))
    assert closings(strategy.decide(look(START + HOUR_S + 15, wall_s=200.0))) == []


def test_an_unreachable_exchange_is_tried_again():
    """Silence decides nothing."""
    strategy = FundingStrategy(MARKETS, RULES)
    run_hour(strategy)
    (first,) = closings(strategy.decide(look(START + HOUR_S, wall_s=100.0)))
    strategy.learn(first, Outcome(False, "nobody", reached=False))
    assert len(closings(strategy.decide(look(START + HOUR_S + 5, wall_s=102.0)))) == 1


def test_an_hour_too_old_is_not_reported():
    """What the protocol has missed by its own deadline is left alone."""
    strategy = FundingStrategy(MARKETS, RULES, samples(720))
    assert closings(strategy.decide(look(START + HOUR_S + 3_301))) == []


def test_a_restart_goes_on_with_the_hour(tmp_path):
    """Samples on disk, a torn last line included, make the same report as an uninterrupted keeper."""
    store = SampleStore(tmp_path / "samples")
    for sample in samples(500):
        store.append(sample)
    path = next((tmp_path / "samples").glob("*.jsonl"))
    path.write_bytes(path.read_bytes() + b'{"time_s":1760')
    loaded = SampleStore(tmp_path / "samples").load(START + 2_600)
    assert list(loaded) == samples(500)
    store.append(Sample(START + 2_500, (1_000,) * 4))
    assert len(SampleStore(tmp_path / "samples").load(START + 2_600)) == 501


def test_old_sample_files_are_dropped(tmp_path):
    """Two days are kept, so the directory does not grow for ever."""
    store = SampleStore(tmp_path)
    for hour in (HOUR, HOUR + 48, HOUR + 49):
        store.append(Sample(hour * HOUR_S, (0, 0, 0, 0)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"premiums-{HOUR + 48}.jsonl",
        f"premiums-{HOUR + 49}.jsonl",
    ]


def test_btc_is_the_first_market():
    """The cases above count on the packaged list's order."""
    assert BTC.market_id == 0
