"""The plain client: the same verbs without async, for scripts and the interactive prompt."""

import asyncio
import queue
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from evermark.client.batches import NewOrder
from evermark.client.client import EvermarkClient
from evermark.client.errors import Refused
from evermark.client.models import (
    AccountInfo,
    AgentReceipt,
    Book,
    ExchangeInfo,
    Fill,
    OrderStatus,
    Position,
    QueuePlace,
    TransferReceipt,
    WithdrawReceipt,
)
from evermark.client.units import Human
from evermark.protocol.orders import Side
from evermark.protocol.signing import Signer

Result = TypeVar("Result")


class Evermark:
    """`EvermarkClient` for plain code: use as `with Evermark(url, key) as exchange`. Arguments are the
    same.
    """

    def __init__(self, url: str, signer: Signer | bytes | str, sub_account: int = 0, **options: Any) -> None:
        self._client = EvermarkClient(url, signer, sub_account, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="evermark-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Evermark":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and the background loop."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def owner(self) -> str:
        """The account's owner as 0x-hex."""
        return self._client.owner_text

    def buy(self, market: str, size: Human, price: Human, **options: Any) -> OrderStatus:
        """A limit buy; options as in `EvermarkClient.place_limit`."""
        return self._run(self._client.place_limit(market, Side.BUY, size, price, **options))

    def sell(self, market: str, size: Human, price: Human, **options: Any) -> OrderStatus:
        """A limit sell; options as in `EvermarkClient.place_limit`."""
        return self._run(self._client.place_limit(market, Side.SELL, size, price, **options))

    def market_buy(self, market: str, size: Human, **options: Any) -> OrderStatus:
        """A market buy; options as in `EvermarkClient.place_market`."""
        return self._run(self._client.place_market(market, Side.BUY, size, **options))

    def market_sell(self, market: str, size: Human, **options: Any) -> OrderStatus:
        """A market sell; options as in `EvermarkClient.place_market`."""
        return self._run(self._client.place_market(market, Side.SELL, size, **options))

    def twap(self, market: str, side: str, size: Human, price: Human, **options: Any) -> OrderStatus:
        """A TWAP; options as in `EvermarkClient.place_twap`."""
        return self._run(self._client.place_twap(market, side, size, price, **options))

    def stop(self, market: str, side: str, size: Human, trigger: Human, **options: Any) -> OrderStatus:
        """A stop; options as in `EvermarkClient.place_stop`."""
        return self._run(self._client.place_stop(market, side, size, trigger, **options))

    def take_profit(self, market: str, side: str, size: Human, trigger: Human, **options: Any) -> OrderStatus:
        """A take-profit; options as in `EvermarkClient.place_take_profit`."""
        return self._run(self._client.place_take_profit(market, side, size, trigger, **options))

    def bracket(self, market: str, side: str, size: Human, **options: Any) -> tuple[OrderStatus, OrderStatus]:
        """A stop and a take-profit that cancel each other; options as in `EvermarkClient.place_bracket`."""
        return self._run(self._client.place_bracket(market, side, size, **options))

    def place_many(self, orders: Sequence[NewOrder]) -> list[OrderStatus | Refused]:
        """Up to 64 orders under one signature of an agent's key."""
        return self._run(self._client.place_many(orders))

    def amend(self, order: OrderStatus | str, **changes: Any) -> OrderStatus:
        """Change size or price of a resting order."""
        return self._run(self._client.amend(order, **changes))

    def cancel(self, order: OrderStatus | str) -> tuple[str, ...]:
        """Cancel one order; the hashes that left the book."""
        return self._run(self._client.cancel(order))

    def cancel_all(self) -> tuple[str, ...]:
        """Cancel every order of the account."""
        return self._run(self._client.cancel_all())

    def withdraw(self, amount: Human, **options: Any) -> WithdrawReceipt:
        """Withdraw USDC to the owner on-chain."""
        return self._run(self._client.withdraw(amount, **options))

    def transfer(self, to_sub_account: int, amount: Human) -> TransferReceipt:
        """Move USDC to another sub-account of the owner."""
        return self._run(self._client.transfer(to_sub_account, amount))

    def deposit(self, amount: Human) -> int:
        """Deposit USDC on-chain (needs `rpc_url`) and wait for the credit; the inbox entry's id."""
        return self._run(self._client.deposit(amount))

    def approve_agent(self, agent: bytes | str, **options: Any) -> AgentReceipt:
        """Let another key trade for this account."""
        return self._run(self._client.approve_agent(agent, **options))

    def exchange(self) -> ExchangeInfo:
        """The exchange's fixed facts."""
        return self._run(self._client.exchange())

    def status(self) -> dict[str, Any]:
        """Rounds, batches and prices."""
        return self._run(self._client.status())

    def book(self, market: str, depth: int = 50) -> Book:
        """The order book."""
        return self._run(self._client.book(market, depth))

    def deleveraging(self) -> list[QueuePlace]:
        """Where each open position stands in the queue of auto-deleveraging."""
        return self._run(self._client.deleveraging())

    def account(self) -> AccountInfo:
        """Balance, margin and positions."""
        return self._run(self._client.account())

    def positions(self) -> tuple[Position, ...]:
        """Open positions."""
        return self._run(self._client.positions())

    def open_orders(self) -> list[OrderStatus]:
        """Orders waiting in the books."""
        return self._run(self._client.open_orders())

    def fills(self, limit: int = 100) -> list[Fill]:
        """Executions, newest first."""
        return self._run(self._client.fills(limit))

    def order_status(self, order_hash: str = "", *, client_id: str = "") -> OrderStatus:
        """The truth about an order."""
        return self._run(self._client.order_status(order_hash, client_id=client_id))

    def subscribe(self, channel: str, market: str = "") -> Iterator[dict[str, Any]]:
        """Messages of a channel, for ever; close the iterator to stop."""
        messages: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()

        async def pump() -> None:
            try:
                async for message in self._client.subscribe(channel, market):
                    messages.put(message)
            except Exception as error:  # handed to the reader's thread, which raises it
                messages.put(error)

        pumping = asyncio.run_coroutine_threadsafe(pump(), self._loop)
        try:
            while True:
                message = messages.get()
                if isinstance(message, BaseException):
                    raise message
                yield message
        finally:
            pumping.cancel()

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
