"""Oracle rounds: medians of keepers' reports and the packed words whose hash a batch pins.

`contracts/PriceOracle.vy` computes the same round from the same reports.
"""

from collections.abc import Sequence

import msgspec
from eth_hash.auto import keccak

from evermark.protocol.orders import Signature
from evermark.protocol.signing import FundingReport, PriceReport

MAX_BATCH_AGE_S = 120  # block time minus the pinned round's time, at most


class MarketPrice(msgspec.Struct, frozen=True):
    """A market's accepted price: ticks, and the time of the round that accepted it (0: never priced)."""

    index_ticks: int
    mark_ticks: int
    updated_at: int

    def is_fresh(self, now_s: int, max_age_s: int) -> bool:
        """True when priced at all and at most `max_age_s` old at `now_s`."""
        return self.index_ticks > 0 and now_s - self.updated_at <= max_age_s


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


def aggregate(reports: Sequence[PriceReport], quorum: int, last: Sequence[MarketPrice]) -> Round:
    """The round that `reports` (all of one round, at least `quorum`) make after the prices `last`.

    A market with fewer than `quorum` reports that do not abstain keeps its last price and that price's age.
    """
    timestamp = lower_median([report.timestamp for report in reports])
    prices = []
    for market_id, previous in enumerate(last):
        given = [report.prices[market_id] for report in reports if report.prices[market_id]]
        if len(given) < quorum:
            prices.append(previous)
            continue
        index = lower_median([price >> 32 for price in given])
        mark = lower_median([price & 0xFFFFFFFF for price in given])
        prices.append(MarketPrice(index, mark, timestamp))
    return Round(reports[0].round, timestamp, tuple(prices))


def round_words(round_: Round) -> tuple[int, ...]:
    """The ring-buffer words of a round: header, then two markets a word, the even one in the low half."""
    words = [round_.round | round_.timestamp << 40]
    for at in range(0, len(round_.prices), 2):
        word = 0
        for offset, price in enumerate(round_.prices[at : at + 2]):
            half = price.index_ticks | price.mark_ticks << 32 | price.updated_at << 64
            word |= half << 128 * offset
        words.append(word)
    return tuple(words)


def prices_hash(round_: Round) -> bytes:
    """keccak256 over the round's words, as a batch header pins it."""
    return keccak(b"".join(word.to_bytes(32, "big") for word in round_words(round_)))


def median_rates(reports: Sequence[FundingReport], markets: int) -> tuple[int, ...]:
    """Lower-median hourly rate by market id, ppb."""
    return tuple(lower_median([report.rates_ppb[market] for report in reports]) for market in range(markets))
