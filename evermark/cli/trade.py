"""Client commands: deposit, order, cancel, positions, withdraw. Human units in and out."""

from typing import Annotated, Any

import msgspec
import typer

from evermark.cli import conditional, options, output, session, special
from evermark.cli.bank import await_payout, credit, token_balance
from evermark.cli.describe import describe_account, order_row, position_row
from evermark.cli.errors import CliError
from evermark.cli.refusals import about
from evermark.cli.units import (
    find_market,
    format_time,
    format_usdc,
    parse_price,
    parse_scaled,
    parse_size,
    parse_usdc,
)
from evermark.cli.wallet import WalletChoice, dev_key
from evermark.client import EvermarkClient
from evermark.client.models import OrderStatus
from evermark.protocol.markets import Market
from evermark.protocol.units import PPM

POSITION_COLUMNS = (
    "<market",
    "size",
    "entry",
    "mark",
    "notional",
    "unrealized",
    "funding owed",
    "liquidation",
)
ORDER_COLUMNS = ("<market", "<side", "remaining", "price", "<kind", "<hash")

Market_ = Annotated[str, typer.Argument(metavar="MARKET", help="BTC-PERP, or just btc.")]


def deposit(
    amount: Annotated[str, typer.Argument(help="USDC, at least 10 the first time.")],
    url: options.Url = "",
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Deposit USDC from the wallet into its account, and wait until it is credited."""
    units = parse_usdc(amount)
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    session.run(_deposit(url, rpc_url, choice, sub_account, units, as_json))


async def _deposit(
    url: str, rpc_url: str, choice: WalletChoice, sub_account: int, units: int, as_json: bool
) -> None:
    async with await session.open_client(url, rpc_url, choice, sub_account) as client:
        mint_key = dev_key(choice.dev) if choice.dev >= 0 else None
        entry, account = await credit(client, units, mint_key)
    if as_json:
        output.print_json(
            {"inbox_entry": entry, "account": account.account, "collateral": account.collateral}
        )
        return
    output.print_fields(
        {
            "deposited": f"{format_usdc(units)} USDC",
            "collateral": f"{format_usdc(account.collateral)} USDC",
            "account": str(account.account),
            "inbox entry": str(entry),
        }
    )


def order(
    side: Annotated[str, typer.Argument(help="buy or sell.")],
    market: Market_,
    size: Annotated[str, typer.Argument(help="In base: 0.01 is a hundredth of a bitcoin.")],
    price: Annotated[str, typer.Option("--price", help="Limit price in USDC.")] = "",
    at_market: Annotated[bool, typer.Option("--market", help="At once, within --slippage.")] = False,
    slippage: Annotated[str, typer.Option("--slippage", help="Per cent from the best price.")] = "1",
    time_in_force: Annotated[str, typer.Option("--time-in-force", help="GTC, GTD, IOC or FOK.")] = "GTC",
    post_only: Annotated[bool, typer.Option("--post-only", help="Refuse where it would take.")] = False,
    reduce_only: Annotated[bool, typer.Option("--reduce-only", help="Only make a position smaller.")] = False,
    expires_in: Annotated[int, typer.Option("--expires-in", min=0, help="Seconds; 0: the default.")] = 0,
    stop: Annotated[
        str, typer.Option("--stop", help="Wait until the mark falls (buys: rises) to this.")
    ] = "",
    take_profit: Annotated[
        str, typer.Option("--take-profit", help="Wait until the mark rises (buys: falls) to this.")
    ] = "",
    trailing: Annotated[
        str, typer.Option("--trailing", help="A stop that follows the last price at this distance.")
    ] = "",
    may_open: Annotated[
        bool, typer.Option("--may-open", help="A waiting order may open a position.")
    ] = False,
    display: Annotated[str, typer.Option("--display", help="An iceberg shows this much at a time.")] = "",
    twap: Annotated[str, typer.Option("--twap", help="SECONDS[/INTERVAL]: spread it, in slices.")] = "",
    builder: Annotated[str, typer.Option("--builder", help="ADDRESS:PPM, paid beside the fee.")] = "",
    url: options.Url = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Place a limit order (--price) or a market order (--market), now or once a price is met (--stop, --take-profit,
    --trailing; a stop with a take-profit is a bracket: one cancels the other).
    """
    waits = bool(stop or take_profit or trailing)
    conditional.check(stop, take_profit, trailing, price)
    if not waits and bool(price) == at_market:
        raise CliError("order: give either --price or --market")
    if side.lower() not in ("buy", "sell"):
        raise CliError(f"order: side is buy or sell, not {side!r}")
    if time_in_force.upper() not in ("GTC", "GTD", "IOC", "FOK"):
        raise CliError(f"order: --time-in-force is GTC, GTD, IOC or FOK, not {time_in_force!r}")
    if time_in_force.upper() == "GTD" and not expires_in:
        raise CliError("order: GTD needs --expires-in SECONDS")
    wanted = _Wanted(
        side=side.lower(),
        market=market,
        size=size,
        price=price,
        slippage_ppm=_percent_ppm(slippage),
        reduce_only=not may_open if waits else reduce_only,
        condition=conditional.Condition(stop=stop, take_profit=take_profit, trailing=trailing)
        if waits
        else None,
        limit={
            "time_in_force": time_in_force.upper(),
            "post_only": post_only,
            "expires_in_s": expires_in or None,
        },
        special=special.read(display, twap, builder, plain=bool(price) and not waits),
    )
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    session.run(_order(url, choice, sub_account, wanted, as_json))


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    side: str
    market: str
    size: str
    price: str  # empty: a market order
    slippage_ppm: int
    reduce_only: bool
    condition: conditional.Condition | None
    limit: dict[str, Any]  # options of a limit order
    special: special.Special


async def _order(url: str, choice: WalletChoice, sub_account: int, wanted: _Wanted, as_json: bool) -> None:
    async with await session.open_client(url, "", choice, sub_account) as client:
        market = find_market(wanted.market, (await client.exchange()).markets)
        with about(market):
            answers = await _placed(client, market, wanted)
    conditional.show(answers, market, as_json)


async def _placed(client: EvermarkClient, market: Market, wanted: _Wanted) -> list[OrderStatus]:
    """What was asked for: one order, or the two of a bracket."""
    lots = parse_size(wanted.size, market)
    price = parse_price(wanted.price, market) if wanted.price else None
    if wanted.condition is not None:
        return await conditional.place(
            client, market, wanted.side, lots, wanted.condition, price, wanted.reduce_only, wanted.limit
        )
    if price is None:
        answer = await client.place_market(
            market.symbol,
            wanted.side,
            size_lots=lots,
            slippage_ppm=wanted.slippage_ppm,
            reduce_only=wanted.reduce_only,
        )
        return [answer]
    answer = await client.place_limit(
        market.symbol,
        wanted.side,
        size_lots=lots,
        price_ticks=price,
        reduce_only=wanted.reduce_only,
        **wanted.limit | wanted.special.options(market),
    )
    return [answer]


def cancel(
    order_hash: Annotated[str, typer.Argument(metavar="[ORDER]", help="Hash that `order` printed.")] = "",
    all_orders: Annotated[bool, typer.Option("--all", help="Every order of the account.")] = False,
    url: options.Url = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Cancel one order, or all of them."""
    if bool(order_hash) == all_orders:
        raise CliError("cancel: give either an order's hash or --all")
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    cancelled = session.run(_cancel(url, choice, sub_account, order_hash))
    if as_json:
        output.print_json({"cancelled": list(cancelled)})
    else:
        output.print_fields({"cancelled": str(len(cancelled)), "orders": " ".join(cancelled) or "none"})


async def _cancel(url: str, choice: WalletChoice, sub_account: int, order_hash: str) -> tuple[str, ...]:
    async with await session.open_client(url, "", choice, sub_account) as client:
        return await (client.cancel(order_hash) if order_hash else client.cancel_all())


def positions(
    url: options.Url = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Balance, margin, positions and open orders of an account."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    session.run(_positions(url, choice, sub_account, as_json))


async def _positions(url: str, choice: WalletChoice, sub_account: int, as_json: bool) -> None:
    async with await session.open_client(url, "", choice, sub_account) as client:
        account, orders = await client.account(), await client.open_orders()
        markets = (await client.exchange()).markets
    if as_json:
        output.print_json(
            {**msgspec.to_builtins(account), "orders": [msgspec.to_builtins(order) for order in orders]}
        )
        return
    output.print_fields(describe_account(account))
    if account.positions:
        rows = [
            position_row(position, find_market(position.market, markets)) for position in account.positions
        ]
        output.print_table("positions", POSITION_COLUMNS, rows)
    if orders:
        rows = [order_row(order, find_market(order.market, markets)) for order in orders]
        output.print_table("open orders", ORDER_COLUMNS, rows)


def withdraw(
    amount: Annotated[str, typer.Argument(help="USDC.")],
    url: options.Url = "",
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    wait: Annotated[bool, typer.Option(help="Wait until the chain has paid.")] = True,
    as_json: options.AsJson = False,
) -> None:
    """Withdraw USDC to the owner's address, and wait until it is there."""
    units = parse_usdc(amount)
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    session.run(_withdraw(url, rpc_url, choice, sub_account, units, wait, as_json))


async def _withdraw(
    url: str, rpc_url: str, choice: WalletChoice, sub_account: int, units: int, wait: bool, as_json: bool
) -> None:
    async with await session.open_client(url, rpc_url, choice, sub_account) as client:
        before = await token_balance(client)
        receipt = await client.withdraw(amount_units=units)
        wait = wait and not receipt.payable_at
        paid = await await_payout(client, before + receipt.amount - receipt.fee) if wait else None
    if as_json:
        output.print_json({**msgspec.to_builtins(receipt), "paid": paid is not None})
        return
    fields = {
        "withdrawn": f"{format_usdc(receipt.amount)} USDC",
        "fee": f"{format_usdc(receipt.fee)} USDC",
        "settlement batch": str(receipt.batch),
    }
    if receipt.payable_at:
        fields["paid from"] = (
            f"{format_time(receipt.payable_at)} UTC on: more leaves the exchange than its limits let go at once"
        )
    if paid is not None:
        fields["wallet now holds"] = f"{format_usdc(paid)} USDC"
    output.print_fields(fields)


def _percent_ppm(text: str) -> int:
    ppm = parse_scaled(text.rstrip("%"), 4, "--slippage in per cent")
    if ppm > PPM // 2:
        raise CliError("--slippage: at most 50 per cent")
    return ppm
