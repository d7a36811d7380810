"""Many orders under one signature: `OrderBatch`, by an agent's key."""

from collections.abc import Sequence
from typing import Any

import msgspec

from evermark.client.conditional import ConditionalVerbs
from evermark.client.errors import OutOfRange, Refused
from evermark.client.models import OrderStatus
from evermark.client.orders import side_of
from evermark.client.units import Human, to_lots, to_ticks
from evermark.protocol.merkle import MAX_BATCH_ORDERS
from evermark.protocol.orders import Order, Side, TimeInForce


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A limit order to be placed with others. Size and price are human units, or raw lots and ticks."""

    market: str
    side: Side | str
    size: Human | None = None
    price: Human | None = None
    size_lots: int = 0
    price_ticks: int = 0
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    expires_in_s: int | None = None
    client_id: str = ""


class BatchVerbs(ConditionalVerbs):
    """Batches cost one signature and one message, whatever the number of orders."""

    async def place_many(self, orders: Sequence[NewOrder]) -> list[OrderStatus | Refused]:
        """Sign and send up to 64 orders at once, with an agent's key; for each, in order, what it became or why it was
        refused. Raises Refused when the signature is, OutOfRange before anything is signed, ValueError for an owner's key:
        a root shows nothing of what is signed.
        """
        if self.signer.address == self.owner:
            raise ValueError(
                "place_many: sign with an agent's key; an owner's never signs what it cannot see"
            )
        if not 0 < len(orders) <= MAX_BATCH_ORDERS:
            raise ValueError(f"place_many: {len(orders)} orders instead of 1 to {MAX_BATCH_ORDERS}")
        await self._hear_time()
        await self._know_slots()
        signed = [await self._numbered(order) for order in orders]
        client_ids = [order.client_id for order in orders]
        # Without an answer an order may rest; the next look at the open ones tells.
        held = [True] * len(signed)
        try:
            body = (await self._signing_domain()).batch_body(signed, self.signer)
            if any(client_ids):
                body["client_ids"] = client_ids
            answer = await self._send("orders", "/v1/order-batches", body, True)
            found = [_outcome(one) for one in answer["orders"]]
            held = [isinstance(outcome, OrderStatus) and outcome.is_open for outcome in found]
            return found
        except (OutOfRange, Refused):
            held = [False] * len(signed)
            raise
        finally:
            for order, is_open in zip(signed, held, strict=True):
                self._slots.answered(order.slot, is_open)

    async def _numbered(self, order: NewOrder) -> Order:
        terms = await self.market(order.market)
        rests = order.time_in_force in (TimeInForce.GTC, TimeInForce.GTD)
        return Order(
            owner=self.owner,
            sub_account=self.sub_account,
            market=order.market,
            side=side_of(order.side),
            size=order.size_lots if order.size is None else to_lots(terms, order.size),
            limit_price=order.price_ticks if order.price is None else to_ticks(terms, order.price),
            max_fee_ppm=max(terms.maker_fee_ppm, terms.taker_fee_ppm, 0),
            slot=self._slots.take() if rests else 0,
            sequence=self.clock.next_sequence(),
            expiry=self._expiry(order.time_in_force, order.expires_in_s),
            time_in_force=order.time_in_force,
            post_only=order.post_only,
            reduce_only=order.reduce_only,
        )


def _outcome(answer: dict[str, Any]) -> OrderStatus | Refused:
    if "error" in answer:
        return Refused(answer["error"], 422, str(answer.get("order_hash", "")))
    return msgspec.convert(answer, OrderStatus, strict=False)
