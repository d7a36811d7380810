"""The vault as whoever executes overdue work needs it: what its state says, and batches over it, simulated and sent."""

from typing import Any

from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3.exceptions import ContractLogicError

from evermark.chain.artifacts import load_artifact
from evermark.chain.exit import ExitContracts, ExitRefused
from evermark.chain.rpc import read_again
from evermark.chain.transactions import TransactionSender
from evermark.chain.vault import PUBLIC_LANE, SEQUENCER_LANE, decode_round
from evermark.protocol.batch import INSURANCE_FUND, NO_INDEX, Batch, Fill, InboxUse, encode_batch
from evermark.protocol.oracle import Round, prices_hash

MAX_GAS = 2**24  # the cap of EIP-7825
MARKET_P, MAX_PRICE_AGE_SHIFT = 0, 72  # word and bits of a market's largest price age (docs/settlement.md)

Pair = tuple[int, int]  # account, market


class Draft:
    """A batch before its tables are sorted."""

    def __init__(self) -> None:
        self.uses: list[int] = []  # account of each entry that it consumes, 0: none
        self.accounts: set[int] = set()
        self.pairs: set[Pair] = set()
        self.fills: list[tuple[int, Pair, Pair, int, int]] = []  # kind, both pairs, lots, keeper account or 0

    def batch(self, batch_id: int, round_: Round) -> Batch:
        """The batch, which speaks for no journal."""
        named = {account for account, _ in self.pairs} | self.accounts | {use for use in self.uses if use}
        accounts = sorted(named | {keeper for *_, keeper in self.fills if keeper})
        at = {account: index for index, account in enumerate(accounts)}
        pairs = sorted((at[account], market) for account, market in self.pairs)
        place = {(accounts[index], market): number for number, (index, market) in enumerate(pairs)}
        return Batch(
            batch_id=batch_id,
            round=round_.round,
            prices_hash=prices_hash(round_),
            journal_sequence=0,
            journal_hash=bytes(32),
            fee_classes=(),
            markets=tuple(sorted({market for _, market in pairs})),
            accounts=tuple(accounts),
            pairs=tuple(pairs),
            orders=(),
            inbox=tuple(InboxUse(at[use] if use else NO_INDEX) for use in self.uses),
            fills=tuple(
                Fill(kind, place[first], place[second], size, at[keeper] if keeper else NO_INDEX)
                for kind, first, second, size, keeper in self.fills
            ),
        )


class OverdueVault:
    """Reads of the vault, and its `settle`."""

    def __init__(self, contracts: ExitContracts) -> None:
        self._contracts = contracts
        self._calls = contracts.vault.functions

    async def account_of(self, owner: str, sub_account: int) -> int:
        """Account id, 0 when not registered."""
        return int(await read(self._calls.account_of(owner, sub_account)))

    async def account_count(self) -> int:
        """The newest account id."""
        return int((await read(self._calls.totals())).accounts)

    async def size(self, account: int, market: int) -> int:
        """Lots of a position."""
        return int((await read(self._calls.position(account, market))).size)

    async def open_markets(self, account: int) -> list[int]:
        """Markets in which the account holds a position."""
        count = await read(self._calls.market_count())
        return [market for market in range(count) if await self.size(account, market)]

    async def word(self, key: int) -> int:
        """A word of the vault (docs/settlement.md)."""
        return int(await read(self._calls.word(key)))

    async def open_interest(self, market: int) -> int:
        """Lots."""
        return int((await read(self._calls.market_state(market))).open_interest)

    async def lot_tick_value(self, market: int) -> int:
        """Quote units per lot and tick."""
        return int((await read(self._calls.market_words(market)))[MARKET_P]) & 0xFFFFFFFF

    async def is_fresh(self, market: int, round_: Round) -> bool:
        """Whether the round's price of a market may decide."""
        words = await read(self._calls.market_words(market))
        return round_.prices[market].is_fresh(
            round_.timestamp, words[MARKET_P] >> MAX_PRICE_AGE_SHIFT & 0xFFFF
        )

    async def opposite(self, market: int, size: int) -> list[tuple[int, int]]:
        """(account, lots) whose position is opposite to `size`: the fund first, then the largest."""
        found = []
        for account in range(1, await self.account_count() + 1):
            held = await self.size(account, market)
            if held * size < 0:
                found.append((account != INSURANCE_FUND, -abs(held), account))
        return [(account, -lots) for _, lots, account in sorted(found)]

    async def name(self, draft: Draft, account: int) -> None:
        """Names an account with all its positions."""
        draft.accounts.add(account)
        draft.pairs |= {(account, market) for market in await self.open_markets(account)}

    async def newest_round(self) -> Round:
        """Of both lanes; the sequencer's where they are equal."""
        plain = self._contracts.w3.eth.contract(
            address=self._contracts.vault.address, abi=load_artifact("vault").abi
        )
        address = (await read_again(plain.functions.clerk_task().call))[2]
        oracle = self._contracts.w3.eth.contract(
            address=to_checksum_address(address), abi=load_artifact("oracle").abi
        ).functions
        newest = {lane: await read(oracle.last_round(lane)) for lane in (SEQUENCER_LANE, PUBLIC_LANE)}
        lane = PUBLIC_LANE if newest[PUBLIC_LANE] > newest[SEQUENCER_LANE] else SEQUENCER_LANE
        if not newest[lane]:
            raise ExitRefused("exit: the oracle has no round yet")
        words = await read(oracle.round_words(lane, newest[lane]))
        return decode_round(words, await read(self._calls.market_count()))

    async def simulate(self, sender: TransactionSender, draft: Draft, round_: Round) -> str | None:
        """The vault's reason to refuse a batch, None when it would settle."""
        data = HexBytes(await self._calldata(draft, round_))
        call = self._contracts.w3.eth.call
        where = self._contracts.vault.address
        try:
            await read_again(
                lambda: call({"from": sender.address, "to": where, "data": data, "gas": MAX_GAS})
            )
        except ContractLogicError as error:
            return (error.message or str(error)).removeprefix("execution reverted: ")
        return None

    async def settle(self, sender: TransactionSender, draft: Draft, round_: Round) -> None:
        """Send a batch. Raises TransactionReverted with the vault's reason."""
        await sender.send(self._contracts.vault.address, await self._calldata(draft, round_))

    async def _calldata(self, draft: Draft, round_: Round) -> bytes:
        batch = draft.batch((await read(self._calls.totals())).batch_id + 1, round_)
        return bytes(HexBytes(self._contracts.vault.encode_abi("settle"))) + encode_batch(batch)


async def read(call: Any) -> Any:
    """The answer to a view, asked again when a node is away."""
    return await read_again(call.call)
