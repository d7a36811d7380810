"""The contracts as settlement and the inbox watcher need them: a few reads, and one transaction at a time.

Every failure is one of two kinds. `Unreachable`: nobody knows, try again. `Refused`: the contract said no.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from hexbytes import HexBytes
from web3.exceptions import ContractLogicError, Web3Exception
from web3.types import EventData

from evermark.chain import Manifest, TransactionReverted, TransactionSender
from evermark.chain.batches import BatchHidden, batch_within, decode_outline
from evermark.chain.governor import GovernorContract
from evermark.chain.postings import ReportsHidden
from evermark.chain.rpc import UNREACHABLE, Web3
from evermark.chain.vault import ExchangeContracts, InboxItem
from evermark.protocol.funding import HOUR_S
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport
from sequencer.engine.commands import ForeignBatch, InboxEntry, InboxEntryKind
from sequencer.settlement.errors import FROZEN_BATCH_ID, Refused, Unreachable, frozen
from sequencer.settlement.reconciliation import MarketSums, Sums, VaultSums
from sequencer.settlement.witness import Settled

KEPT_SENT = 64
SHORTEST_DUE_S = 600  # after which an inbox entry is overdue, at the earliest
HOUR_OVERDUE_S = 3_600  # after the end of a funding hour: then anybody may apply it
HOURS_LOOKED_AT = 24  # before the present one; older hours pay nothing
MAX_GAS = 2**24  # the cap of EIP-7825; what is not used is not paid
# Refusals that only say that the chain has moved on since it was read, or lags behind the reports.
OVERTAKEN = (
    "vault: batch id not next",
    "oracle: round not newer",
    "oracle: hour already posted",
    "oracle: time in the future",
)


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
        self._contracts = ExchangeContracts(w3, manifest)
        self._vault = self._contracts.vault.address
        self._oracle = self._contracts.oracle.address
        self._sent: dict[int, Settled] = {}  # the last that this process sent, where blocks are final at once
        self._governor = GovernorContract(w3, manifest)
        self._open_claims: set[int] = set()
        self._claims_seen = 0
        self._cleared = 0  # nonces that were used up when nothing was in flight; 0: something may be

    async def last_batch_ids(self) -> tuple[int, int]:
        """(last settled batch in the newest block, the same `confirmations` blocks deep)."""
        async with _asking():
            latest = (await self._contracts.totals()).batch_id
            if not self._confirmations:
                return latest, latest
            return latest, (await self._contracts.totals(await self._final_block())).batch_id

    async def newest_settled(self) -> Settled | None:
        """The newest settled batch with the journal position in its event, None before the first.

        Raises Ended when the exchange is frozen.
        """
        latest, _ = await self.last_batch_ids()
        if not latest:
            return None
        if latest == FROZEN_BATCH_ID:
            raise frozen()
        return await self.settled_batch(latest)

    async def settled_batch(self, batch_id: int) -> Settled:
        """Any settled batch with the journal position in its event. Raises Unreachable where the node shows none."""
        if batch_id in self._sent:
            return self._sent[batch_id]
        found = await self._settled_log(batch_id)
        args = found["args"]
        return Settled(
            batch_id, int(args["journal_sequence"]), bytes(args["journal_hash"]), int(found["blockNumber"])
        )

    async def foreign_batch(self, batch_id: int, first_entry: int) -> ForeignBatch:
        """A settled batch of somebody else and all that it refers to; it consumed the inbox from `first_entry` on."""
        found = await self._settled_log(batch_id)
        async with _asking():
            transaction = await self._w3.eth.get_transaction(found["transactionHash"])
            calldata = batch_within(bytes(transaction["input"]), batch_id, bytes(found["args"]["batch_hash"]))
            batch = decode_outline(calldata)
            rates = [await self._contracts.funding_rates(hour) for hour in batch.funding_hours]
            last = first_entry + len(batch.inbox)
            entries = [await self._entry(number, found["blockNumber"]) for number in range(first_entry, last)]
            round_ = await self._contracts.pinned_round(batch.round, batch.prices_hash)
            head = await self._entry(last, found["blockNumber"]) if batch.fills else None
        return ForeignBatch(
            batch_id=batch_id,
            calldata=calldata,
            round=round_,
            entries=tuple(entries),
            rates=tuple(rates),
            block_number=int(found["blockNumber"]),
            head=head,
        )

    async def overdue_from_s(self, now_s: int, hours: Sequence[int] = ()) -> int:
        """From when on somebody else's batch may be valid, at the earliest: when the head of the inbox is overdue, or a funding
        hour that was posted in time, or is about to be (`hours`). What newer blocks have consumed or applied counts as waiting:
        a reorganisation may take it back."""
        async with _asking():
            block = await self._final_block()
            head, tail = await self._contracts.inbox_range(block)
            earliest = now_s + SHORTEST_DUE_S
            if head < tail:
                earliest = min(earliest, (await self._contracts.inbox_entry(head)).due)
            applied = [
                (await self._contracts.market(number, block)).last_funding_hour
                for number in range(await self._contracts.market_count(block))
            ]
            first = max(max(applied) + 1, now_s // HOUR_S - HOURS_LOOKED_AT)
            for hour in range(first, now_s // HOUR_S):
                if hour in hours or await self._contracts.funding_posted_at(hour):
                    return min(earliest, (hour + 1) * HOUR_S + HOUR_OVERDUE_S)
        return earliest

    async def sequencer(self) -> str:
        """Who posts rounds and settles now, by the newest block."""
        async with _asking():
            return await self._contracts.sequencer()

    async def time_of(self, block_number: int) -> int:
        """A block's time."""
        async with _asking():
            return int((await self._w3.eth.get_block(block_number))["timestamp"])

    async def past_time_s(self, now_s: int) -> int:
        """A time before which no block comes any more, whatever is reorganised; `now_s` where nothing can be."""
        if not self._confirmations:
            return now_s
        async with _asking():
            return int((await self._w3.eth.get_block(await self._final_block()))["timestamp"])

    async def vault_sums(self) -> VaultSums:
        """What reconciliation compares, as of the newest final block."""
        async with _asking():
            block = await self._final_block()
            totals = await self._contracts.totals(block)
            unpaid = await self._unpaid(totals.claims, block)
            count = await self._contracts.market_count(block)
            markets = [await self._contracts.market(number, block) for number in range(count)]
            unconsumed, _ = await self._contracts.inbox_sums(block)
            tokens = await self._contracts.tokens_of(self._vault, block)
        sums = Sums(
            totals.credited - unpaid,
            totals.funding_pool,
            totals.dust,
            totals.accounts,
            totals.inbox_head - 1,
            totals.claims,
            tuple(
                MarketSums(one.open_interest, one.cumulative_funding, one.last_funding_hour)
                for one in markets
            ),
        )
        return VaultSums(totals.batch_id, sums, totals.credited + unconsumed - tokens)

    async def last_round(self) -> LaneRound:
        """The newest round that the sequencer's lane holds."""
        async with _asking():
            number = await self._contracts.last_round()
            if not number:
                return LaneRound(0, 0)
            return LaneRound(number, (await self._contracts.round(number)).timestamp)

    async def start_round(self, reports: Sequence[SignedPriceReport]) -> "asyncio.Future[Receipt]":
        """Write a round into the sequencer's lane; the future is done when it is mined, before whatever is started later."""
        return await self._start(self._oracle, self._contracts.post_round_calldata(reports))

    async def has_funding(self, hour: int) -> bool:
        """True when the hour's rates are on the chain, whoever posted them."""
        async with _asking():
            return bool(await self._contracts.funding_posted_at(hour))

    async def funding_rates(self, hour: int) -> tuple[int, ...]:
        """An hour's rates as the chain holds them, ppb by market id. Raises Refused when none were posted."""
        async with _asking():
            return await self._contracts.funding_rates(hour)

    async def posted_funding(
        self, hour: int, known: Sequence[SignedFundingReport]
    ) -> tuple[SignedFundingReport, ...]:
        """Signed reports behind the rates that the chain holds for an hour, looked for in the transaction that posted it and
        among `known` ones. Raises Refused where nothing makes them."""
        async with _asking():
            return await self._contracts.posted_funding(hour, known)

    async def post_funding(self, reports: Sequence[SignedFundingReport]) -> Receipt:
        """Post an hour's rates."""
        return await (await self._start(self._oracle, self._contracts.post_funding_calldata(reports)))

    async def simulate_settle(self, batch: bytes) -> None:
        """Run `settle` without sending it. Raises Refused with the vault's reason."""
        data = HexBytes(self._contracts.settle_calldata(batch))
        async with _asking():
            await self._w3.eth.call(
                {"from": self._sender.address, "to": self._vault, "data": data, "gas": MAX_GAS}
            )

    async def start_settle(self, batch: bytes) -> "asyncio.Future[Receipt]":
        """Send a batch; the future is done when it is mined. It raises Refused when it reverts there."""
        self._cleared = 0
        started = await self._start(self._vault, self._contracts.settle_calldata(batch))

        async def mined() -> Receipt:
            receipt = await started
            if not self._confirmations:  # nothing takes it back, so nobody has to ask for it
                sent = outline_of(batch, receipt.block_number)
                kept = {key: one for key, one in self._sent.items() if key > sent.batch_id - KEPT_SENT}
                self._sent = kept | {sent.batch_id: sent}
            return receipt

        return asyncio.ensure_future(mined())

    async def nothing_in_flight(self) -> bool:
        """Make sure that no batch sent before can be mined any more. False while that is not deep enough: ask again."""
        async with _asking():
            count, key = self._w3.eth.get_transaction_count, self._sender.address
            if not self._cleared or await count(key, "latest") < self._cleared:
                self._cleared = await self._sender.clear()
            return int(await count(key, await self._final_block())) >= self._cleared

    async def claim_count(self) -> int:
        """Id of the newest claim."""
        async with _asking():
            return (await self._contracts.totals()).claims

    async def has_uptime_feed(self) -> bool:
        """Whether the oracle watches outages of the chain."""
        async with _asking():
            return await self._contracts.has_uptime_feed()

    async def restarted(self) -> tuple[bool, bool, int]:
        """PriceOracle.restarted() in the newest block and in the newest final one, and that one's number."""
        async with _asking():
            block = await self._final_block()
            return await self._contracts.restarted(), await self._contracts.restarted(block), block

    async def open_claim(self, claim_id: int) -> tuple[int, int]:
        """(quote units of a claim, 0 once paid; from when on it is payable, 0 for at once)."""
        async with _asking():
            claim = await self._contracts.claim(claim_id)
            return claim.amount, claim.due

    async def block_time(self) -> int:
        """Time of the newest block."""
        async with _asking():
            return int((await self._w3.eth.get_block("latest"))["timestamp"])

    async def pay(self, claim_id: int) -> Receipt:
        """Pay a claim out. Raises Refused when the token does not take it, or the claim is not due."""
        return await (await self._start(self._vault, self._contracts.pay_calldata(claim_id)))

    async def inbox_entries(self, first_id: int, limit: int) -> list[InboxEntry]:
        """Confirmed entries from `first_id` on, in order."""
        async with _asking():
            block = await self._final_block()
            _, tail = await self._contracts.inbox_range(block)
            last = min(tail, first_id + limit)
            return [await self._entry(number, block) for number in range(first_id, last)]

    async def _entry(self, entry_id: int, block: int) -> InboxEntry:
        item = await self._contracts.inbox_entry(entry_id, block)
        entry = inbox_command(entry_id, item)
        if entry.entry_kind in (InboxEntryKind.GOVERNOR, InboxEntryKind.GUARDIAN):
            change = await self._governor.change(item.kind, item.sub_account, item.data, block)
            return msgspec.structs.replace(entry, change=change)
        return entry

    async def _unpaid(self, claims: int, block: int) -> int:
        """Sum of the claims that are open; one that was paid is never looked at again."""
        self._open_claims |= set(range(self._claims_seen + 1, claims + 1))
        self._claims_seen = max(self._claims_seen, claims)
        total = 0
        for claim in sorted(self._open_claims):
            amount = (await self._contracts.claim(claim, block)).amount
            total += amount
            if not amount and claim <= claims:
                self._open_claims.discard(claim)
        return total

    async def _settled_log(self, batch_id: int) -> EventData:
        async with _asking():
            logs = await self._contracts.vault.events.BatchSettled.get_logs(
                from_block=self._genesis_block, argument_filters={"batch_id": batch_id}
            )
        if not logs:
            raise Unreachable(f"batch {batch_id} is settled, but the node shows no log of it")
        newest: EventData = logs[-1]
        return newest

    async def _final_block(self) -> int:
        return max(0, int(await self._w3.eth.block_number) - self._confirmations)

    async def _start(self, to: str, data: bytes) -> "asyncio.Future[Receipt]":
        async with _asking():
            started = await self._sender.start(to, data, gas=MAX_GAS)

        async def mined() -> Receipt:
            async with _asking():
                receipt = await started
            return Receipt(int(receipt["blockNumber"]), int(receipt["gasUsed"]))

        return asyncio.ensure_future(mined())


