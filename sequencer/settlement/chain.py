"""The contracts as settlement and the inbox watcher need them: a few reads, and one transaction at a time.

Every failure is one of two kinds. `Unreachable`: nobody knows, try again. `Refused`: the contract said no.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from web3.exceptions import ContractLogicError, Web3Exception

from evermark.chain import Manifest, TransactionReverted, TransactionSender
from evermark.chain.rpc import UNREACHABLE, Web3, contract_of
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport
from sequencer.engine.commands import InboxEntry, InboxEntryKind
from sequencer.settlement.errors import Refused, Unreachable

SEQUENCER_LANE = 0
# Refusals that only say that the chain has moved on since it was read, or lags behind the reports.
OVERTAKEN = (
    "vault: batch id not next",
    "oracle: round not newer",
    "oracle: hour already posted",
    "oracle: time in the future",
)
MAX_GAS = 2**24  # the cap of EIP-7825; what is not used is not paid


class Receipt(msgspec.Struct, frozen=True):
    """A mined transaction."""

    block_number: int
    gas_used: int


class LaneRound(msgspec.Struct, frozen=True):
    """The newest round of the sequencer's lane; zeros before the first."""

    round: int
    timestamp: int


class ExchangeChain:
    """One deployment, read at `confirmations` blocks below the head where finality matters."""

    def __init__(self, w3: Web3, manifest: Manifest, sender: TransactionSender, confirmations: int) -> None:
        self._w3 = w3
        self._sender = sender
        self._confirmations = confirmations
        self._genesis_block = manifest.genesis_block
        self.vault = contract_of(w3, manifest, "vault")
        self.oracle = contract_of(w3, manifest, "oracle")
        self.inbox = contract_of(w3, manifest, "inbox")
        self._settle_selector: str = self.vault.encode_abi("settle")
        self._settled_blocks: dict[int, int] = {}

    async def last_batch_ids(self) -> tuple[int, int]:
        """(last settled batch in the newest block, the same `confirmations` blocks deep)."""
        async with _reading():
            latest = await self._batch_id("latest")
            if not self._confirmations:
                return latest, latest
            return latest, await self._batch_id(await self._final_block())

    async def settled_block(self, batch_id: int) -> int:
        """Number of the block that holds a settled batch."""
        if batch_id in self._settled_blocks:
            return self._settled_blocks.pop(batch_id)
        async with _reading():
            event = self.vault.events.BatchSettled
            logs = await event.get_logs(
                from_block=self._genesis_block, argument_filters={"batch_id": batch_id}
            )
        if not logs:
            raise Unreachable(f"batch {batch_id} is settled, but the node shows no log of it")
        return int(logs[-1]["blockNumber"])

    async def last_round(self) -> LaneRound:
        """The newest round that the sequencer's lane holds."""
        async with _reading():
            number = int(await self.oracle.functions.last_round(SEQUENCER_LANE).call())
            if not number:
                return LaneRound(0, 0)
            words = await self.oracle.functions.round_words(SEQUENCER_LANE, number).call()
        return LaneRound(number, int(words[0]) >> 40)

    async def post_round(self, reports: Sequence[SignedPriceReport]) -> Receipt:
        """Write a round into the sequencer's lane."""
        rows = [
            (item.report.round, item.report.timestamp, list(item.report.prices), *_signature(item))
            for item in reports
        ]
        return await self._send(self.oracle.address, self.oracle.encode_abi("post_round", args=[rows]))

    async def has_funding(self, hour: int) -> bool:
        """True when the hour's rates are on the chain, whoever posted them."""
        async with _reading():
            return bool(await self.oracle.functions.funding_posted_at(hour).call())

    async def post_funding(self, reports: Sequence[SignedFundingReport]) -> Receipt:
        """Post an hour's rates."""
        rows = [
            (item.report.hour, list(item.report.rates_ppb), item.report.samples, *_signature(item))
            for item in reports
        ]
        return await self._send(self.oracle.address, self.oracle.encode_abi("post_funding", args=[rows]))

    async def simulate_settle(self, batch: bytes) -> None:
        """Run `settle` without sending it. Raises Refused with the vault's reason."""
        call: Any = {
            "from": self._sender.address,
            "to": self.vault.address,
            "data": self._settle_data(batch),
            "gas": MAX_GAS,
        }
        async with _reading():
            await self._w3.eth.call(call)

    async def settle(self, batch: bytes) -> Receipt:
        """Send a batch and wait until it is mined. Raises Refused when it reverts there."""
        receipt = await self._send(self.vault.address, self._settle_data(batch))
        self._settled_blocks[int.from_bytes(batch[:6], "big")] = receipt.block_number
        return receipt

    async def claim_count(self) -> int:
        """Id of the newest claim."""
        async with _reading():
            return int((await self._totals("latest")).claims)

    async def claim_amount(self, claim_id: int) -> int:
        """Quote units of a claim, 0 once paid."""
        async with _reading():
            return int((await self.vault.functions.claim(claim_id).call())[1])

    async def pay(self, claim_id: int) -> Receipt:
        """Pay a claim out. Raises Refused when the token does not take it."""
        return await self._send(self.vault.address, self.vault.encode_abi("pay", args=[claim_id]))

    async def inbox_entries(self, first_id: int, limit: int) -> list[InboxEntry]:
        """Confirmed entries from `first_id` on, in order."""
        async with _reading():
            block = await self._final_block()
            tail = int(await self.inbox.functions.tail().call(block_identifier=block))
            last = min(tail, first_id + limit)
            return [await self._entry(number, block) for number in range(first_id, last)]

    async def _entry(self, entry_id: int, block: int) -> InboxEntry:
        kind, owner, sub_account, amount, *_ = await self.inbox.functions.entry(entry_id).call(
            block_identifier=block
        )
        return InboxEntry(
            entry_id=entry_id,
            entry_kind=InboxEntryKind(kind),
            owner=bytes.fromhex(owner[2:]),
            sub_account=sub_account,
            amount=amount,
        )

    async def _final_block(self) -> int:
        return max(0, int(await self._w3.eth.block_number) - self._confirmations)

    async def _batch_id(self, block: Any) -> int:
        return int((await self._totals(block)).batch_id)

    async def _totals(self, block: Any) -> Any:
        return await self.vault.functions.totals().call(block_identifier=block)

    async def _send(self, to: Any, data: Any) -> Receipt:
        async with _reading():
            receipt = await self._sender.send(to, data, gas=MAX_GAS)
        return Receipt(int(receipt["blockNumber"]), int(receipt["gasUsed"]))

    def _settle_data(self, batch: bytes) -> str:
        return self._settle_selector + batch.hex()


def _signature(signed: SignedPriceReport | SignedFundingReport) -> tuple[int, int, int]:
    return signed.signature.r, signed.signature.s, 27 + signed.signature.parity


@asynccontextmanager
async def _reading() -> AsyncIterator[None]:
    try:
        yield
    except (ContractLogicError, TransactionReverted) as error:
        reason = error.reason if isinstance(error, TransactionReverted) else error.message or str(error)
        kind = Unreachable if any(text in reason for text in OVERTAKEN) else Refused
        raise kind(reason.removeprefix("execution reverted: ")) from error
    except (Web3Exception, *UNREACHABLE) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error
