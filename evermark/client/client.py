"""The asynchronous client: sign, trade, withdraw, subscribe."""

from collections.abc import AsyncIterator
from typing import Any

from evermark.client.batches import BatchVerbs


class EvermarkClient(BatchVerbs):
    """One account on one exchange. Use as `async with EvermarkClient(url, signer) as client`.

    `signer` is the owner's key, or an agent's with `owner` naming the account's owner. Sizes, prices and
    amounts are human units (Decimal, str or int); `*_lots`, `*_ticks` and `*_units` arguments take raw
    integers instead.
    """

    async def subscribe(self, channel: str, market: str = "") -> AsyncIterator[dict[str, Any]]:
        """Messages of `book`, `trades`, `prices`, `status` or `account` (this one), for ever, across
        reconnects.

        After a reconnect a {"type": "reconnected"} message precedes the new snapshot; a gap in the book's
        sequence leads to a new snapshot by itself.
        """
        owner = self.owner_text if channel == "account" else ""
        subscription = await self.stream.subscribe(channel, market, owner, self.sub_account)
        try:
            async for message in subscription:
                yield message
        finally:
            await self.stream.unsubscribe(subscription)
