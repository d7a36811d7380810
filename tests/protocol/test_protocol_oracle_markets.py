"""Rounds, Merkle proofs, the list of markets, and refusals as JSON."""

import pytest
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from evermark.protocol.markets import load_markets
from evermark.protocol.merkle import merkle_proof, merkle_root, proof_root
from evermark.protocol.oracle import (
    SETTLED_BIT,
    MarketPrice,
    Round,
    accepted,
    aggregate,
    lower_median,
    median_rates,
    pack_price,
    prices_hash,
    round_words,
)
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.signing import FundingReport, PriceReport
from evermark.protocol.units import BrokenInvariant, check

TICKS = st.integers(1, 2**32 - 1)
HASHES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=20)


@given(st.lists(st.tuples(TICKS, TICKS, st.integers(0, 4)), min_size=3, max_size=9), st.integers(2, 3))
def test_a_round_is_the_lower_median(given_prices, quorum):
    """One dishonest report of three moves nothing beyond the honest ones; too few keep the old price and its
    age."""
    old = MarketPrice(7, 8, 9)
    reports = [
        PriceReport(round=20, timestamp=100 + late, prices=(pack_price(index, mark), 0))
        for index, mark, late in given_prices
    ]
    made = aggregate(reports, quorum, (old, old), (0, 0))
    indices = sorted(index for index, _, _ in given_prices)
    assert made.prices[0].index_ticks == indices[(len(indices) - 1) // 2]
    assert (
        made.prices[0].updated_at == made.timestamp == lower_median([report.timestamp for report in reports])
    )
    assert made.prices[1] == old


@given(st.lists(st.tuples(TICKS, TICKS, st.integers(0, 2**40 - 1)), max_size=7))
def test_round_words_pack_two_markets_each(prices):
    """A header and half a word per market; every change of a price changes the hash."""
    made = Round(5, 30, tuple(MarketPrice(*price) for price in prices))
    words = round_words(made)
    assert len(words) == 1 + (len(prices) + 1) // 2
    assert words[0] == 5 | 30 << 40
    for at, (index, mark, updated) in enumerate(prices):
        half = words[1 + at // 2] >> 128 * (at % 2) & (2**128 - 1)
        assert half == index | mark << 32 | updated << 64
    assert prices_hash(made) == keccak(b"".join(word.to_bytes(32, "big") for word in words))


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**6))
def test_freshness(updated_at, now, max_age):
    """An unpriced market is never fresh; the last second of the age still is."""
    assert not MarketPrice(0, 0, updated_at).is_fresh(now, max_age)
    assert MarketPrice(1, 1, updated_at).is_fresh(now, max_age) == (now - updated_at <= max_age)


@pytest.mark.safety("A03", "sequencer")
@pytest.mark.parametrize(
    ("told", "becomes"), [(153, 152), (152, 152), (151, 151), (148, 148), (147, 148), (1, 148)]
)
def test_a_price_reaches_to_the_tick_above_its_band(told, becomes):
    """One percent of 150 in ten seconds is a tick and a half: two are let through, the rest is held back."""
    price = accepted(MarketPrice(150, 150, 1_000), told, 150, 1_010, 1_000)
    assert (price.index_ticks, price.mark_ticks, price.clamped) == (becomes, 150, told != becomes)


@pytest.mark.parametrize("told", [0, pack_price(505, 495)])
def test_a_settled_market_has_one_price(told):
    """The one that it was settled at, whether any is reported or not; a market with a band moves, or keeps its old price."""
    old = MarketPrice(500, 500, 90)
    report = PriceReport(round=20, timestamp=100, prices=(told, told))
    live, settled = aggregate([report], 1, (old, old), (1_000, 1_000 | 777 << SETTLED_BIT)).prices
    assert settled == MarketPrice(777, 777, 100)
    assert live == (MarketPrice(505, 495, 100) if told else old)


def test_median_rates_are_per_market():
    """Each market's own lower median."""
    reports = [FundingReport(hour=1, rates_ppb=(rate, -rate), samples=bytes(32)) for rate in (5, 1, 9, 3)]
    assert median_rates(reports, 2) == (3, -5)


@given(HASHES, st.data())
def test_merkle_proofs_lead_to_the_root(hashes, data):
    """Every order proves its place, and no other order with the same proof."""
    at = data.draw(st.integers(0, len(hashes) - 1))
    proof = merkle_proof(hashes, at)
    assert proof_root(hashes[at], proof) == merkle_root(hashes)
    other = bytes(32) if hashes[at] != bytes(32) else b"\x01" * 32
    assert proof_root(other, proof) != merkle_root(hashes)


def test_merkle_nodes_are_tagged():
    """An inner node cannot pass for an order, and an empty list has no root."""
    left, right = b"\x01" * 32, b"\x02" * 32
    inner = keccak(b"\x00" + left) + keccak(b"\x00" + right)
    assert merkle_root([left, right]) == keccak(b"\x01" + inner)
    assert merkle_root([left, right]) != merkle_root([keccak(inner)])
    with pytest.raises(ValueError, match="at least one"):
        merkle_root([])


def test_the_packaged_markets_load():
    """Ids are dense, symbols unique, units exact."""
    markets = load_markets()
    assert [market.market_id for market in markets] == list(range(len(markets)))
    for market in markets:
        assert market.lot_tick_value == 10 ** (6 - market.size_decimals - market.price_decimals)
        assert market.max_leverage == 10**6 // market.tiers[0].initial_fraction_ppm
        assert market.notional(-3, 7) == -21 * market.lot_tick_value


@pytest.mark.safety("F04", "sequencer")
@pytest.mark.parametrize(
    "change, message",
    [
        (("mark_band_ppm = 4000", "mark_band_ppm = 5000"), "mark band"),
        (("maker_fee_ppm = 100", "maker_fee_ppm = -500"), "rebate"),
        (("liquidation_fee_ppm = 5000", "liquidation_fee_ppm = 10001"), "liquidation fee"),
        (("size_decimals = 5", "size_decimals = 9"), "finer"),
        (("market_id = 1", "market_id = 7"), "dense"),
        (('symbol = "ETH-PERP"', 'symbol = "BTC-PERP"'), "unique"),
        (("[[0, 40], [5000000, 20]", "[[0, 20], [5000000, 40]"), "tiers ascend"),
        (("[[0, 40], [5000000, 20]", "[[5, 40], [5000000, 20]"), "first tier"),
    ],
)
def test_a_market_outside_the_hard_bounds_does_not_load(tmp_path, change, message):
    """The bound that is broken is named."""
    import evermark.protocol.markets as module

    text = (module.resources.files("evermark.protocol") / "markets.toml").read_text()
    assert change[0] in text
    path = tmp_path / "markets.toml"
    path.write_text(text.replace(*change, 1))
    with pytest.raises(ValueError, match=message):
        load_markets(path)


def test_refusals_keep_large_integers_exact():
    """JSON numbers above 2^53 lose digits in many readers, so they travel as strings."""
    refused = Reject(
        code=RejectCode.INSUFFICIENT_MARGIN, message="no", field="size", details={"a": 2**53, "b": 2**53 + 1}
    )
    assert refused.to_json() == {
        "code": 300,
        "name": "INSUFFICIENT_MARGIN",
        "message": "no",
        "field": "size",
        "details": {"a": 2**53, "b": str(2**53 + 1)},
    }


def test_check_survives_optimisation():
    """A broken invariant stops with its reason."""
    check(True, "fine")
    with pytest.raises(BrokenInvariant, match="why"):
        check(False, "why")
