"""Public reads over HTTP. What the chain shows to anybody, this shows too: accounts are public by design."""

import asyncio
import re
from typing import Any

from aiohttp import web

from evermark.protocol.batch import FIRST_USER_ACCOUNT
from evermark.protocol.reject import RejectCode
from sequencer.engine.risk import margin_of
from sequencer.engine.state import Account
from sequencer.gateway.answers import Answer, unknown_market
from sequencer.gateway.deleveraging import DeleveragingQueues
from sequencer.gateway.refusal import refuse
from sequencer.gateway.services import Services
from sequencer.gateway.views import account_json, exchange_json, status_json
from sequencer.history.candles import INTERVALS_S
from sequencer.market_feed import TRADES_KEPT

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100
MAX_DEPTH = 1_000
SCAN_SLICE = 100  # accounts looked at before others get the event loop
QUERY_TIMEOUT_S = 5.0
ORDER_STATES = ("", "open", "untriggered", "triggered", "filled", "cancelled", "rejected", "voided")

_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,17})\Z", re.ASCII)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}\Z")


class Reads:
    """Handlers of the GET routes; each returns an Answer or raises Refusal."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._state = services.state
        self._history = services.history
        self._queues = DeleveragingQueues(services.state)

    async def exchange(self, _: web.Request) -> Answer:
        """GET /v1/exchange."""
        return Answer.of(exchange_json(self._state, self._services.facts, self._services.reports.markets))

    async def status(self, _: web.Request) -> Answer:
        """GET /v1/status."""
        return Answer.of(self.status_content())

    def status_content(self) -> dict[str, Any]:
        """What GET /v1/status and the status channel tell."""
        services = self._services
        return status_json(
            self._state, services.market_data, services.now_s(), services.missing(), services.status()
        )

    async def book(self, request: web.Request) -> Answer:
        """GET /v1/markets/{symbol}/book."""
        symbol = self._symbol(request)
        return Answer.of(self._services.market_data.book(symbol, _number(request, "depth", 50, 1, MAX_DEPTH)))

    async def trades(self, request: web.Request) -> Answer:
        """GET /v1/markets/{symbol}/trades."""
        symbol, limit, before = self._symbol(request), _limit(request), _number(request, "before", 0)
        recent = self._services.market_data.trades(symbol, limit)
        if not before and len(recent) == min(limit, TRADES_KEPT):
            return Answer.of(recent)
        return Answer.of(await asyncio.wait_for(self._history.trades(symbol, limit, before), QUERY_TIMEOUT_S))

    async def candles(self, request: web.Request) -> Answer:
        """GET /v1/markets/{symbol}/candles."""
        symbol, interval = self._symbol(request), request.query.get("interval", "1m")
        if interval not in INTERVALS_S:
            known = ", ".join(INTERVALS_S)
            raise refuse(RejectCode.OUT_OF_RANGE, f"interval is one of {known}", "interval")
        start, end = _number(request, "start", 0), _number(request, "end", 0)
        candles = self._history.candles(symbol, interval, start, end)
        return Answer.of(await asyncio.wait_for(candles, QUERY_TIMEOUT_S))

    async def funding(self, request: web.Request) -> Answer:
        """GET /v1/markets/{symbol}/funding."""
        rates = self._history.funding(self._symbol(request), _limit(request))
        return Answer.of(await asyncio.wait_for(rates, QUERY_TIMEOUT_S))

    async def account(self, request: web.Request) -> Answer:
        """GET /v1/accounts/{owner}/{sub_account}."""
        return Answer.of(account_json(self._state, self._account(request)))

    async def account_deleveraging(self, request: web.Request) -> Answer:
        """GET /v1/accounts/{owner}/{sub_account}/deleveraging."""
        return Answer.of(self._queues.of(self._account(request)))

    async def account_orders(self, request: web.Request) -> Answer:
        """GET /v1/accounts/{owner}/{sub_account}/orders."""
        account, status = self._account(request), request.query.get("status", "")
        if status not in ORDER_STATES:
            known = ", ".join(state for state in ORDER_STATES if state)
            raise refuse(RejectCode.OUT_OF_RANGE, f"status is one of {known}", "status")
        orders = self._history.orders(
            account.account_id, _limit(request), _number(request, "before", 0), status
        )
        return Answer.of(await asyncio.wait_for(orders, QUERY_TIMEOUT_S))

    async def account_fills(self, request: web.Request) -> Answer:
        """GET /v1/accounts/{owner}/{sub_account}/fills."""
        account = self._account(request)
        fills = self._history.fills(account.account_id, _limit(request), _number(request, "before", 0))
        return Answer.of(await asyncio.wait_for(fills, QUERY_TIMEOUT_S))

    async def account_funding(self, request: web.Request) -> Answer:
        """GET /v1/accounts/{owner}/{sub_account}/funding."""
        return await self._ledger(request, funding_only=True)

    async def account_ledger(self, request: web.Request) -> Answer:
        """GET /v1/accounts/{owner}/{sub_account}/ledger."""
        return await self._ledger(request, funding_only=False)

    async def accounts(self, request: web.Request) -> Answer:
        """GET /v1/accounts: by id after `after`, or only those below maintenance with `liquidatable=1`."""
        after, limit = _number(request, "after", FIRST_USER_ACCOUNT - 1), _limit(request)
        only_liquidatable = _number(request, "liquidatable", 0, 0, 1) == 1
        found: list[dict[str, Any]] = []
        last = len(self._state.accounts)  # ids count up without gaps
        account_id = max(after, FIRST_USER_ACCOUNT - 1)
        while account_id < last and len(found) < limit:
            account_id += 1
            account = self._state.accounts.get(account_id)
            if account is not None and (not only_liquidatable or self._is_liquidatable(account)):
                found.append(account_json(self._state, account))
                await asyncio.sleep(0)
            if account_id % SCAN_SLICE == 0:
                await asyncio.sleep(0)
        return Answer.of({"accounts": found, "next": account_id if account_id < last else None})

    async def order(self, request: web.Request) -> Answer:
        """GET /v1/orders/{order_hash}."""
        text = request.match_info["order_hash"]
        if not _HASH.match(text):
            raise refuse(RejectCode.MALFORMED, "an order hash is 0x and 64 hex digits", "order_hash")
        order_hash = bytes.fromhex(text[2:])
        record = self._history.order(order_hash)
        if record is None:
            record = await asyncio.wait_for(self._history.find_order(order_hash), QUERY_TIMEOUT_S)
        never = {"status": "never_seen", "order_hash": "0x" + order_hash.hex()}
        return Answer.of(never if record is None else record.view())

    async def order_of_client(self, request: web.Request) -> Answer:
        """GET /v1/orders?owner=&sub_account=&client_id=."""
        client_id = request.query.get("client_id", "")
        never = Answer.of({"status": "never_seen", "client_id": client_id[:64]})
        owner = _owner(request.query.get("owner", ""))
        account_id = self._state.account_ids.get((owner, _number(request, "sub_account", 0, 0, 2**16 - 1)))
        if account_id is None or not client_id or len(client_id) > 64:
            return never
        record = self._history.order_of_client(account_id, client_id)
        if record is None:
            found = self._history.find_client_order(account_id, client_id)
            record = await asyncio.wait_for(found, QUERY_TIMEOUT_S)
        return never if record is None else Answer.of(record.view())

    async def _ledger(self, request: web.Request, *, funding_only: bool) -> Answer:
        account, limit, before = self._account(request), _limit(request), _number(request, "before", 0)
        rows = self._history.ledger(account.account_id, limit, before, funding_only)
        return Answer.of(await asyncio.wait_for(rows, QUERY_TIMEOUT_S))

    def _is_liquidatable(self, account: Account) -> bool:
        if not account.open_positions:
            return account.collateral < 0
        return margin_of(self._state, account).liquidatable

    def _symbol(self, request: web.Request) -> str:
        symbol = request.match_info["symbol"]
        if symbol not in self._state.market_ids:
            raise unknown_market(symbol[:32])
        return symbol

    def _account(self, request: web.Request) -> Account:
        owner = _owner(request.match_info["owner"])
        text = request.match_info["sub_account"]
        sub_account = int(text) if _NUMBER.match(text) else 2**16
        if sub_account >= 2**16:
            raise refuse(RejectCode.OUT_OF_RANGE, "a sub-account is 0 to 65535", "sub_account")
        return self.find_account(owner, sub_account)

    def find_account(self, owner: bytes, sub_account: int) -> Account:
        """The account of an owner. Raises Refusal (UNKNOWN_ACCOUNT)."""
        account_id = self._state.account_ids.get((owner, sub_account))
        if account_id is None:
            raise refuse(RejectCode.UNKNOWN_ACCOUNT, "this owner has no such sub-account", "owner")
        return self._state.accounts[account_id]


def _owner(text: str) -> bytes:
    if not _ADDRESS.match(text):
        raise refuse(RejectCode.MALFORMED, "an owner is 0x and 40 hex digits", "owner")
    return bytes.fromhex(text[2:])


def _limit(request: web.Request) -> int:
    return _number(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)


def _number(request: web.Request, name: str, default: int, least: int = 0, most: int = 2**53) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not _NUMBER.match(text) or not least <= int(text) <= most:
        raise refuse(RejectCode.OUT_OF_RANGE, f"{name}: not an integer from {least} to {most}", name)
    return int(text)
