"""The signed funding reports behind rates that the chain holds, whoever posted them and through whatever contract."""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

from evermark.protocol.oracle import SignedFundingReport, median_rates
from evermark.protocol.orders import Signature
from evermark.protocol.signing import FundingReport, SignatureRefused, digest, recover

WORD = 32
MAX_REPORTS = 15  # that the oracle takes
MAX_MARKETS = 64
MAX_CANDIDATES = 15  # a choice among these is looked for
FIRST_V = 27


class ReportsHidden(ValueError):
    """Nothing that is known makes an hour's rates. One line."""


def reports_within(data: bytes, hour: int, separator: bytes) -> Iterator[SignedFundingReport]:
    """Every report of the hour that stands in a transaction's input, as the ABI lays one out. The signer is recovered, so bytes
    that only look like a report are a stranger's."""
    wanted = hour.to_bytes(WORD, "big")
    at = data.find(wanted)
    while at >= 0:
        found = _report_at(data, at, separator)
        if found is not None:
            yield found
        at = data.find(wanted, at + 1)


def reports_that_make(
    rates: Sequence[int], reports: Sequence[SignedFundingReport], quorum: int
) -> tuple[SignedFundingReport, ...]:
    """A quorum of these, one a signer, whose medians are the rates, ascending by signer; as many as possible. Empty where there
    is none. The first MAX_CANDIDATES are tried: at most 2^15 choices."""
    fitting = [one for one in reports if len(one.report.rates_ppb) <= len(rates)][:MAX_CANDIDATES]
    for size in range(len(fitting), quorum - 1, -1):
        for chosen in combinations(fitting, size):
            alone = len({one.signer for one in chosen}) == size
            if alone and median_rates([one.report for one in chosen], len(rates)) == tuple(rates):
                return tuple(sorted(chosen, key=lambda one: one.signer))
    return ()


def same_rates(
    rates: Sequence[int], reports: Sequence[SignedFundingReport], markets: Collection[int]
) -> bool:
    """These reports' medians are the chain's rates, as far as the markets with these ids go."""
    medians = median_rates([one.report for one in reports], max(markets, default=-1) + 1)
    return all(medians[market] == (rates[market] if market < len(rates) else 0) for market in markets)


def _report_at(data: bytes, at: int, separator: bytes) -> SignedFundingReport | None:
    hour, offset, _, r, s, v = (_word(data, at + WORD * field) for field in range(6))
    count = _word(data, at + offset)
    if count > MAX_MARKETS or at + offset + WORD * (count + 1) > len(data):
        return None
    rates = [_signed(_word(data, at + offset + WORD * (number + 1))) for number in range(count)]
    report = FundingReport(hour=hour, rates_ppb=tuple(rates), samples=data[at + 2 * WORD : at + 3 * WORD])
    signature = Signature(r, s, v - FIRST_V)
    try:
        return SignedFundingReport(report, recover(digest(separator, report), signature), signature)
    except SignatureRefused:
        return None


def _word(data: bytes, at: int) -> int:
    """Zero behind the end."""
    return int.from_bytes(data[at : at + WORD], "big")


def _signed(word: int) -> int:
    return word - 2 ** (8 * WORD) if word >> (8 * WORD - 1) else word
