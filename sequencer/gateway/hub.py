"""Fan-out: a message is encoded once and offered to every socket that listens. Offering never waits."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from sequencer.gateway.services import Services
from sequencer.gateway.views import account_json
from sequencer.market_data import AccountChange

FLUSH_S = 0.02  # changes within this time travel in one message
STATUS_S = 1.0
SNAPSHOT_ORDERS = 1_000

Topic = tuple[str, str]  # (channel, market symbol, account id as text, or "")


class Listener(Protocol):
    """A connection that takes messages."""

    def offer(self, payload: bytes) -> None:
        """Queue a message, or end the connection when it does not read."""


class Hub:
    """Who listens to what, and the task that brings them the news."""

    def __init__(self, services: Services, status: Callable[[], dict[str, Any]]) -> None:
        self._services = services
        self._status = status
        self._listeners: dict[Topic, set[Listener]] = {}

    def publish(self, topic: Topic, payload: bytes) -> None:
        """Offer an encoded message to everybody who listens to a topic."""
        for listener in tuple(self._listeners.get(topic, ())):
            listener.offer(payload)

    async def subscribe(self, listener: Listener, topic: Topic) -> None:
        """Send the topic's snapshot, then everything that follows on it."""
        channel, about = topic
        if channel == "account":
            await self._join_account(listener, topic, int(about))
            return
        if channel == "book":
            delta, snapshot = self._services.market_data.book_snapshot(about)
            if delta is not None:
                self.publish(topic, msgspec.json.encode(delta))
            listener.offer(snapshot)
        elif channel == "trades":
            listener.offer(self._services.market_data.trades_snapshot(about))
        elif channel == "prices":
            listener.offer(self._services.market_data.prices_message())
        else:
            listener.offer(self._status_message())
        self._listeners.setdefault(topic, set()).add(listener)

    def unsubscribe(self, listener: Listener, topic: Topic) -> None:
        """Stop; unknown subscriptions are nothing."""
        listeners = self._listeners.get(topic)
        if listeners is None:
            return
        listeners.discard(listener)
        if not listeners:
            del self._listeners[topic]
            if topic[0] == "account":
                self._services.market_data.unwatch(int(topic[1]))

    async def run(self) -> None:
        """Bring changes until cancelled."""
        market_data = self._services.market_data
        market_data.go_live()
        telling = asyncio.create_task(self._tell_status(), name="gateway-status")
        try:
            while True:
                await market_data.changed.wait()
                market_data.changed.clear()
                for topic, payload in market_data.drain():
                    self.publish(topic, payload)
                for account_id, change in market_data.drain_accounts():
                    self._publish_account(account_id, change)
                await asyncio.sleep(FLUSH_S)
        finally:
            telling.cancel()

    async def _tell_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_S)
            if ("status", "") in self._listeners:
                self.publish(("status", ""), self._status_message())

    def _status_message(self) -> bytes:
        return msgspec.json.encode({"channel": "status", "type": "update"} | self._status())

    async def _join_account(self, listener: Listener, topic: Topic, account_id: int) -> None:
        """Snapshot of one account. Changes during the query are gathered, and told after it."""
        self._services.market_data.watch(account_id)
        orders = await self._services.history.orders(account_id, SNAPSHOT_ORDERS, 0, "open")
        account = self._services.state.accounts[account_id]
        self._services.market_data.watch(account_id)  # another listener may have left meanwhile
        message = self._about(account_id) | {
            "type": "snapshot",
            "sequence": self._services.state.sequence,
            "account": account_json(self._services.state, account),
            "orders": orders,
        }
        listener.offer(msgspec.json.encode(message))
        self._listeners.setdefault(topic, set()).add(listener)

    def _publish_account(self, account_id: int, change: AccountChange) -> None:
        records = (self._services.history.order(order_hash) for order_hash in change.orders)
        account = self._services.state.accounts.get(account_id)
        if account is None:
            return  # a reversal took its registration back; it comes again in a moment
        message = self._about(account_id) | {
            "type": "update",
            "sequence": change.sequence,
            "orders": [record.view() for record in records if record is not None],
            "fills": change.fills,
            "account": account_json(self._services.state, account),
        }
        if change.voided is not None:
            message["voided_trades"] = list(change.voided)
        self.publish(("account", str(account_id)), msgspec.json.encode(message))

    def _about(self, account_id: int) -> dict[str, Any]:
        account = self._services.state.accounts[account_id]
        owner = "0x" + account.owner.hex()
        return {"channel": "account", "owner": owner, "sub_account": account.sub_account}
