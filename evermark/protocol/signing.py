"""EIP-712 digests and signer recovery, with every type hash computed once.

The typed data are readable: side, time in force and trigger are words, the market is its symbol. Digests
equal `eth_account.encode_typed_data`'s (tested on random messages); this path is several times faster.
"""

import struct
from functools import lru_cache
from typing import Any

import msgspec
from coincurve import PrivateKey, PublicKey

from evermark.protocol.keccak import keccak
from evermark.protocol.orders import (
    SIDE_TEXT,
    TIME_IN_FORCE_TEXT,
    TRIGGER_TEXT,
    Action,
    Order,
    Signature,
)

SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
MAX_LOW_S = SECP256K1_N // 2
DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"

ORDER_FIELDS = (
    ("address", "owner"),
    ("uint16", "subAccount"),
    ("string", "market"),
    ("string", "side"),
    ("uint64", "size"),
    ("uint32", "limitPrice"),
    ("uint32", "maxFeePpm"),
    ("address", "builder"),
    ("uint32", "maxBuilderFeePpm"),
    ("uint16", "slot"),
    ("uint48", "sequence"),
    ("uint64", "expiry"),
    ("bool", "amend"),
    ("bool", "reduceOnly"),
    ("string", "timeInForce"),
    ("bool", "postOnly"),
    ("string", "trigger"),
    ("uint32", "triggerPrice"),
    ("uint32", "trailingOffset"),
    ("uint64", "displaySize"),
    ("uint32", "twapInterval"),
    ("uint16", "bracketLink"),
)
CANCEL_FIELDS = (
    ("address", "owner"),
    ("uint16", "subAccount"),
    ("bool", "allSlots"),
    ("uint16", "slot"),
    ("uint48", "sequence"),
    ("uint64", "deadline"),
)
WITHDRAW_FIELDS = (
    ("address", "owner"),
    ("uint16", "subAccount"),
    ("uint96", "amount"),
    ("uint96", "maxFee"),
    ("uint48", "actionSequence"),
    ("uint64", "deadline"),
)
TRANSFER_FIELDS = (
    ("address", "owner"),
    ("uint16", "subAccount"),
    ("uint16", "toSubAccount"),
    ("uint96", "amount"),
    ("uint48", "actionSequence"),
    ("uint64", "deadline"),
)
APPROVE_AGENT_FIELDS = (
    ("address", "owner"),
    ("uint16", "subAccount"),
    ("address", "agent"),
    ("uint64", "agentExpiry"),
    ("uint96", "transferCap"),
    ("uint48", "actionSequence"),
    ("uint64", "deadline"),
)
ORDER_BATCH_FIELDS = (("bytes32", "root"),)
PRICE_REPORT_FIELDS = (("uint64", "round"), ("uint64", "timestamp"), ("uint256[]", "prices"))
FUNDING_REPORT_FIELDS = (("uint64", "hour"), ("int256[]", "ratesPpb"), ("bytes32", "samples"))
LIQUIDATE_FIELDS = (("uint32", "account"), ("string", "market"), ("uint64", "round"), ("uint64", "deadline"))

TYPES: dict[str, tuple[tuple[str, str], ...]] = {
    "Order": ORDER_FIELDS,
    "Cancel": CANCEL_FIELDS,
    "Withdraw": WITHDRAW_FIELDS,
    "Transfer": TRANSFER_FIELDS,
    "ApproveAgent": APPROVE_AGENT_FIELDS,
    "OrderBatch": ORDER_BATCH_FIELDS,
    "PriceReport": PRICE_REPORT_FIELDS,
    "FundingReport": FUNDING_REPORT_FIELDS,
    "Liquidate": LIQUIDATE_FIELDS,
}


class PriceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One oracle keeper's view of a round; prices[i] = index << 32 | mark of market i, 0 when it abstains."""

    round: int
    timestamp: int
    prices: tuple[int, ...]


