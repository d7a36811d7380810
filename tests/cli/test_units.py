"""Human units: exact both ways, and one line that says what was wrong."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evermark.cli import special, units
from evermark.cli.errors import CliError
from evermark.protocol.markets import load_markets
from evermark.protocol.units import MAX_COLLATERAL, MAX_PRICE_TICKS, MAX_SIZE_LOTS

MARKETS = load_markets()
BTC, AVAX = MARKETS[0], MARKETS[3]


@pytest.mark.parametrize(
    "text, expected",
    [("1", 1_000_000), ("0.000001", 1), ("1,250.5", 1_250_500_000), ("1_000", 10**9), (".5", 500_000)],
)
def test_usdc_reads_what_people_write(text: str, expected: int) -> None:
    """Thousands separators and a bare fraction are fine; the result is exact."""
    assert units.parse_usdc(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e3", "nan", "inf", "1.2.3", "١", "0x10", " 1", "1.", "."])
def test_anything_else_is_refused_with_the_text(text: str) -> None:
    """No sign, exponent, unicode digit or empty text becomes money."""
    with pytest.raises(CliError, match="is no plain decimal number"):
        units.parse_usdc(text)


def test_finer_than_a_unit_is_refused_and_trailing_zeros_are_not() -> None:
    """1.0000000 is one USDC; 0.0000001 is no amount."""
    assert units.parse_usdc("1.0000000") == 1_000_000
    with pytest.raises(CliError, match="more than 6 decimals"):
        units.parse_usdc("0.0000001")
    with pytest.raises(CliError, match="above zero"):
        units.parse_usdc("0.000000")


def test_sizes_and_prices_follow_their_market() -> None:
    """One lot of BTC is 1e-5; one tick of AVAX is 0.001."""
    assert units.parse_size("0.001", BTC) == 100
    assert units.parse_price("28.355", AVAX) == 28_355
    assert units.format_size(-100, BTC) == "-0.001"
    assert units.format_price(1_217_587, BTC) == "121,758.7"
    with pytest.raises(CliError, match=r"price of BTC-PERP.*more than 1 decimals"):
        units.parse_price("100.25", BTC)
    with pytest.raises(CliError, match="size in BTC: must be above zero"):
        units.parse_size("0", BTC)


def test_what_no_signed_field_can_hold_is_refused_with_the_most() -> None:
    """The largest size, price and amount pass; one unit more is one line, and so is a number of thousands of digits."""
    for parse, most, decimals in (
        (lambda text: units.parse_size(text, BTC), MAX_SIZE_LOTS, BTC.size_decimals),
        (lambda text: units.parse_price(text, BTC), MAX_PRICE_TICKS, BTC.price_decimals),
        (units.parse_usdc, MAX_COLLATERAL, units.USDC_DECIMALS),
    ):
        assert parse(units.format_scaled(most, decimals)) == most
        with pytest.raises(CliError, match=re.escape(f"at most {units.format_scaled(most, decimals)}")):
            parse(units.format_scaled(most + 1, decimals))
        with pytest.raises(CliError, match="at most 40 digits, not 5000"):
            parse("9" * 5000)


@given(st.integers(min_value=1, max_value=2**62), st.integers(min_value=0, max_value=9))
def test_printing_and_reading_are_inverse(value: int, decimals: int) -> None:
    """What is printed reads back as the same integer, whatever the scale."""
    assert units.parse_scaled(units.format_scaled(value, decimals), decimals, "value") == value
    assert units.format_scaled(-value, decimals) == "-" + units.format_scaled(value, decimals)


def test_a_market_has_a_symbol_and_a_short_name() -> None:
    """`btc` and `BTC-PERP` are the same; an unknown name lists what exists."""
    assert units.find_market("btc", MARKETS) is units.find_market("BTC-PERP", MARKETS)
    with pytest.raises(CliError, match="no market 'DOGE'; there are BTC-PERP, ETH-PERP"):
        units.find_market("DOGE", MARKETS)


def test_times_are_utc_unless_they_say_otherwise() -> None:
    """The start of the recorded window, in three spellings."""
    assert units.parse_time("2025-10-10T20:50:00Z") == 1_760_129_400
    assert units.parse_time("2025-10-10T20:50:00") == 1_760_129_400
    assert units.parse_time("2025-10-10T22:50:00+02:00") == 1_760_129_400
    assert units.format_time(1_760_129_400) == "2025-10-10 20:50:00"
    with pytest.raises(CliError, match="is not like 2025"):
        units.parse_time("yesterday")


def test_rates_are_per_cent() -> None:
    """12,500 ppb an hour is 0.00125 per cent; a negative rate keeps its sign."""
    assert units.format_rate(12_500) == "0.00125 %/h"
    assert units.format_rate(-40_000_000) == "-4.0000 %/h"


def test_special_orders_are_read_as_typed() -> None:
    """--display, --twap and --builder make options of a limit order; what excludes or does not read is refused by name."""
    market = load_markets()[0]
    typed = special.read("", "3600/60", "0x" + "ab" * 20 + ":500", plain=True)
    assert typed.options(market) == {
        "time_in_force": "IOC",
        "expires_in_s": 3600,
        "twap_interval_s": 60,
        "builder": b"\xab" * 20,
        "builder_fee_ppm": 500,
    }
    assert special.read("0.01", "", "", plain=True).options(market) == {
        "display_size_lots": units.parse_size("0.01", market)
    }
    assert special.read("", "", "", plain=False).options(market) == {}
    for arguments in (("", "soon", ""), ("", "60/x", ""), ("", "", "0x12"), ("1", "60", "")):
        with pytest.raises(CliError):
            special.read(*arguments, plain=True)
    with pytest.raises(CliError):
        special.read("1", "", "", plain=False)
