"""A settled batch found again in the transaction that brought it, whoever sent it."""

from collections.abc import Iterator

from eth_hash.auto import keccak

from evermark.protocol.batch import AccountOwner, Batch, MalformedBatch, decode_batch
from evermark.protocol.orders import NO_ADDRESS

MAX_BATCH_BYTES = 32_768  # the vault takes no more
MOST_MARKETS = 256
ID_BYTES = 6


class BatchHidden(ValueError):
    """The transaction does not show the batch: a contract made it. One line."""


def batch_within(data: bytes, batch_id: int, batch_hash: bytes) -> bytes:
    """The batch with this id and keccak hash in a transaction's input: behind the selector, or somewhere inside where a
    contract passed it on. Raises BatchHidden."""
    for start in _places(data, batch_id.to_bytes(ID_BYTES, "big")):
        longest = min(len(data) - start, MAX_BATCH_BYTES)
        for size in range(longest, 0, -1):
            if keccak(data[start : start + size]) == batch_hash:
                return data[start : start + size]
    raise BatchHidden(f"batch {batch_id} of somebody else is not to be seen in its transaction")


def decode_outline(calldata: bytes) -> Batch:
    """A settled batch without knowing its accounts and markets: whoever needs the orders' owners and symbols decodes it with
    them. Raises BatchHidden."""
    try:
        return decode_batch(calldata, _Nobody(), ("",) * MOST_MARKETS)
    except MalformedBatch as error:
        raise BatchHidden(f"a settled batch does not decode: {error}") from error


class _Nobody(dict[int, AccountOwner]):
    def __missing__(self, account: int) -> AccountOwner:
        return AccountOwner(NO_ADDRESS, 0)


def _places(data: bytes, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)