class FundingReport(msgspec.Struct, frozen=True, kw_only=True):
    """One funding keeper's hourly rates, ppb by market id; `samples` commits to the premiums they come
    from."""

    hour: int  # unix time of the hour's start // 3600
    rates_ppb: tuple[int, ...]
    samples: bytes


class Liquidate(msgspec.Struct, frozen=True, kw_only=True):
    """A liquidation keeper's trigger: this account's position in `market` looks liquidatable at `round`."""

    account: int
    market: str
    round: int
    deadline: int


Message = Action | PriceReport | FundingReport | Liquidate


def type_string(name: str) -> str:
    """The EIP-712 encodeType of one of our types, e.g. `OrderBatch(bytes32 root)`."""
    return name + "(" + ",".join(f"{kind} {field}" for kind, field in TYPES[name]) + ")"


TYPE_HASH = {name: keccak(type_string(name).encode()) for name in TYPES}
_ORDER_TYPE_HASH = TYPE_HASH["Order"]
_TEXT_HASH = {text: keccak(text.encode()) for text in (*SIDE_TEXT, *TIME_IN_FORCE_TEXT, *TRIGGER_TEXT)}


@lru_cache(maxsize=1024)
def _market_hash(symbol: str) -> bytes:
    return keccak(symbol.encode())


def domain_separator(chain_id: int, verifying_contract: bytes, name: str = "Evermark") -> bytes:
    """EIP-712 domain separator; vault messages use name "Evermark", the oracle's "Evermark Oracle"."""
    return keccak(
        keccak(DOMAIN_TYPE.encode())
        + keccak(name.encode())
        + keccak(b"1")
        + chain_id.to_bytes(32, "big")
        + verifying_contract.rjust(32, b"\0")
    )


def _word(value: int) -> bytes:
    return (value % 2**256).to_bytes(32, "big")


# The fields of an order behind each other as EIP-712 wants them: words of 32 bytes, an integer at each one's end.
_ORDER_WORDS = struct.Struct(
    ">32s 12x20s 24xQ 32s 32s 24xQ24xQ24xQ 12x20s 24xQ24xQ24xQ24xQ24xQ24xQ 32s 24xQ 32s" + 5 * "24xQ"
)


def _order_hash(order: Order) -> bytes:
    return keccak(
        _ORDER_WORDS.pack(
            _ORDER_TYPE_HASH,
            order.owner,
            order.sub_account,
            _market_hash(order.market),
            _TEXT_HASH[SIDE_TEXT[order.side]],
            order.size,
            order.limit_price,
            order.max_fee_ppm,
            order.builder,
            order.max_builder_fee_ppm,
            order.slot,
            order.sequence,
            order.expiry,
            order.amend,
            order.reduce_only,
            _TEXT_HASH[TIME_IN_FORCE_TEXT[order.time_in_force]],
            order.post_only,
            _TEXT_HASH[TRIGGER_TEXT[order.trigger]],
            order.trigger_price,
            order.trailing_offset,
            order.display_size,
            order.twap_interval,
            order.bracket_link,
        )
    )


def _encode_field(kind: str, value: Any) -> bytes:
    if kind == "string":
        return _market_hash(value)
    if kind.endswith("[]"):
        return keccak(b"".join(_word(item) for item in value))
    if kind == "address" or kind == "bytes32":
        return bytes(value).rjust(32, b"\0")
    return _word(int(value))


def struct_hash(message: Message) -> bytes:
    """EIP-712 hashStruct of any of our messages, 32 bytes."""
    if type(message) is Order:
        return _order_hash(message)
    name = type(message).__name__
    values = msgspec.structs.astuple(message)
    fields = TYPES[name]
    return keccak(
        TYPE_HASH[name]
        + b"".join(_encode_field(kind, value) for (kind, _), value in zip(fields, values, strict=True))
    )


def digest(separator: bytes, message: Message) -> bytes:
    """The 32 bytes that a wallet signs: keccak(0x1901 || domain separator || struct hash)."""
    return digest_of(separator, struct_hash(message))


