"""Orders, accounts and positions as lines and table rows for people."""

from decimal import ROUND_HALF_EVEN, Decimal

from evermark.cli.units import checksum, format_price, format_size, format_time, format_usdc
from evermark.client.models import AccountInfo, OrderStatus, Position
from evermark.protocol.markets import Market


def describe_order(answer: OrderStatus, market: Market) -> dict[str, str]:
    """An order's answer, line by line."""
    fields = {
        "order": answer.order_hash,
        "status": answer.status + (f" ({answer.reason})" if answer.reason else ""),
        "filled": f"{format_size(answer.filled, market)} of {format_size(answer.size, market)} {market.base}",
    }
    if answer.status == "untriggered":
        fields["waits for"] = f"{answer.trigger} {format_price(answer.trigger_price, market)} USDC"
    if answer.average_price is not None:
        fields["average price"] = f"{decimal_price(answer.average_price, market)} USDC"
        fields["fee"] = f"{format_usdc(answer.fee)} USDC"
    return fields


def describe_account(account: AccountInfo) -> dict[str, str]:
    """Balance and margin, line by line."""
    amounts = {
        "collateral": account.collateral,
        "equity": account.equity,
        "initial margin": account.initial_margin,
        "maintenance margin": account.maintenance_margin,
        "withdrawable": account.withdrawable,
    }
    head = {
        "account": f"{account.account} (owner {checksum(account.owner)}, sub-account {account.sub_account})"
    }
    later = {
        f"withdrawal {one.claim}": f"{format_usdc(one.amount)} USDC, paid from {format_time(one.payable_at)} UTC on"
        for one in account.delayed_withdrawals
    }
    return head | {name: f"{format_usdc(amount)} USDC" for name, amount in amounts.items()} | later


def position_row(position: Position, market: Market) -> tuple[str, ...]:
    """One line of the table of positions."""
    liquidation = position.liquidation_price
    return (
        position.market,
        format_size(position.size, market),
        decimal_price(position.entry_price, market),
        format_price(position.mark, market),
        format_usdc(position.notional),
        format_usdc(position.unrealized_pnl),
        format_usdc(position.funding_owed),
        "-" if liquidation is None else format_price(liquidation, market),
    )


def order_row(order: OrderStatus, market: Market) -> tuple[str, ...]:
    """One line of the table of open orders."""
    flags = [order.time_in_force, "post-only" * order.post_only, "reduce-only" * order.reduce_only]
    if order.status == "untriggered":
        flags.append(f"{order.trigger} {format_price(order.trigger_price, market)}")
    return (
        order.market,
        order.side,
        format_size(order.remaining, market),
        format_price(order.limit_price, market),
        " ".join(flag for flag in flags if flag),
        order.order_hash,
    )


def decimal_price(ticks: str, market: Market) -> str:
    """Decimal text in ticks, as averages come -> price with one decimal more than the market's."""
    places = market.price_decimals + 1
    price = Decimal(ticks).scaleb(-market.price_decimals)
    return f"{price.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN):,}"