def outline_of(batch: bytes, block_number: int) -> Settled:
    """What the vault's event says of an encoded batch."""
    sequence = int.from_bytes(batch[43:49], "big")
    return Settled(int.from_bytes(batch[:6], "big"), sequence, batch[49:81], block_number)


def inbox_command(entry_id: int, item: InboxItem) -> InboxEntry:
    """The entry as the engine takes it: its data word unpacked by kind, as IInbox.vyi says."""
    kind = InboxEntryKind(item.kind)
    fields: dict[str, Any] = {}
    if kind is InboxEntryKind.CANCEL:
        fields = {"slot": item.data & 0xFFFF, "order_sequence": item.data >> 16}
    elif kind in (InboxEntryKind.APPROVE_AGENT, InboxEntryKind.REVOKE_AGENT):
        agent = (item.data & (1 << 160) - 1).to_bytes(20, "big")
        fields = {"agent": agent, "agent_expiry": item.data >> 160}
    elif kind is InboxEntryKind.LIQUIDATE:
        fields = {"target": item.data}
    elif kind is InboxEntryKind.CLOSE:
        lots = item.data >> 16 & 2**62 - 1
        size = lots if item.data >> 8 & 1 else -lots
        fields = {"market_id": item.data & 0xFF, "size": size, "mark": item.data >> 80}
    return InboxEntry(
        entry_id=entry_id,
        entry_kind=kind,
        owner=bytes.fromhex(item.owner[2:]),
        sub_account=item.sub_account,
        amount=item.amount,
        created=item.created,
        due=item.due,
        **fields,
    )


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    try:
        yield
    except (BatchHidden, ReportsHidden) as error:
        raise Refused(str(error)) from error
    except (ContractLogicError, TransactionReverted) as error:
        reason = error.reason if isinstance(error, TransactionReverted) else error.message or str(error)
        kind = Unreachable if any(text in reason for text in OVERTAKEN) else Refused
        raise kind(reason.removeprefix("execution reverted: ")) from error
    except (Web3Exception, *UNREACHABLE) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error