def digest_of(separator: bytes, hashed: bytes) -> bytes:
    """The digest of a message whose struct hash is known already."""
    return keccak(b"\x19\x01" + separator + hashed)


def typed_data(
    message: Message, chain_id: int, verifying_contract: bytes, name: str = "Evermark"
) -> dict[str, Any]:
    """The full JSON for `eth_signTypedData_v4`; integers above 2^53 stay exact as Python ints."""
    kind = type(message).__name__
    fields = TYPES[kind]
    values = order_values(message) if isinstance(message, Order) else msgspec.structs.astuple(message)
    body = {field: _json_value(value) for (_, field), value in zip(fields, values, strict=True)}
    domain_fields = [part.split(" ") for part in DOMAIN_TYPE[len("EIP712Domain(") : -1].split(",")]
    return {
        "types": {
            "EIP712Domain": [{"name": field, "type": kind_} for kind_, field in domain_fields],
            kind: [{"name": field, "type": kind_} for kind_, field in fields],
        },
        "primaryType": kind,
        "domain": {
            "name": name,
            "version": "1",
            "chainId": chain_id,
            "verifyingContract": "0x" + verifying_contract.hex(),
        },
        "message": body,
    }


def order_values(order: Order) -> tuple[Any, ...]:
    """An order's fields in signing order, with side, time in force and trigger as the words a wallet
    shows."""
    return (
        order.owner,
        order.sub_account,
        order.market,
        SIDE_TEXT[order.side],
        order.size,
        order.limit_price,
        order.max_fee_ppm,
        order.builder,
        order.max_builder_fee_ppm,
        order.slot,
        order.sequence,
        order.expiry,
        order.amend,
        order.reduce_only,
        TIME_IN_FORCE_TEXT[order.time_in_force],
        order.post_only,
        TRIGGER_TEXT[order.trigger],
        order.trigger_price,
        order.trailing_offset,
        order.display_size,
        order.twap_interval,
        order.bracket_link,
    )


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return list(value) if isinstance(value, tuple) else value


class SignatureRefused(ValueError):
    """The signature is malformed, has a high s, or recovers no key."""


def recover(message_digest: bytes, signature: Signature) -> bytes:
    """Address (20 bytes) that signed `message_digest`. Raises SignatureRefused for high s or no recovery."""
    if not 0 < signature.s <= MAX_LOW_S:
        raise SignatureRefused("signature: s is zero or in the upper half")
    if not 0 < signature.r < SECP256K1_N or signature.parity not in (0, 1):
        raise SignatureRefused("signature: r or v out of range")
    raw = signature.r.to_bytes(32, "big") + signature.s.to_bytes(32, "big") + bytes([signature.parity])
    try:
        key = PublicKey.from_signature_and_message(raw, message_digest, hasher=None)
    except Exception as error:  # coincurve raises bare exceptions for unrecoverable points
        raise SignatureRefused("signature: no key recovers from it") from error
    return keccak(key.format(compressed=False)[1:])[12:]


def parse_signature(raw: bytes) -> Signature:
    """65 bytes r || s || v with v in {0, 1, 27, 28} -> Signature. Raises SignatureRefused."""
    if len(raw) != 65:
        raise SignatureRefused(f"signature: {len(raw)} bytes instead of 65")
    parity = raw[64] - 27 if raw[64] >= 27 else raw[64]
    if parity not in (0, 1):
        raise SignatureRefused(f"signature: v is {raw[64]}, not 27 or 28")
    return Signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), parity)


class Signer:
    """A private key that signs digests; the key itself never leaves this object."""

    __slots__ = ("_key", "address")

    def __init__(self, private_key: bytes) -> None:
        self._key = PrivateKey(private_key)
        self.address = keccak(self._key.public_key.format(compressed=False)[1:])[12:]

    def sign(self, message_digest: bytes) -> Signature:
        """Deterministic (RFC 6979) low-s signature of a 32-byte digest."""
        return parse_signature(self._key.sign_recoverable(message_digest, hasher=None))

    def __repr__(self) -> str:
        return f"Signer(0x{self.address.hex()})"
