"""Everything that `verify` reads from the chain, as of the block of the last settled batch."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from evermark.chain import Manifest
from evermark.chain.rpc import Web3, connect, contract_of

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


class VaultAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account as the vault stores it."""

    owner: bytes
    sub_account: int
    collateral: int
    taker_sequence: int
    action_sequence: int
    open_positions: int


class VaultPosition(msgspec.Struct, frozen=True):
    """A position as the vault stores it."""

    size: int
    entry_cumulative: int
    entry_mark: int


class VaultMarket(msgspec.Struct, frozen=True):
    """A market's changing part as the vault stores it."""

    cumulative_funding: int
    open_interest: int
    last_funding_hour: int


class ChainFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The vault at `block`. Quote amounts in units of 1e-6 USDC."""

    block: int
    settled: Sequence[SettledBatch]  # in the order of the chain
    batch_id: int
    funding_pool: int
    dust: int
    account_count: int
    entries_consumed: int
    claim_count: int
    unpaid_claims: int
    paid_claims: int
    credited: int
    unconsumed: int
    tokens: int
    accounts: dict[int, VaultAccount]
    positions: dict[tuple[int, int], VaultPosition]  # by (account, market id)
    markets: dict[int, VaultMarket]


class ChainReader:
    """Reads of one deployment at one block."""

    def __init__(self, w3: Web3, manifest: Manifest, block: int) -> None:
        self._block = block
        self._gate = asyncio.Semaphore(PARALLEL)
        self.vault = contract_of(w3, manifest, "vault")
        self.inbox = contract_of(w3, manifest, "inbox")
        self.token = contract_of(w3, manifest, "token")

    async def call(self, function: Any) -> Any:
        """One view call at the block."""
        async with self._gate:
            return await function.call(block_identifier=self._block)

    async def account(self, account_id: int) -> VaultAccount:
        """An account's words."""
        row = await self.call(self.vault.functions.account(account_id))
        return VaultAccount(
            owner=bytes.fromhex(row[0][2:]),
            sub_account=row[1],
            collateral=row[2],
            taker_sequence=row[3],
            action_sequence=row[5],
            open_positions=row[6],
        )

    async def position(self, account_id: int, market_id: int) -> VaultPosition:
        """A position's word."""
        return VaultPosition(*await self.call(self.vault.functions.position(account_id, market_id)))

    async def market(self, market_id: int) -> VaultMarket:
        """A market's changing word."""
        return VaultMarket(*await self.call(self.vault.functions.market_state(market_id)))

    async def claim_amount(self, claim_id: int) -> int:
        """What a claim still pays."""
        return int((await self.call(self.vault.functions.claim(claim_id)))[1])


async def read_chain(rpc_url: str, manifest: Manifest) -> ChainFacts:
    """All facts. Without a settled batch they are those of the newest block."""
    async with connect(rpc_url) as w3:
        settled = await _settled(w3, manifest)
        block = settled[-1].block if settled else int(await w3.eth.block_number)
        reader = ChainReader(w3, manifest, block)
        totals = await reader.call(reader.vault.functions.totals())
        pool, dust, batch_id, inbox_head, account_count, claim_count, credited = totals
        paid_logs = await reader.vault.events.ClaimPaid.get_logs(
            from_block=manifest.genesis_block, to_block=block
        )
        keys = [
            (account, market)
            for account in range(1, account_count + 1)
            for market in range(len(manifest.markets))
        ]
        accounts = await _all(reader.account(account) for account in range(1, account_count + 1))
        positions = await _all(reader.position(*at) for at in keys)
        markets = await _all(reader.market(market) for market in range(len(manifest.markets)))
        unpaid = await _all(reader.claim_amount(claim) for claim in range(1, claim_count + 1))
        return ChainFacts(
            block=block,
            settled=settled,
            batch_id=batch_id,
            funding_pool=pool,
            dust=dust,
            account_count=account_count,
            entries_consumed=inbox_head - 1,
            claim_count=claim_count,
            unpaid_claims=sum(unpaid),
            paid_claims=sum(int(log["args"]["amount"]) for log in paid_logs),
            credited=credited,
            unconsumed=await reader.call(reader.inbox.functions.unconsumed()),
            tokens=await reader.call(reader.token.functions.balanceOf(reader.vault.address)),
            accounts=dict(enumerate(accounts, start=1)),
            positions=dict(zip(keys, positions, strict=True)),
            markets=dict(enumerate(markets)),
        )


async def _settled(w3: Web3, manifest: Manifest) -> list[SettledBatch]:
    vault = contract_of(w3, manifest, "vault")
    gate = asyncio.Semaphore(PARALLEL)

    async def with_calldata(log: Any) -> SettledBatch:
        async with gate:
            transaction = await w3.eth.get_transaction(log["transactionHash"])
        args = log["args"]
        return SettledBatch(
            batch_id=args["batch_id"],
            journal_sequence=args["journal_sequence"],
            journal_hash=bytes(args["journal_hash"]),
            batch_hash=bytes(args["batch_hash"]),
            block=log["blockNumber"],
            calldata=bytes(transaction["input"])[SELECTOR_BYTES:],
        )

    logs = await vault.events.BatchSettled.get_logs(from_block=manifest.genesis_block)
    return await _all(with_calldata(log) for log in logs)


async def _all(work: Iterable[Awaitable[Result]]) -> list[Result]:
    """Results in order; the reader's gate bounds how many run at once."""
    return list(await asyncio.gather(*work))
