"""Human units become integers exactly, or not at all."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evermark.client import NotRepresentable
from evermark.client.units import from_lots, from_ticks, to_lots, to_quote_units, to_ticks
from evermark.protocol.markets import load_markets

BTC = load_markets()[0]  # 5 size decimals, 1 price decimal


@pytest.mark.parametrize(
    "size, lots", [("0.5", 50_000), (Decimal("0.00001"), 1), (2, 200_000), ("1e-5", 1), ("1.50", 150_000)]
)
def test_sizes(size: str | Decimal | int, lots: int) -> None:
    """A size is a whole number of lots, however it is written."""
    assert to_lots(BTC, size) == lots


@pytest.mark.parametrize(
    "price, ticks", [("64000.1", 640_001), (64_000, 640_000), (Decimal("64000.10"), 640_001)]
)
def test_prices(price: str | Decimal | int, ticks: int) -> None:
    """A price is a whole number of ticks, however it is written."""
    assert to_ticks(BTC, price) == ticks


@pytest.mark.parametrize("value", ["0.000001", "1.123456", "1e-30", "1e-999999999"])
def test_off_lot(value: str) -> None:
    """A finer size than one lot is refused with its name."""
    with pytest.raises(NotRepresentable) as refused:
        to_lots(BTC, value)
    assert refused.value.name == "OFF_LOT"


def test_off_tick() -> None:
    """A price between two ticks is refused with its name, never rounded."""
    with pytest.raises(NotRepresentable) as refused:
        to_ticks(BTC, "64000.15")
    assert refused.value.name == "OFF_TICK"


@pytest.mark.parametrize(
    "value", ["", "x", "NaN", "Infinity", "-1", "0", "1e400", "٣", "1" * 60, "1e999999999"]
)
def test_no_usable_number(value: str) -> None:
    """What is no positive number of a sensible size is refused, in bounded time."""
    with pytest.raises(NotRepresentable):
        to_lots(BTC, value)


@pytest.mark.parametrize("value", [1.5, True, None, b"1"])
def test_floats_are_refused(value: object) -> None:
    """A float is a TypeError: 0.1 is not the number that somebody meant."""
    with pytest.raises(TypeError):
        to_lots(BTC, value)  # type: ignore[arg-type]


@given(st.integers(1, 2**62 - 1), st.integers(1, 2**32 - 1))
def test_round_trip(lots: int, ticks: int) -> None:
    """Integers to human units and back are the same integers."""
    assert to_lots(BTC, from_lots(BTC, lots)) == lots
    assert to_ticks(BTC, str(from_ticks(BTC, ticks))) == ticks


def test_quote_units() -> None:
    """USDC has six decimals."""
    assert to_quote_units("12.5") == 12_500_000
    assert to_quote_units(0) == 0
    with pytest.raises(NotRepresentable):
        to_quote_units("0.0000001")
