"""Signed request bodies: a message, its digest under the exchange's domain, and the JSON that carries
both.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from evermark.client.errors import OutOfRange
from evermark.client.models import ExchangeInfo
from evermark.protocol.merkle import merkle_paths
from evermark.protocol.orders import ApproveAgent, Cancel, Order, OrderBatch, Transfer, Withdraw
from evermark.protocol.ranges import beyond
from evermark.protocol.signing import TYPES, Signer, digest, domain_separator, order_values, struct_hash

Signable = Order | Cancel | Withdraw | Transfer | ApproveAgent

BODY_NAME = {
    "Order": "order",
    "Cancel": "cancel",
    "Withdraw": "withdraw",
    "Transfer": "transfer",
    "ApproveAgent": "approval",
}


def parse_address(text: str) -> bytes:
    """0x-hex -> 20 bytes. Raises ValueError."""
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 20:
        raise ValueError(f"address: {len(raw)} bytes instead of 20")
    return raw


def check_ranges(message: Signable) -> None:
    """Raises OutOfRange when a field cannot hold its value, TypeError when it is no integer or no address at all."""
    found = beyond(message)
    if found is not None:
        raise OutOfRange(found)


def hex_text(raw: bytes) -> str:
    """Bytes -> 0x-hex in lower case."""
    return "0x" + raw.hex()


def order_hash(order: Order) -> str:
    """The hash by which the exchange knows an order: its EIP-712 struct hash, 0x-hex. Raises OutOfRange."""
    check_ranges(order)
    return hex_text(struct_hash(order))


class Domain:
    """The signing domain of one exchange; makes the bodies of signed requests."""

    def __init__(self, info: ExchangeInfo) -> None:
        self.chain_id = info.chain_id
        self._separator = domain_separator(info.chain_id, parse_address(info.vault))

    def batch_body(self, orders: Sequence[Order], signer: Signer) -> dict[str, Any]:
        """{"orders": [fields], "signature", "chain_id"}: one signature of the `OrderBatch` over all of them.

        Raises OutOfRange.
        """
        for order in orders:
            check_ranges(order)
        root, _ = merkle_paths([struct_hash(order) for order in orders])
        signature = signer.sign(digest(self._separator, OrderBatch(root=root)))
        return {
            "orders": [message_json(order) for order in orders],
            "signature": hex_text(signature.to_bytes()),
            "chain_id": self.chain_id,
        }

    def body(self, message: Signable, signer: Signer) -> dict[str, Any]:
        """{"order" | "cancel" | "withdraw" | "transfer" | "approval": fields, "signature", "chain_id"}. Raises OutOfRange."""
        check_ranges(message)
        signature = signer.sign(digest(self._separator, message))
        return {
            BODY_NAME[type(message).__name__]: message_json(message),
            "signature": hex_text(signature.to_bytes()),
            "chain_id": self.chain_id,
        }


def message_json(message: Signable) -> dict[str, Any]:
    """The message under its EIP-712 field names; integers above 2^53 as decimal strings."""
    values = order_values(message) if isinstance(message, Order) else msgspec.structs.astuple(message)
    fields = TYPES[type(message).__name__]
    return {field: _json_value(value) for (_, field), value in zip(fields, values, strict=True)}


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return hex_text(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 2**53:
        return str(value)
    return value
