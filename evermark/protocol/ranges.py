"""What each integer of a signed message can be: its EIP-712 width, or less where the exchange has less room for it.

A value beyond its range cannot be what somebody meant, and signing it would sign something else: an encoder wraps it round.
"""

from typing import Any

import msgspec

from evermark.protocol.orders import Order
from evermark.protocol.signing import TYPES, Message, order_values

ADDRESS_BYTES = 20
# Narrower than their types: a size has 62 bits in a position, an amount 95 in a balance, a time 32 in a batch.
NARROWER = {
    ("Order", "size"): 62,
    ("Order", "maxFeePpm"): 16,
    ("Order", "maxBuilderFeePpm"): 16,
    ("Order", "expiry"): 32,
    ("Order", "displaySize"): 62,
    ("Cancel", "deadline"): 32,
    ("Withdraw", "amount"): 95,
    ("Withdraw", "maxFee"): 95,
    ("Withdraw", "deadline"): 32,
    ("Transfer", "amount"): 95,
    ("Transfer", "deadline"): 32,
    ("ApproveAgent", "agentExpiry"): 32,
    ("ApproveAgent", "transferCap"): 95,
    ("ApproveAgent", "deadline"): 32,
    ("PriceReport", "round"): 40,
    ("PriceReport", "timestamp"): 32,
    ("PriceReport", "prices"): 64,
    ("FundingReport", "hour"): 32,
    ("FundingReport", "ratesPpb"): 64,
    ("Liquidate", "round"): 40,
    ("Liquidate", "deadline"): 32,
}


class Beyond(msgspec.Struct, frozen=True):
    """A field of a message and the value that it cannot hold; `least` and `most` are what it can."""

    field: str  # its EIP-712 name
    value: int
    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.field}: {self.value} is not from {self.least} to {self.most}"


def range_of(name: str, field: str, kind: str) -> tuple[int, int]:
    """(least, most) of an integer field of one of our types; `kind` is its EIP-712 type, of a list that of its items."""
    item = kind.removesuffix("[]")
    is_signed = item.startswith("int")
    bits = NARROWER.get((name, field), int(item.removeprefix("u").removeprefix("int")))
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if is_signed else (0, (1 << bits) - 1)


def beyond(message: Message) -> Beyond | None:
    """The first field of a message, in signing order, that its value does not fit; None when all do.

    Raises TypeError for what is no integer where one belongs, and for an address or a hash of another length.
    """
    name = type(message).__name__
    values = order_values(message) if isinstance(message, Order) else msgspec.structs.astuple(message)
    for (kind, field), value in zip(TYPES[name], values, strict=True):
        if kind in ("address", "bytes32"):
            _check_bytes(field, value, ADDRESS_BYTES if kind == "address" else 32)
        elif "int" in kind:
            least, most = range_of(name, field, kind)
            for number in value if kind.endswith("[]") else (value,):
                if type(number) is not int:
                    raise TypeError(f"{field}: an int belongs there, not {type(number).__name__}")
                if not least <= number <= most:
                    return Beyond(field, number, least, most)
    return None


def _check_bytes(field: str, value: Any, length: int) -> None:
    if not isinstance(value, bytes) or len(value) != length:
        raise TypeError(f"{field}: {length} bytes belong there, not {value!r:.80}")
