"""JSON-RPC's hex forms, in and out."""

from typing import Any


class BadParams(ValueError):
    """A parameter has the wrong form; JSON-RPC error -32602."""


def quantity(value: int) -> str:
    """An integer as JSON-RPC writes it."""
    return hex(value)


def data(value: bytes) -> str:
    """Bytes as JSON-RPC writes them."""
    return "0x" + bytes(value).hex()


def parse_quantity(value: Any, name: str) -> int:
    """Hex quantity (or a plain integer) -> int. Raises BadParams."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    try:
        if isinstance(value, str) and value.startswith("0x"):
            return int(value, 16)
    except ValueError:
        pass
    raise BadParams(f"{name}: {str(value)[:40]!r} is no hex quantity")


def parse_data(value: Any, name: str, width: int | None = None) -> bytes:
    """Hex data -> bytes, of `width` bytes when given. Raises BadParams."""
    try:
        if isinstance(value, str) and value.startswith("0x"):
            raw = bytes.fromhex(value[2:])
            if width is None or len(raw) == width:
                return raw
    except ValueError:
        pass
    raise BadParams(f"{name}: not {width if width else 'any'} bytes of hex data")


def encode(value: Any) -> Any:
    """Bytes and integers inside dicts and lists -> their hex forms; booleans, None and text as they are."""
    if isinstance(value, bytes):
        return data(value)
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return quantity(value)
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return [encode(item) for item in value]
