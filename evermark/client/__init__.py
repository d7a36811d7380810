"""The client of an Evermark exchange: `EvermarkClient` (async) and `Evermark` (plain)."""

from evermark.client.batches import NewOrder
from evermark.client.client import EvermarkClient
from evermark.client.errors import (
    ChainRefused,
    EvermarkError,
    NotFound,
    NotRepresentable,
    OutcomeUnknown,
    OutOfRange,
    Refused,
    Unreachable,
)
from evermark.client.plain import Evermark

__all__ = [
    "ChainRefused",
    "Evermark",
    "EvermarkClient",
    "EvermarkError",
    "NewOrder",
    "NotFound",
    "NotRepresentable",
    "OutOfRange",
    "OutcomeUnknown",
    "Refused",
    "Unreachable",
]
