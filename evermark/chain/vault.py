"""Typed reads of vault, inbox and oracle, and the calls that an owner or the sequencer makes."""

import asyncio
import enum
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3.exceptions import ContractLogicError, Web3Exception
from web3.types import BlockIdentifier, TxReceipt

from evermark.chain.manifest import Manifest
from evermark.chain.postings import ReportsHidden, reports_that_make, reports_within
from evermark.chain.rpc import Web3, contract_of, read_again
from evermark.chain.transactions import TransactionSender
from evermark.protocol.oracle import (
    MarketPrice,
    Round,
    SignedFundingReport,
    SignedPriceReport,
    prices_hash,
)
from evermark.protocol.outflow import Outflow

SEQUENCER_LANE, PUBLIC_LANE = 0, 1
OUTFLOW_WORD = 2**39 + 516  # in the vault; contracts/modules/ledger.vy numbers them
MAX_UINT256 = 2**256 - 1


class VaultAccount(msgspec.Struct, frozen=True):
    """An account's words A and B; collateral in quote units, possibly negative."""

    owner: str
    sub_account: int
    collateral: int
    taker_sequence: int
    min_sequence: int
    action_sequence: int
    open_positions: int


class VaultPosition(msgspec.Struct, frozen=True):
    """Signed size in lots; entry cumulative funding scaled by 1e12; entry mark in ticks."""

    size: int
    entry_cumulative: int
    entry_mark: int


class VaultSlot(msgspec.Struct, frozen=True):
    """A slot's newest sequence and what that order filled, in lots."""

    sequence: int
    filled: int
    triggered: bool


class VaultAgent(msgspec.Struct, frozen=True):
    """A session key: expiry in unix seconds, cap in quote units."""

    expiry: int
    transfer_cap: int


class VaultMarket(msgspec.Struct, frozen=True):
    """A market's running state; open interest in lots."""

    cumulative_funding: int
    open_interest: int
    last_funding_hour: int


class VaultClaim(msgspec.Struct, frozen=True):
    """What waits to be paid to an owner; amount 0 once paid. `due`: payable from then on (unix seconds; 0: at once)."""

    owner: str
    amount: int
    due: int


class VaultTotals(msgspec.Struct, frozen=True):
    """The exchange's sums; `credited` = sum of collateral + funding pool + unpaid claims."""

    funding_pool: int
    dust: int
    batch_id: int
    inbox_head: int
    accounts: int
    claims: int
    credited: int


class InboxKind(enum.IntEnum):
    """Kinds of inbox entries, as the Inbox contract numbers them; the last two are the Governor contract's."""

    DEPOSIT = 1
    DONATION = 2
    WITHDRAWAL = 3
    CLOSE = 4
    CANCEL = 5
    APPROVE_AGENT = 6
    REVOKE_AGENT = 7
    LIQUIDATE = 8
    GOVERNOR = 9
    GUARDIAN = 10


class InboxItem(msgspec.Struct, frozen=True):
    """An inbox entry; times in unix seconds, amount in quote units, bond in wei."""

    kind: int
    owner: str
    sub_account: int
    amount: int
    created: int
    due: int
    bond: int
    data: int  # what the kind needs beyond that, packed as IInbox.vyi says


T = TypeVar("T", bound=msgspec.Struct)


