"""Human units at the edge: decimal text in, decimal text out, integers between. No float anywhere."""

import re
from datetime import UTC, datetime

from evermark.cli.errors import CliError
from evermark.protocol.markets import Market
from evermark.protocol.units import MAX_COLLATERAL, MAX_PRICE_TICKS, MAX_SIZE_LOTS

USDC_DECIMALS = 6
WEI_DECIMALS = 18
RATE_DECIMALS = 7  # one ppb is 1e-7 per cent
MAX_DIGITS = 40  # no exact number here needs more
_ADDRESS = re.compile("(0x)?[0-9a-fA-F]{40}")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+", re.ASCII)


def parse_scaled(text: str, decimals: int, what: str) -> int:
    """Exact decimal text -> integer of 10^-decimals; refuses signs, exponents, further digits."""
    plain = text.replace("_", "").replace(",", "")
    if not _DECIMAL.fullmatch(plain):
        raise CliError(f"{what}: {text!r} is no plain decimal number")
    if len(plain) > MAX_DIGITS:
        raise CliError(f"{what}: a number has at most {MAX_DIGITS} digits, not {len(plain)}")
    whole, _, fraction = plain.partition(".")
    if len(fraction.rstrip("0")) > decimals:
        raise CliError(f"{what}: {text} has more than {decimals} decimals")
    return int((whole or "0") + fraction[:decimals].ljust(decimals, "0"))


def format_scaled(value: int, decimals: int, least: int = 0) -> str:
    """Integer of 10^-decimals -> decimal text with thousands separators and at least `least` decimals."""
    sign, digits = "-" if value < 0 else "", str(abs(value)).rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    fraction = fraction.rstrip("0").ljust(least, "0")
    return f"{sign}{int(whole):,}" + (f".{fraction}" if fraction else "")


def parse_usdc(text: str, what: str = "amount") -> int:
    """USDC as people write it -> quote units of 1e-6."""
    return _within(parse_scaled(text, USDC_DECIMALS, what), MAX_COLLATERAL, USDC_DECIMALS, what, "USDC")


def format_usdc(amount: int | str) -> str:
    """Quote units -> USDC with at least two decimals."""
    return format_scaled(int(amount), USDC_DECIMALS, least=2)


def parse_size(text: str, market: Market) -> int:
    """Base size -> lots of `market`."""
    what, decimals = f"size in {market.base}", market.size_decimals
    return _within(parse_scaled(text, decimals, what), MAX_SIZE_LOTS, decimals, what, market.base)


def format_size(lots: int, market: Market) -> str:
    """Lots, signed for positions -> base size."""
    return format_scaled(lots, market.size_decimals)


def parse_price(text: str, market: Market) -> int:
    """Price in quote per base -> ticks of `market`."""
    what, decimals = f"price of {market.symbol}", market.price_decimals
    return _within(parse_scaled(text, decimals, what), MAX_PRICE_TICKS, decimals, what, "USDC")


def format_price(ticks: int, market: Market) -> str:
    """Ticks -> price with all the decimals of the market."""
    return format_scaled(ticks, market.price_decimals, least=market.price_decimals)


def format_rate(rate_ppb: int) -> str:
    """Hourly funding rate in ppb -> per cent text."""
    return format_scaled(rate_ppb, RATE_DECIMALS, least=4) + " %/h"


def format_rate_ppm(rate_ppm: int) -> str:
    """Parts per million -> per cent text."""
    return format_scaled(rate_ppm, 4) + " %"


def find_market(name: str, markets: tuple[Market, ...]) -> Market:
    """`BTC-PERP`, `btc-perp` or `btc` -> the market; refuses with the list of what exists."""
    wanted = name.upper()
    for market in markets:
        if wanted in (market.symbol, market.base):
            return market
    raise CliError(f"no market {name!r}; there are {', '.join(market.symbol for market in markets)}")


def parse_time(text: str) -> int:
    """ISO 8601 date and time, UTC unless it names a zone -> unix seconds."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(f"time: {text!r} is not like 2025-10-10T20:50:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def format_time(time_s: int) -> str:
    """Unix seconds -> `2025-10-10 20:50:00` in UTC."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def format_ether(wei: int) -> str:
    """Wei -> ether, exact."""
    return format_scaled(wei, WEI_DECIMALS) + " ether"


def checksum(address: str) -> str:
    """An address with the capitals of EIP-55, by which a typing error shows; any other text as it is."""
    from eth_utils.address import to_checksum_address  # takes a tenth of a second to load

    return to_checksum_address(address) if _ADDRESS.fullmatch(address) else address


def _within(number: int, most: int, decimals: int, what: str, unit: str) -> int:
    """What an order or a request can say at all; whether the exchange takes it is the exchange's to judge."""
    if number == 0:
        raise CliError(f"{what}: must be above zero")
    if number > most:
        raise CliError(f"{what}: at most {format_scaled(most, decimals)} {unit}")
    return number
