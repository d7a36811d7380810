"""What the exchange refuses, in one line for a person: amounts, sizes, prices, rates and times with their units."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from evermark.cli.errors import CliError
from evermark.cli.units import checksum, format_price, format_rate_ppm, format_size, format_time, format_usdc
from evermark.client import EvermarkError, Refused
from evermark.protocol.markets import Market

MODES = ("normal", "post-only", "reduce-only", "cancel-only", "halted", "settled")

# What a number of a refusal's details is. Some names mean one thing in one refusal and another elsewhere: those come with
# the refusal's name, or with the field that it is about.
AMOUNT, SIZE, PRICE, RATE, TIME, TIME_MS, SECONDS, MILLISECONDS, MODE = range(9)
KINDS = {
    "required": AMOUNT,
    "available": AMOUNT,
    "requested": AMOUNT,
    "withdrawable": AMOUNT,
    "equity": AMOUNT,
    "maintenance_margin": AMOUNT,
    "notional": AMOUNT,
    "min_notional": AMOUNT,
    "max_fee": AMOUNT,
    "fee": AMOUNT,
    "amount": AMOUNT,
    "BELOW_FIRST_DEPOSIT least": AMOUNT,
    "ABOVE_TRANSFER_CAP cap": AMOUNT,
    "OPEN_INTEREST_CAP cap": SIZE,
    "open_interest": SIZE,
    "size": SIZE,
    "filled": SIZE,
    "fillable": SIZE,
    "wanted": SIZE,
    "ABOVE_MAX_SIZE most": SIZE,
    "display_size value": SIZE,
    "display_size least": SIZE,
    "size value": SIZE,
    "size least": SIZE,
    "size most": SIZE,
    "mark": PRICE,
    "lowest": PRICE,
    "highest": PRICE,
    "best": PRICE,
    "price": PRICE,
    "trigger": PRICE,
    "limit_price value": PRICE,
    "limit_price least": PRICE,
    "limit_price most": PRICE,
    "fee_ppm": RATE,
    "max_fee_ppm": RATE,
    "expiry": TIME,
    "agent_expiry most": TIME,
    "deadline": TIME,
    "now": TIME,
    "until": TIME,
    "updated_at": TIME,
    "round_s": TIME,
    "created": TIME,
    "chain_time": TIME,
    "expiry value": TIME,
    "expiry least": TIME,
    "stamp_ms": TIME_MS,
    "age_s": SECONDS,
    "twap_interval value": SECONDS,
    "twap_interval least": SECONDS,
    "twap_interval most": SECONDS,
    "retry_after_ms": MILLISECONDS,
    "mode": MODE,
}
SHOWN: dict[int, Callable[[int], str]] = {
    AMOUNT: lambda value: f"{format_usdc(value)} USDC",
    RATE: format_rate_ppm,
    TIME: lambda value: f"{format_time(value)} UTC",
    TIME_MS: lambda value: f"{format_time(value // 1_000)} UTC",
    SECONDS: lambda value: f"{value} s",
    MILLISECONDS: lambda value: f"{-(-value // 1_000)} s",
    MODE: lambda value: MODES[value] if value < len(MODES) else str(value),
}


def explain(error: EvermarkError, market: Market | None = None) -> str:
    """One line for an error of the client; `market` is what it was about."""
    if not isinstance(error, Refused):
        return str(error)
    numbers = ", ".join(_number(error, name, value, market) for name, value in error.details.items())
    return f"{error.name}: {error.message}" + (f" ({numbers})" if numbers else "")


@contextmanager
def about(market: Market) -> Iterator[None]:
    """Refusals in the block tell sizes and prices in the market's units."""
    try:
        yield
    except EvermarkError as error:
        raise CliError(explain(error, market)) from None


def _number(error: Refused, name: str, value: int | str, market: Market | None) -> str:
    told = name.removesuffix("_ms").removesuffix("_ppm").removesuffix("_s").replace("_", " ")
    text = str(value)
    if not text.removeprefix("-").isdecimal():
        return f"{told} {checksum(text)}"
    names = (f"{error.name} {name}", f"{error.field} {name}", name)
    kind = next((KINDS[key] for key in names if key in KINDS), None)
    if kind in SHOWN:
        return f"{told} {SHOWN[kind](int(text))}"
    if market is not None and kind == SIZE:
        return f"{told} {format_size(int(text), market)} {market.base}"
    if market is not None and kind == PRICE:
        return f"{told} {format_price(int(text), market)} USDC"
    unit = {SIZE: " lots", PRICE: " ticks"}.get(kind, "") if kind is not None else ""
    return f"{told} {text}{unit}"
