"""A round from reports, written from docs/oracle.md: plain tuples, fractions, and no code of the project."""

from fractions import Fraction
from math import ceil

from eth_hash.auto import keccak

CALM = 3
NEVER = (0, 0, 0, False, 0)  # index, mark, updated at, clamped, calm rounds


def lower_median(values):
    ordered = sorted(values)
    while len(ordered) > 2:
        ordered = ordered[1:-1]
    return ordered[0]


def held_back(new, last, band):
    """`new`, or the end of the band around `last` that it lies beyond; a band reaches a whole tick further."""
    reach = ceil(last * band)
    if new > last + reach:
        return last + reach
    if new < last - reach:
        return last - reach
    return new


def next_price(last, index, mark, timestamp, jump_ppm):
    """A market's price after the medians `index` and `mark`."""
    last_index, last_mark, updated_at, clamped, calm = last
    if updated_at == 0:
        return index, mark, timestamp, False, 0
    band = Fraction(jump_ppm, 10**6) * (timestamp - updated_at)
    new = held_back(index, last_index, band), held_back(mark, last_mark, band)
    if new != (index, mark):
        return *new, timestamp, True, 0
    if clamped and calm + 1 < CALM:
        return *new, timestamp, True, calm + 1
    return *new, timestamp, False, 0


def make_round(reports, quorum, lasts, jumps_ppm):
    """`reports` are (timestamp, [(index, mark) or None by market]); returns (timestamp, prices)."""
    timestamp = lower_median([when for when, _ in reports])
    prices = []
    for market, (last, jump_ppm) in enumerate(zip(lasts, jumps_ppm, strict=True)):
        given = [row[market] for _, row in reports if market < len(row) and row[market] is not None]
        if len(given) < quorum:
            prices.append(last)
        else:
            index, mark = lower_median([a for a, _ in given]), lower_median([b for _, b in given])
            prices.append(next_price(last, index, mark, timestamp, jump_ppm))
    return timestamp, prices


def words_hash(round_):
    """keccak of a round as the ring holds it: 256 bits of round and time, then 128 bits a market, two to a word."""
    halves = [
        price.index_ticks + 2**32 * price.mark_ticks + 2**64 * price.updated_at
        + 2**104 * price.clamped + 2**105 * price.calm_rounds
        for price in round_.prices
    ]  # fmt: skip
    halves += [0] * (len(halves) % 2)
    words = [round_.round + 2**40 * round_.timestamp]
    words += [low + 2**128 * high for low, high in zip(halves[::2], halves[1::2], strict=True)]
    return keccak(b"".join(word.to_bytes(32, "big") for word in words))