class ExchangeContracts:
    """The contracts of one deployment. Every read takes the block as of which it is made."""

    def __init__(self, w3: Web3, manifest: Manifest) -> None:
        self.w3 = w3
        self.manifest = manifest
        self.token = contract_of(w3, manifest, "token")
        self.oracle = contract_of(w3, manifest, "oracle")
        self.inbox = contract_of(w3, manifest, "inbox")
        self.vault = contract_of(w3, manifest, "vault")

    # --- reads

    async def account(self, account_id: int, block: BlockIdentifier = "latest") -> VaultAccount:
        """An account by id; all zero for an unknown one."""
        return _struct(VaultAccount, await self._read(self.vault.functions.account(account_id), block))

    async def account_of(self, owner: str, sub_account: int, block: BlockIdentifier = "latest") -> int:
        """Account id, 0 when not registered."""
        call = self.vault.functions.account_of(to_checksum_address(owner), sub_account)
        return int(await self._read(call, block))

    async def position(self, account: int, market: int, block: BlockIdentifier = "latest") -> VaultPosition:
        """A position; size 0 when there is none."""
        return _struct(VaultPosition, await self._read(self.vault.functions.position(account, market), block))

    async def slot(self, account: int, slot: int, block: BlockIdentifier = "latest") -> VaultSlot:
        """An order slot; slot 0 is `VaultAccount.taker_sequence`."""
        return _struct(VaultSlot, await self._read(self.vault.functions.slot(account, slot), block))

    async def agent(self, account: int, agent: str, block: BlockIdentifier = "latest") -> VaultAgent:
        """A session key of an account; expiry 0 when it is none."""
        call = self.vault.functions.agent(account, to_checksum_address(agent))
        return _struct(VaultAgent, await self._read(call, block))

    async def market(self, market: int, block: BlockIdentifier = "latest") -> VaultMarket:
        """A market's running state."""
        return _struct(VaultMarket, await self._read(self.vault.functions.market_state(market), block))

    async def claim(self, claim: int, block: BlockIdentifier = "latest") -> VaultClaim:
        """A claim by id."""
        return _struct(VaultClaim, await self._read(self.vault.functions.claim(claim), block))

    async def outflow(self, block: BlockIdentifier = "latest") -> Outflow:
        """What left lately, as the outflow limits count it."""
        word = int(await self._read(self.vault.functions.word(OUTFLOW_WORD), block))
        return Outflow(word >> 40 & (2**104 - 1), word >> 144, word & (2**40 - 1))

    async def totals(self, block: BlockIdentifier = "latest") -> VaultTotals:
        """The exchange's sums and counters."""
        return _struct(VaultTotals, await self._read(self.vault.functions.totals(), block))

    async def inbox_range(self, block: BlockIdentifier = "latest") -> tuple[int, int]:
        """(id of the next entry to be consumed, id that the next new entry gets)."""
        head = await self._read(self.inbox.functions.head(), block)
        return int(head), int(await self._read(self.inbox.functions.tail(), block))

    async def inbox_entry(self, entry_id: int, block: BlockIdentifier = "latest") -> InboxItem:
        """An inbox entry, consumed or not."""
        return _struct(InboxItem, await self._read(self.inbox.functions.entry(entry_id), block))

    async def inbox_sums(self, block: BlockIdentifier = "latest") -> tuple[int, int]:
        """(quote units that wait unconsumed, quote units ever deposited or donated)."""
        unconsumed = await self._read(self.inbox.functions.unconsumed(), block)
        return int(unconsumed), int(await self._read(self.inbox.functions.deposited(), block))

    async def tokens_of(self, owner: str, block: BlockIdentifier = "latest") -> int:
        """Quote units of the token that an address holds."""
        return int(await self._read(self.token.functions.balanceOf(to_checksum_address(owner)), block))

    async def last_round(self, lane: int = SEQUENCER_LANE, block: BlockIdentifier = "latest") -> int:
        """Number of a lane's newest round, 0 before the first."""
        return int(await self._read(self.oracle.functions.last_round(lane), block))

    async def sequencer(self) -> str:
        """Who posts rounds and settles now; the governor may have rotated it."""
        return str(await self._read(self.oracle.functions.sequencer(), "latest"))

    async def market_count(self, block: BlockIdentifier = "latest") -> int:
        """How many markets the vault has, ids from 0."""
        return int(await self._read(self.vault.functions.market_count(), block))

    async def round(
        self, round_: int, lane: int = SEQUENCER_LANE, block: BlockIdentifier = "latest"
    ) -> Round:
        """A posted round, decoded. Raises ContractLogicError when the ring does not hold it."""
        words = await self._read(self.oracle.functions.round_words(lane, round_), block)
        return decode_round(words, await self.market_count(block))

    async def pinned_round(self, number: int, hash_: bytes) -> Round:
        """The round of either lane that has this number and hash of prices. Raises ContractLogicError when no ring holds it."""
        for lane in (SEQUENCER_LANE, PUBLIC_LANE):
            try:
                found = await self.round(number, lane)
            except ContractLogicError:
                continue
            if prices_hash(found) == hash_:
                return found
        raise ContractLogicError(f"oracle: no round {number} with the batch's prices")

    async def has_uptime_feed(self) -> bool:
        """The oracle watches outages of the chain; elsewhere `restarted` is never true."""
        return int(await self._read(self.oracle.functions.UPTIME_FEED(), "latest"), 16) != 0

    async def restarted(self, block: BlockIdentifier = "latest") -> bool:
        """The chain was down within the last hour, as of a block's time."""
        return bool(await self._read(self.oracle.functions.restarted(), block))

    async def funding_posted_at(self, hour: int, block: BlockIdentifier = "latest") -> int:
        """Block time at which an hour's rates were posted, 0 when they were not."""
        return int(await self._read(self.oracle.functions.funding_posted_at(hour), block))

    async def funding_rates(self, hour: int, block: BlockIdentifier = "latest") -> tuple[int, ...]:
        """An hour's rates, ppb by market id. Raises ContractLogicError when none were posted."""
        return tuple(await self._read(self.oracle.functions.funding_rates(hour), block))

    async def funding_keepers(self, among: Iterable[bytes]) -> frozenset[bytes]:
        """Those of these addresses that may report funding now."""
        return await self._registered(self.oracle.functions.is_funding_keeper, among)

    async def oracle_keepers(self, among: Iterable[bytes]) -> frozenset[bytes]:
        """Those of these addresses that may report prices now."""
        return await self._registered(self.oracle.functions.is_oracle_keeper, among)

    async def posted_funding(
        self, hour: int, known: Sequence[SignedFundingReport]
    ) -> tuple[SignedFundingReport, ...]:
        """Reports behind an hour's rates: those in the transaction that posted it, or a choice among them and `known` ones.

        Raises ReportsHidden when there is none, Web3Exception where the node shows no log of the posting.
        """
        logs = await self.oracle.events.FundingPosted.get_logs(
            from_block=self.manifest.genesis_block, argument_filters={"hour": hour}
        )
        if not logs:
            raise Web3Exception(f"hour {hour} is posted, but the node shows no log of it")
        rates = tuple(logs[-1]["args"]["rates_ppb"])
        data = bytes((await self.w3.eth.get_transaction(logs[-1]["transactionHash"]))["input"])
        separator = bytes(await self._read(self.oracle.functions.domain_separator(), "latest"))
        shown = list(dict.fromkeys(reports_within(data, hour, separator)))
        keepers = await self.funding_keepers({report.signer for report in shown})
        shown = [report for report in shown if report.signer in keepers]
        quorum = int(await self._read(self.oracle.functions.funding_quorum(), "latest"))
        for among in (shown, [*shown, *(report for report in known if report not in shown)]):
            found = await asyncio.to_thread(reports_that_make, rates, among, quorum)
            if found:
                return found
        raise ReportsHidden(
            f"oracle: hour {hour} was posted from reports that are neither known here nor to be seen in the transaction"
        )

    # --- calls of the sequencer

    def settle_calldata(self, batch: bytes) -> bytes:
        """`settle()` takes no ABI arguments: the encoded batch follows the selector."""
        return bytes(HexBytes(self.vault.encode_abi("settle"))) + batch

    def post_round_calldata(self, reports: Sequence[SignedPriceReport], public: bool = False) -> bytes:
        """`post_round`, or `post_round_public`; reports with ascending signers."""
        name = "post_round_public" if public else "post_round"
        rows = [(r.report.round, r.report.timestamp, list(r.report.prices), *_signature(r)) for r in reports]
        return bytes(HexBytes(self.oracle.encode_abi(name, args=[rows])))

    def post_funding_calldata(self, reports: Sequence[SignedFundingReport]) -> bytes:
        """`post_funding`; reports with ascending signers."""
        rows = [(r.report.hour, list(r.report.rates_ppb), r.report.samples, *_signature(r)) for r in reports]
        return bytes(HexBytes(self.oracle.encode_abi("post_funding", args=[rows])))

    def pay_calldata(self, claim: int) -> bytes:
        """`pay(claim)`."""
        return bytes(HexBytes(self.vault.encode_abi("pay", args=[claim])))

    # --- calls of an owner

    async def mint(self, sender: TransactionSender, to: str, amount: int) -> TxReceipt:
        """Make test tokens; only the test token lets anybody do so."""
        data = self.token.encode_abi("mint", args=[to_checksum_address(to), amount])
        return await sender.send(self.token.address, data)

    async def bond(self, kind: InboxKind) -> int:
        """Wei that an inbox entry of this kind posts, at least."""
        return int(await self._read(self.inbox.functions.bond(kind), "latest"))

    async def deposit(self, sender: TransactionSender, amount: int, sub_account: int = 0) -> int:
        """Approve once where needed, deposit `amount` quote units; the inbox entry's id."""
        await self._allow(sender, amount)
        return await self._ask(sender, InboxKind.DEPOSIT, "deposit", amount, sub_account)

    async def donate(self, sender: TransactionSender, amount: int) -> int:
        """Give `amount` quote units to the insurance fund; the inbox entry's id."""
        await self._allow(sender, amount)
        return await self._ask(sender, InboxKind.DONATION, "donate", amount)

    async def request_withdrawal(self, sender: TransactionSender, amount: int, sub_account: int = 0) -> int:
        """Queue a withdrawal that needs no sequencer; the inbox entry's id."""
        return await self._ask(sender, InboxKind.WITHDRAWAL, "request_withdrawal", sub_account, amount)

    async def request_close(
        self, sender: TransactionSender, market: int, lots: int, sub_account: int = 0
    ) -> int:
        """Queue that at most so many lots of a position be closed; the inbox entry's id."""
        return await self._ask(sender, InboxKind.CLOSE, "request_close", sub_account, market, lots)

    async def request_liquidation(self, sender: TransactionSender, account: int) -> int:
        """Queue that an account below two thirds of its maintenance be closed out; the inbox entry's id."""
        return await self._ask(sender, InboxKind.LIQUIDATE, "request_liquidation", account)

    async def request_cancel(
        self, sender: TransactionSender, slot: int, sequence: int, sub_account: int = 0
    ) -> int:
        """Queue the void of a slot (65535: all) up to a sequence; the inbox entry's id."""
        return await self._ask(sender, InboxKind.CANCEL, "request_cancel", sub_account, slot, sequence)

    async def approve_agent(
        self, sender: TransactionSender, agent: str, expiry: int, transfer_cap: int = 0, sub_account: int = 0
    ) -> int:
        """Queue a session key's approval; the inbox entry's id."""
        arguments = (sub_account, to_checksum_address(agent), expiry, transfer_cap)
        return await self._ask(sender, InboxKind.APPROVE_AGENT, "approve_agent", *arguments)

    async def revoke_agent(self, sender: TransactionSender, agent: str, sub_account: int = 0) -> int:
        """Queue a session key's end; the inbox entry's id."""
        agent = to_checksum_address(agent)
        return await self._ask(sender, InboxKind.REVOKE_AGENT, "revoke_agent", sub_account, agent)

    async def _allow(self, sender: TransactionSender, amount: int) -> None:
        allowed = self.token.functions.allowance(sender.address, self.inbox.address)
        if await self._read(allowed, "latest") < amount:
            approve = self.token.encode_abi("approve", args=[self.inbox.address, MAX_UINT256])
            await sender.send(self.token.address, approve)

    async def _ask(self, sender: TransactionSender, kind: InboxKind, call: str, *arguments: Any) -> int:
        """Add an inbox entry with its bond; its id."""
        data = self.inbox.encode_abi(call, args=list(arguments))
        return self._entry_id(await sender.send(self.inbox.address, data, value=await self.bond(kind)))

    def _entry_id(self, receipt: TxReceipt) -> int:
        mine = [log for log in receipt["logs"] if log["address"] == self.inbox.address]
        return int(self.inbox.events.EntryAdded().process_log(mine[-1])["args"]["id"])

    async def _registered(self, ask: Any, among: Iterable[bytes]) -> frozenset[bytes]:
        asked = {signer: ask(to_checksum_address(signer)) for signer in among}
        return frozenset([signer for signer, call in asked.items() if await self._read(call, "latest")])

    async def _read(self, call: Any, block: BlockIdentifier) -> Any:
        return await read_again(lambda: call.call(block_identifier=block))


def decode_round(words: Sequence[int], markets: int) -> Round:
    """The ring-buffer words of a round -> the round; inverse of `evermark.protocol.oracle.round_words`."""
    prices = []
    for market in range(min(markets, 2 * (len(words) - 1))):  # a round from before a listing has fewer
        half = words[1 + market // 2] >> 128 * (market % 2)
        index, mark, updated_at = half & 0xFFFFFFFF, half >> 32 & 0xFFFFFFFF, half >> 64 & (2**40 - 1)
        prices.append(MarketPrice(index, mark, updated_at, bool(half >> 104 & 1), half >> 105 & 3))
    return Round(words[0] & (2**40 - 1), words[0] >> 40, tuple(prices))


def _signature(signed: SignedPriceReport | SignedFundingReport) -> tuple[int, int, int]:
    return signed.signature.r, signed.signature.s, 27 + signed.signature.parity


def _struct(kind: type[T], values: Any) -> T:
    """A Solidity struct, which arrives as a tuple in field order -> our struct of the same fields."""
    return kind(*values)
