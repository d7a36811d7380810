"""A batch of anybody: the overdue entries at the head of the inbox, built from contract state alone.

It is what an owner, or whoever wants the bonds, sends when the sequencer does not execute the inbox; the rules are in
docs/settlement.md.
"""

from typing import Any

import msgspec
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3.types import TxReceipt

from evermark.chain.artifacts import load_artifact
from evermark.chain.exit import ExitContracts, ExitRefused
from evermark.chain.rpc import read_again
from evermark.chain.transactions import TransactionSender
from evermark.chain.vault import PUBLIC_LANE, SEQUENCER_LANE, InboxKind, decode_round
from evermark.protocol.batch import NO_INDEX, Batch, InboxUse, encode_batch
from evermark.protocol.oracle import Round, prices_hash

MAX_ROUND_AGE_S = 120  # the vault takes no older one
MOST_ENTRIES = 32  # the inbox hands out no more at once
MARKET_P, MAX_PRICE_AGE_SHIFT = 0, 72  # word and bits of a market's largest price age (docs/settlement.md)


class Uses(msgspec.Struct):
    """The entries that a batch executes, and what its tables must name for them."""

    accounts: list[int]  # one per entry, 0: none
    pairs: set[tuple[int, int]]  # (account, market)


class OverdueWork:
    """Finds, builds and sends what is overdue."""

    def __init__(self, contracts: ExitContracts) -> None:
        self._contracts = contracts
        self._vault = contracts.vault.functions
        self._inbox = contracts.inbox.functions

    async def execute(self, sender: TransactionSender) -> int:
        """Settle the overdue entries at the head; how many. 0: nothing is overdue.

        Raises ExitRefused when they cannot be executed now, TransactionReverted with the vault's reason.
        """
        block_s = int((await read_again(lambda: self._contracts.w3.eth.get_block("latest")))["timestamp"])
        entries = await self._overdue(block_s)
        if not entries:
            return 0
        round_ = await self._newest_round()
        if block_s > round_.timestamp + MAX_ROUND_AGE_S:
            raise ExitRefused(
                f"exit: the oracle's newest round is {block_s - round_.timestamp} s old, and executing needs one of the "
                f"last {MAX_ROUND_AGE_S} s. Without keepers, freeze once the head is a day overdue"
            )
        uses = await self._uses(entries, round_)
        if not uses.accounts:
            raise ExitRefused(
                "exit: the first entry withdraws from a position whose price is stale, and waits for a price"
            )
        await self._send(sender, await self._batch(uses, round_))
        return len(uses.accounts)

    async def _overdue(self, block_s: int) -> list[Any]:
        """Entries from the head on that are overdue and of a kind known here."""
        head, tail = await _read(self._inbox.head()), await _read(self._inbox.tail())
        entries = []
        for number in range(head, min(tail, head + MOST_ENTRIES)):
            entry = await _read(self._inbox.entry(number))
            if entry.due >= block_s or entry.kind not in list(InboxKind):
                break
            entries.append(entry)
        return entries

    async def _newest_round(self) -> Round:
        """Of both lanes; the sequencer's where they are equal."""
        plain = self._contracts.w3.eth.contract(
            address=self._contracts.vault.address, abi=load_artifact("vault").abi
        )
        address = (await read_again(plain.functions.clerk_task().call))[2]
        oracle = self._contracts.w3.eth.contract(
            address=to_checksum_address(address), abi=load_artifact("oracle").abi
        ).functions
        newest = {lane: await _read(oracle.last_round(lane)) for lane in (SEQUENCER_LANE, PUBLIC_LANE)}
        lane = PUBLIC_LANE if newest[PUBLIC_LANE] > newest[SEQUENCER_LANE] else SEQUENCER_LANE
        if not newest[lane]:
            raise ExitRefused("exit: the oracle has no round yet")
        words = await _read(oracle.round_words(lane, newest[lane]))
        return decode_round(words, await _read(self._vault.market_count()))

    async def _uses(self, entries: list[Any], round_: Round) -> Uses:
        """Up to the first withdrawal whose prices are stale."""
        uses, new = Uses([], set()), dict[tuple[str, int], int]()
        next_id = (await _read(self._vault.totals())).accounts + 1
        for entry in entries:
            key = (entry.owner, entry.sub_account)
            account = 0
            if entry.kind != InboxKind.DONATION:
                account = await _read(self._vault.account_of(*key)) or new.get(key, 0)
            if not account and entry.kind == InboxKind.DEPOSIT:
                account = new[key] = next_id
                next_id += 1
            if account and entry.kind == InboxKind.WITHDRAWAL:
                markets = await self._open_markets(account)
                if not all([await self._is_fresh(market, round_) for market in markets]):
                    break
                uses.pairs |= {(account, market) for market in markets}
            uses.accounts.append(account)
        return uses

    async def _open_markets(self, account: int) -> list[int]:
        count = await _read(self._vault.market_count())
        return [
            market for market in range(count) if (await _read(self._vault.position(account, market))).size
        ]

    async def _is_fresh(self, market: int, round_: Round) -> bool:
        words = await _read(self._vault.market_words(market))
        return round_.prices[market].is_fresh(
            round_.timestamp, words[MARKET_P] >> MAX_PRICE_AGE_SHIFT & 0xFFFF
        )

    async def _batch(self, uses: Uses, round_: Round) -> bytes:
        accounts = sorted({account for account in uses.accounts if account})
        at = {account: index for index, account in enumerate(accounts)}
        return encode_batch(
            Batch(
                batch_id=(await _read(self._vault.totals())).batch_id + 1,
                round=round_.round,
                prices_hash=prices_hash(round_),
                journal_sequence=0,
                journal_hash=bytes(32),
                fee_classes=(),
                markets=tuple(sorted({market for _, market in uses.pairs})),
                accounts=tuple(accounts),
                pairs=tuple(sorted((at[account], market) for account, market in uses.pairs)),
                orders=(),
                inbox=tuple(InboxUse(at[account] if account else NO_INDEX) for account in uses.accounts),
            )
        )

    async def _send(self, sender: TransactionSender, batch: bytes) -> TxReceipt:
        vault = self._contracts.vault
        return await sender.send(vault.address, bytes(HexBytes(vault.encode_abi("settle"))) + batch)


async def _read(call: Any) -> Any:
    return await read_again(call.call)
