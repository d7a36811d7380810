"""Confirmed logs of one contract: every block once and in order, nothing skipped, resumable by number."""

from typing import Any

import msgspec
from hexbytes import HexBytes
from web3.contract.async_contract import AsyncContract
from web3.exceptions import Web3RPCError
from web3.types import BlockData

from evermark.chain.rpc import Web3, read_again

CHUNK_BLOCKS = 2_000


class ChainEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded log; (`transaction_hash`, `log_index`) names it for good."""

    name: str
    args: dict[str, Any]
    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    log_index: int

    @property
    def key(self) -> tuple[bytes, int]:
        """What makes the event the same event when it is seen again."""
        return self.transaction_hash, self.log_index


class ChainReorganised(RuntimeError):
    """A block that was read as confirmed is gone: the confirmation depth is too small for this chain."""


class EventReader:
    """Reads a contract's events from a block on, `confirmations` blocks below the head.

    `next_block` is where the next read starts. It moves only after a range was read and decoded whole, so
    that whoever stores it resumes without a gap; seen again after a crash, an event has the same key.
    """

    def __init__(
        self,
        w3: Web3,
        contract: AsyncContract,
        next_block: int,
        *,
        confirmations: int = 0,
        chunk_blocks: int = CHUNK_BLOCKS,
    ) -> None:
        self.next_block = next_block
        self._w3 = w3
        self._contract = contract
        self._confirmations = confirmations
        self._chunk = chunk_blocks
        self._last_hash: HexBytes | None = None  # of block next_block - 1, once read here

    async def read(self) -> list[ChainEvent]:
        """Events of one range of blocks, in order; empty when nothing new is confirmed.

        Raises ChainReorganised, or one of `rpc.UNREACHABLE` after a few attempts.
        """
        return await read_again(self._read)

    async def read_all(self) -> list[ChainEvent]:
        """Everything up to the confirmed head."""
        events: list[ChainEvent] = []
        while True:
            before = self.next_block
            events += await self.read()
            if self.next_block == before:
                return events

    async def _read(self) -> list[ChainEvent]:
        head = await self._w3.eth.block_number - self._confirmations
        first, last = self.next_block, min(head, self.next_block + self._chunk - 1)
        if last < first:
            return []
        await self._check_continuity(first)
        try:
            logs = await self._w3.eth.get_logs(
                {"address": self._contract.address, "fromBlock": first, "toBlock": last}
            )
        except Web3RPCError:
            if self._chunk == 1:
                raise
            self._chunk = max(1, self._chunk // 2)  # the node finds the range too large
            return await self._read()
        events = [self._decode(log) for log in logs]
        # The last block is read after the logs: a node that does not have it cannot have had its logs either.
        block = await self._block(last)
        self._last_hash = HexBytes(block["hash"])
        self.next_block = last + 1
        return sorted(events, key=lambda event: (event.block_number, event.log_index))

    async def _check_continuity(self, first: int) -> None:
        if self._last_hash is None:
            return
        block = await self._block(first)
        if HexBytes(block["parentHash"]) != self._last_hash:
            raise ChainReorganised(f"events: block {first - 1} was confirmed and is another one now")

    async def _block(self, number: int) -> BlockData:
        return await self._w3.eth.get_block(number)

    def _decode(self, log: Any) -> ChainEvent:
        signature = HexBytes(log["topics"][0]).to_0x_hex()
        event = self._contract.get_event_by_topic(signature)
        decoded = event.process_log(log)
        return ChainEvent(
            name=decoded["event"],
            args=dict(decoded["args"]),
            block_number=int(log["blockNumber"]),
            block_hash=bytes(log["blockHash"]),
            transaction_hash=bytes(log["transactionHash"]),
            log_index=int(log["logIndex"]),
        )
