"""Oracle rounds: medians of keepers' reports, held back where they jump, and the packed words whose hash a batch
pins.

`contracts/PriceOracle.vy` computes the same round from the same reports; docs/oracle.md has the rules.
"""

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from evermark.protocol.keccak import keccak
from evermark.protocol.orders import Signature
from evermark.protocol.signing import FundingReport, PriceReport
from evermark.protocol.units import PPM, mul_div_up

MAX_BATCH_AGE_S = 120  # block time minus the pinned round's time, at most
MAX_LATE_S = 3_600  # the same of a late batch, which holds order fills alone
SETTLED_BIT = 32  # from which on a market's band holds its settlement price
CALM_ROUNDS = 3  # a price that jumped is held to be uncertain until it kept its band for so many rounds


class MarketPrice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A market's accepted price: ticks, and the time of the round that accepted it (0: never priced)."""

    index_ticks: int
    mark_ticks: int
    updated_at: int
    clamped: bool = False  # it jumped, or has not yet been calm for `CALM_ROUNDS` rounds since
    calm_rounds: int = 0  # while clamped: rounds within the band since the last jump

    def is_fresh(self, now_s: int, max_age_s: int) -> bool:
        """True when priced at all, not clamped, and at most `max_age_s` old at `now_s`.

        A price that jumped is as good as an old one: nobody knows yet what the market is worth.
        """
        return self.index_ticks > 0 and not self.clamped and now_s - self.updated_at <= max_age_s


NO_PRICE = MarketPrice(0, 0, 0)


class Round(msgspec.Struct, frozen=True):
    """One accepted oracle round; prices by market id."""

    round: int
    timestamp: int
    prices: tuple[MarketPrice, ...]


class SignedPriceReport(msgspec.Struct, frozen=True):
    """A price report with its signer (20 bytes, recovered at the gate) and signature."""

    report: PriceReport
    signer: bytes
    signature: Signature


class SignedFundingReport(msgspec.Struct, frozen=True):
    """A funding report with its signer (20 bytes, recovered at the gate) and signature."""

    report: FundingReport
    signer: bytes
    signature: Signature


def pack_price(index_ticks: int, mark_ticks: int) -> int:
    """One entry of a PriceReport; 0 abstains."""
    return index_ticks << 32 | mark_ticks


def lower_median(values: Sequence[int]) -> int:
    """Middle value, the lower one of an even number."""
    return sorted(values)[(len(values) - 1) // 2]


def aggregate(
    reports: Sequence[PriceReport], quorum: int, last: Sequence[MarketPrice], jumps_ppm: Sequence[int]
) -> Round:
    """The round that `reports` (all of one round, at least `quorum`) make after the prices `last`.

    A market with fewer than `quorum` reports that do not abstain keeps its last price and that price's age; a
    report that ends before a market abstains. `jumps_ppm` is by market id how far its price may move in a
    second, 0 for no limit; that of a settled market has its settlement price from bit 32 on, and nothing else is its price.
    """
    timestamp = lower_median([report.timestamp for report in reports])
    prices = []
    for market_id, (previous, jump_ppm) in enumerate(zip(last, jumps_ppm, strict=True)):
        entries = [report.prices[market_id] for report in reports if market_id < len(report.prices)]
        given = [price for price in entries if price]
        if jump_ppm >> SETTLED_BIT:
            prices.append(accepted(previous, 0, 0, timestamp, jump_ppm))
            continue
        if len(given) < quorum:
            prices.append(previous)
            continue
        index = lower_median([price >> 32 for price in given])
        mark = lower_median([price & 0xFFFFFFFF for price in given])
        prices.append(accepted(previous, index, mark, timestamp, jump_ppm))
    return Round(reports[0].round, timestamp, tuple(prices))


def accepted(
    last: MarketPrice, index_ticks: int, mark_ticks: int, timestamp: int, jump_ppm: int
) -> MarketPrice:
    """What a round's medians become after a market's price `last`: moved no further than its band allows, or what a settled
    market is settled at."""
    settled = jump_ppm >> SETTLED_BIT
    if settled:
        return MarketPrice(settled, settled, timestamp)
    if last.updated_at == 0 or jump_ppm == 0:
        return MarketPrice(index_ticks, mark_ticks, timestamp)
    reach_ppm = jump_ppm * (timestamp - last.updated_at)
    index = _held_back(index_ticks, last.index_ticks, reach_ppm)
    mark = _held_back(mark_ticks, last.mark_ticks, reach_ppm)
    if (index, mark) != (index_ticks, mark_ticks):
        return MarketPrice(index, mark, timestamp, clamped=True)
    if not last.clamped or last.calm_rounds + 1 == CALM_ROUNDS:
        return MarketPrice(index, mark, timestamp)
    return MarketPrice(index, mark, timestamp, clamped=True, calm_rounds=last.calm_rounds + 1)


def _held_back(ticks: int, last: int, reach_ppm: int) -> int:
    reach = mul_div_up(last, reach_ppm, PPM)
    return min(max(ticks, last - reach), last + reach)


def round_words(round_: Round) -> tuple[int, ...]:
    """The ring-buffer words of a round: header, then two markets a word, the even one in the low half."""
    words = [round_.round | round_.timestamp << 40]
    for at in range(0, len(round_.prices), 2):
        word = 0
        for offset, price in enumerate(round_.prices[at : at + 2]):
            half = price.index_ticks | price.mark_ticks << 32 | price.updated_at << 64
            half |= price.clamped << 104 | price.calm_rounds << 105
            word |= half << 128 * offset
        words.append(word)
    return tuple(words)


@lru_cache(maxsize=4)  # every batch of a round has the same
def prices_hash(round_: Round) -> bytes:
    """keccak256 over the round's words, as a batch header pins it."""
    return keccak(b"".join(word.to_bytes(32, "big") for word in round_words(round_)))


def median_rates(reports: Sequence[FundingReport], markets: int) -> tuple[int, ...]:
    """Lower-median hourly rate by market id, ppb; a market that a report does not reach has a rate of 0 there."""
    return tuple(
        lower_median([_rate(report.rates_ppb, market) for report in reports]) for market in range(markets)
    )


def _rate(rates_ppb: Sequence[int], market: int) -> int:
    return rates_ppb[market] if market < len(rates_ppb) else 0
