"""Everything that `verify` reads from the chain, as of the block of the last settled batch."""

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Sequence
from itertools import takewhile
from typing import Any, TypeVar

import msgspec

from evermark.chain import Manifest
from evermark.chain.batches import BatchHidden, batch_within
from evermark.chain.rpc import Web3, connect
from evermark.chain.vault import ExchangeContracts, VaultAccount, VaultMarket, VaultPosition, VaultTotals
from evermark.protocol.outflow import Outflow

PARALLEL = 16  # calls under way at once
SELECTOR_BYTES = 4

Result = TypeVar("Result")


class SettledBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A BatchSettled event and the calldata of its transaction, without the selector."""

    batch_id: int
    journal_sequence: int
    journal_hash: bytes
    batch_hash: bytes
    block: int
    calldata: bytes

    @property
    def is_foreign(self) -> bool:
        """Somebody else's: it names no journal."""
        return self.journal_sequence == 0


class ChainFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment at `block`. Quote amounts in units of 1e-6 USDC."""

    block: int
    settled: Sequence[SettledBatch]  # in the order of the chain
    totals: VaultTotals
    outflow: Outflow
    claim_dues: tuple[int, ...]  # of each claim, from the first on
    unpaid_claims: int
    paid_claims: int
    unconsumed: int  # in the inbox
    tokens: int  # that the vault holds
    accounts: dict[int, VaultAccount]
    positions: dict[tuple[int, int], VaultPosition]  # by (account, market id)
    markets: dict[int, VaultMarket]
    partial: bool  # events from before some block were not read
    on_chain: int  # newest settled batch of all


async def read_chain(
    rpc_url: str,
    manifest: Manifest,
    from_block: int | None = None,
    until_record: int | None = None,
    followed: Collection[int] = (),
) -> ChainFacts:
    """All facts; of events those from `from_block` on, of batches those up to the first that the journal cannot know: it ends
    at `until_record`, and `followed` are the batches of somebody else that it holds.

    Without a settled batch they are those of the newest block.
    """
    first_block = max(manifest.genesis_block, from_block or 0)
    async with connect(rpc_url) as w3:
        contracts = ExchangeContracts(w3, manifest)
        settled = await _settled(w3, contracts, first_block)
        on_chain = max((batch.batch_id for batch in settled), default=0)
        settled = list(takewhile(lambda batch: _is_known(batch, until_record, followed), settled))
        block = settled[-1].block if settled else int(await w3.eth.block_number)
        totals = await contracts.totals(block)
        accounts, markets = range(1, totals.accounts + 1), range(await contracts.market_count(block))
        keys = [(account, market) for account in accounts for market in markets]
        found = await _all(contracts.account(account, block) for account in accounts)
        positions = await _all(contracts.position(*at, block) for at in keys)
        states = await _all(contracts.market(market, block) for market in markets)
        claims = await _all(contracts.claim(claim, block) for claim in range(1, totals.claims + 1))
        paid = await contracts.vault.events.ClaimPaid.get_logs(
            from_block=min(first_block, block), to_block=block
        )
        unconsumed, _ = await contracts.inbox_sums(block)
        return ChainFacts(
            block=block,
            settled=settled,
            totals=totals,
            outflow=await contracts.outflow(block),
            claim_dues=tuple(claim.due for claim in claims),
            unpaid_claims=sum(claim.amount for claim in claims),
            paid_claims=sum(int(log["args"]["amount"]) for log in paid),
            unconsumed=unconsumed,
            tokens=await contracts.tokens_of(contracts.vault.address, block),
            accounts=dict(zip(accounts, found, strict=True)),
            positions=dict(zip(keys, positions, strict=True)),
            markets=dict(zip(markets, states, strict=True)),
            partial=first_block > manifest.genesis_block,
            on_chain=on_chain,
        )


def _is_known(batch: SettledBatch, until_record: int | None, followed: Collection[int]) -> bool:
    if batch.is_foreign:
        return batch.batch_id in followed
    return until_record is None or batch.journal_sequence < until_record


async def _settled(w3: Web3, contracts: ExchangeContracts, first_block: int) -> list[SettledBatch]:
    async def with_calldata(log: Any) -> SettledBatch:
        transaction = await w3.eth.get_transaction(log["transactionHash"])
        args = log["args"]
        given = bytes(transaction["input"])
        try:
            calldata = batch_within(given, args["batch_id"], bytes(args["batch_hash"]))
        except BatchHidden:
            calldata = given[SELECTOR_BYTES:]  # whoever compares it finds that it is another
        return SettledBatch(
            batch_id=args["batch_id"],
            journal_sequence=args["journal_sequence"],
            journal_hash=bytes(args["journal_hash"]),
            batch_hash=bytes(args["batch_hash"]),
            block=int(log["blockNumber"]),
            calldata=calldata,
        )

    logs = await contracts.vault.events.BatchSettled.get_logs(from_block=first_block)
    return await _all(with_calldata(log) for log in logs)


async def _all(work: Iterable[Awaitable[Result]]) -> list[Result]:
    """Results in order, a bounded number under way at once."""
    gate = asyncio.Semaphore(PARALLEL)

    async def one(item: Awaitable[Result]) -> Result:
        async with gate:
            return await item

    return list(await asyncio.gather(*(one(item) for item in work)))
