"""The funding keeper's decisions: a premium sample every few seconds, one signed report an hour. Pure.

Formulas are in `evermark.protocol.funding`; the commitment in a report is keccak256 over `sample_bytes` of
the hour's samples in time order, so a keeper that publishes its samples can be checked.
"""

from collections.abc import Mapping, Sequence

import msgspec
from eth_hash.auto import keccak

from evermark.protocol.funding import HOUR_S, hourly_rate_ppb, impact_price, premium_ppb
from evermark.protocol.markets import Market
from evermark.protocol.signing import FundingReport
from evermark.protocol.units import PPM
from keeper.actions import Outcome

SAMPLE_S = 5  # chain seconds between two samples (the protocol, section 8)
# an hour still unreported this long after its end is missed by the protocol's own deadline
LAST_MOMENT_S = 3_300
SEND_AGAIN_S = 15.0  # wall seconds between two sendings of an hour that is not decided yet
NO_SAMPLE = -(2**63)  # marks a market without a sample in the committed bytes

Levels = Sequence[tuple[int, int]]  # (price ticks, lots), best first


class Sample(msgspec.Struct, frozen=True):
    """Premiums at one moment, ppb by market id; None where there was no index or no book to read."""

    time_s: int
    premiums_ppb: tuple[int | None, ...]


class FundingView(msgspec.Struct, frozen=True):
    """What a sample rests on: index in ticks (0: none) and both sides of the book, by market id."""

    now_s: int
    wall_s: float
    index_ticks: Mapping[int, int]
    bids: Mapping[int, Levels]
    asks: Mapping[int, Levels]


class FundingRules(msgspec.Struct, frozen=True, kw_only=True):
    """How complete an hour must be.

    `sample_s` grows where chain time runs faster than samples can be taken.
    """

    sample_s: int = SAMPLE_S
    min_share_ppm: int = 500_000  # of the samples that a whole hour would have


class HourDecision(msgspec.Struct, frozen=True):
    """An hour's end: the report, or why there is none."""

    hour: int
    report: FundingReport | None
    samples: int
    expected: int
    reason: str = ""


class KeepSample(msgspec.Struct, frozen=True):
    """Write this sample to disk."""

    sample: Sample


class CloseHour(msgspec.Struct, frozen=True):
    """Send the hour's report, or note why there is none."""

    decision: HourDecision


class FundingStrategy:
    """Holds the samples of the hours that are not decided yet; `samples` restores them after a restart."""

    def __init__(
        self, markets: Sequence[Market], rules: FundingRules, samples: Sequence[Sample] = ()
    ) -> None:
        self._markets = tuple(markets)
        self._rules = rules
        self._samples = sorted(samples, key=lambda one: one.time_s)
        self._closed: frozenset[int] = frozenset()
        self._again_at: dict[int, float] = {}
        self._wall_s = 0.0

    def decide(self, view: FundingView) -> tuple[KeepSample | CloseHour, ...]:
        """A sample when one is due, and the report of every hour that has ended and is not decided."""
        self._wall_s = view.wall_s
        actions: list[KeepSample | CloseHour] = []
        last_s = self._samples[-1].time_s if self._samples else 0
        if due(last_s, view.now_s, self._rules):
            sample = take_sample(self._markets, view)
            self._samples.append(sample)
            actions.append(KeepSample(sample))
        for hour in hours_to_close(self._samples, view.now_s, self._closed):
            if view.wall_s >= self._again_at.get(hour, 0.0):
                actions.append(CloseHour(close_hour(self._markets, hour, self._samples, self._rules)))
        self._samples = [one for one in self._samples if view.now_s - one.time_s < 2 * HOUR_S]
        return tuple(actions)

    def learn(self, action: KeepSample | CloseHour, outcome: Outcome) -> None:
        """An hour is closed once the exchange has decided it or refused the report, or without a report.

        An accepted report is sent again after a while: a gateway that restarts before the quorum has
        forgotten it.
        """
        if isinstance(action, KeepSample):
            return
        hour = action.decision.hour
        if action.decision.report is None or (outcome.reached and not outcome.accepted):
            self._closed |= {hour}
            self._again_at.pop(hour, None)
        else:
            self._again_at[hour] = self._wall_s + (SEND_AGAIN_S if outcome.accepted else 1.0)


def take_sample(markets: Sequence[Market], view: FundingView) -> Sample:
    """The premium of every market now. A side too thin for the impact notional counts as the index."""
    return Sample(view.now_s, tuple(_premium(market, view) for market in markets))


def due(last_s: int, now_s: int, rules: FundingRules) -> bool:
    """True when `now_s` lies in a later sampling interval than the last sample."""
    return now_s // rules.sample_s > last_s // rules.sample_s


def close_hour(
    markets: Sequence[Market], hour: int, samples: Sequence[Sample], rules: FundingRules
) -> HourDecision:
    """Rates of `hour` from its samples.

    A market with too few of its own gets 0: no payment where nothing is known.
    """
    ordered = sorted((one for one in samples if one.time_s // HOUR_S == hour), key=lambda one: one.time_s)
    expected = HOUR_S // rules.sample_s
    needed = -(-expected * rules.min_share_ppm // PPM)
    rates, informed = [], 0
    for market in markets:
        known = [
            one.premiums_ppb[market.market_id] for one in ordered if market.market_id < len(one.premiums_ppb)
        ]
        premiums = [premium for premium in known if premium is not None]
        enough = len(premiums) >= max(1, needed)
        informed += enough
        rates.append(hourly_rate_ppb(premiums, market) if enough else 0)
    if not informed:
        why = f"{len(ordered)} of {expected} samples, {max(1, needed)} needed for any market"
        return HourDecision(hour, None, len(ordered), expected, why)
    report = FundingReport(hour=hour, rates_ppb=tuple(rates), samples=commitment(ordered))
    return HourDecision(hour, report, len(ordered), expected)


def hours_to_close(samples: Sequence[Sample], now_s: int, closed: frozenset[int]) -> tuple[int, ...]:
    """Hours that have ended, have samples, are not closed yet and may still be applied, oldest first."""
    hours = {one.time_s // HOUR_S for one in samples} - closed
    return tuple(sorted(hour for hour in hours if 0 <= now_s - (hour + 1) * HOUR_S <= LAST_MOMENT_S))


def commitment(samples: Sequence[Sample]) -> bytes:
    """keccak256 over the samples' bytes, in the order given."""
    return keccak(b"".join(sample_bytes(one) for one in samples))


def sample_bytes(sample: Sample) -> bytes:
    """time u64, then one signed 64-bit premium a market, big-endian; NO_SAMPLE where there is none."""
    premiums = (NO_SAMPLE if premium is None else premium for premium in sample.premiums_ppb)
    return sample.time_s.to_bytes(8, "big") + b"".join(
        one.to_bytes(8, "big", signed=True) for one in premiums
    )


def _premium(market: Market, view: FundingView) -> int | None:
    index = view.index_ticks.get(market.market_id, 0)
    bids, asks = view.bids.get(market.market_id), view.asks.get(market.market_id)
    if index <= 0 or bids is None or asks is None:
        return None
    bid = impact_price(bids, market.impact_notional, market.lot_tick_value)
    ask = impact_price(asks, market.impact_notional, market.lot_tick_value)
    return premium_ppb(index if bid is None else bid, index if ask is None else ask, index)
