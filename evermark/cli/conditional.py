"""`evermark order` with --stop, --take-profit or --trailing: orders that wait for a price."""

from typing import Any

import msgspec

from evermark.cli import output
from evermark.cli.describe import describe_order
from evermark.cli.errors import CliError
from evermark.cli.units import parse_price
from evermark.client import EvermarkClient
from evermark.client.models import OrderStatus
from evermark.protocol.markets import Market


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What the person typed; empty for what was not given."""

    stop: str
    take_profit: str
    trailing: str


def check(stop: str, take_profit: str, trailing: str, price: str) -> None:
    """Raises CliError for conditions that exclude each other."""
    if trailing and take_profit:
        raise CliError("order: --trailing is a stop; it does not go with --take-profit")
    if stop and take_profit and price:
        raise CliError("order: a bracket closes at market; leave --price out")


async def place(
    client: EvermarkClient,
    market: Market,
    side: str,
    lots: int,
    condition: Condition,
    price: int | None,
    reduce_only: bool,
    limit: dict[str, Any],
) -> list[OrderStatus]:
    """The order, or both orders of a bracket."""
    expires_in_s = limit["expires_in_s"]
    if condition.stop and condition.take_profit:
        bracket = await client.place_bracket(
            market.symbol,
            side,
            size_lots=lots,
            stop_ticks=parse_price(condition.stop, market),
            take_profit_ticks=parse_price(condition.take_profit, market),
            expires_in_s=expires_in_s,
        )
        return list(bracket)
    common: dict[str, Any] = {
        "size_lots": lots,
        "price_ticks": price,
        "reduce_only": reduce_only,
        "expires_in_s": expires_in_s,
    }
    if condition.take_profit:
        ticks = parse_price(condition.take_profit, market)
        return [await client.place_take_profit(market.symbol, side, trigger_ticks=ticks, **common)]
    stop = parse_price(condition.stop, market) if condition.stop else None
    trailing = condition.trailing or None
    return [await client.place_stop(market.symbol, side, trigger_ticks=stop, trailing=trailing, **common)]


def show(answers: list[OrderStatus], market: Market, as_json: bool) -> None:
    """What was placed: one JSON value, a list for a bracket; or lines."""
    if as_json:
        found = [msgspec.to_builtins(answer) for answer in answers]
        output.print_json(found[0] if len(found) == 1 else found)
        return
    for answer in answers:
        output.print_fields(describe_order(answer, market))
