"""An exchange on titanoboa with a vault, an oracle, an inbox and a token, and a builder of signed batches for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boa
from boa.util.abi import Address
from eth_abi import decode as abi_decode
from eth_hash.auto import keccak
from lens_views import with_views

from evermark.protocol import batch as codec
from evermark.protocol import merkle, oracle, signing
from evermark.protocol.margin import AccountMargin, funding_owed
from evermark.protocol.markets import MAX_JUMP_PPM, Market, load_markets
from evermark.protocol.orders import (
    ApproveAgent,
    Cancel,
    Order,
    OrderBatch,
    Side,
    TimeInForce,
    Transfer,
    Withdraw,
)
from tests import compiled_contracts
from tests.compiled_contracts import CONTRACTS

MARKETS = load_markets()
START_S = 1_800_000_000
ROUND_S = 10
NOBODY = "0x" + "00" * 20
DEPOSITS_WORD = 2**39 + 515  # what the outflow limits are shares of
FROZEN_BATCH_ID = 2**48 - 1
USDC = 1_000_000
SELECTOR = keccak(b"settle()")[:4]
ERROR_STRING = keccak(b"Error(string)")[:4]
ABI = CONTRACTS / "artifacts" / "MarginVault.json"
MOCKS = Path(__file__).parent / "mocks"
ORACLE_KEEPER = signing.Signer(b"\x01" * 32)
FUNDING_KEEPER = signing.Signer(b"\x02" * 32)


def deployer(name: str) -> Any:
    """A contract, or a mock of this directory."""
    return compiled_contracts.deployer(name, MOCKS)


def signer(number: int) -> signing.Signer:
    """The trader of this number; always the same key."""
    return signing.Signer((1_000 + number).to_bytes(32, "big"))


def market_config(market: Market, **changes: Any) -> tuple[Any, ...]:
    """The vault's MarketConfig of a market."""
    values = {
        "symbol": market.symbol,
        "lot_tick_value": market.lot_tick_value,
        "price_band_ppm": market.price_band_ppm,
        "liquidation_fee_ppm": market.liquidation_fee_ppm,
        "max_price_age_s": market.max_price_age_s,
        "open_interest_cap_lots": market.open_interest_cap_lots,
        "fund_position_cap_lots": market.fund_position_cap_lots,
        "tiers": [(tier.lower_notional // USDC, tier.initial_fraction_ppm) for tier in market.tiers],
    }
    return tuple((values | changes).values())


@dataclass(eq=False)
class Row:
    """An order on its way into a batch; `index` is known once the batch is built."""

    signer: signing.Signer
    order: Order
    account: int
    market: int
    fee_class: int
    signature: signing.Signature
    index: int = -1
    path: merkle.Path | None = None
    builder: int = 0  # account that the batch names, when it is not the signed builder's


@dataclass
class Party:
    """A registered trader: key, account id, sub-account."""

    signer: signing.Signer
    account: int
    sub_account: int = 0


def signed_128(word: int) -> int:
    """The lowest 128 bits as a signed integer."""
    return (word & (2**128 - 1) ^ 2**127) - 2**127


class Exchange:
    """All contracts of an exchange, deployed on boa's current chain; time moves with `round`."""

    def __init__(
        self,
        markets: tuple[Market, ...] = MARKETS,
        token: str = "TestUSDC",
        bond_gas_price: int = 0,
        uptime_feed: str = NOBODY,
    ) -> None:
        self.markets = markets
        self.sequencer = boa.env.generate_address("sequencer")
        self.governor = boa.env.generate_address("governor")
        self.clock = START_S
        boa.env.timestamp = START_S
        self.token = deployer(token).deploy()
        keeper = [Address(ORACLE_KEEPER.address)]
        funding_keeper = [Address(FUNDING_KEEPER.address)]
        self.jumps = [MAX_JUMP_PPM] * len(markets)  # tests crash prices from one round to the next
        self.oracle = deployer("PriceOracle").deploy(
            ROUND_S, 1, self.jumps, keeper, 1, funding_keeper, self.sequencer, self.governor, uptime_feed
        )
        # Vault, exit and inbox name each other, so the vault's address is chosen first.
        self.vault_address = boa.env.generate_address("vault")
        self.exit = deployer("Exit").deploy(self.vault_address)
        self.inbox = deployer("Inbox").deploy(
            self.token.address, self.vault_address, self.exit.address, self.governor, bond_gas_price
        )
        self.vault = self._deploy_vault()
        self.proposer, self.guardian = (boa.env.generate_address(role) for role in ("proposer", "guardian"))
        named = (self.vault_address, self.inbox.address, self.oracle.address, self.proposer, self.guardian)
        self.governance = deployer("Governor").deploy(*named, override_address=self.governor)
        self.separator = bytes(self.vault.domain_separator())
        self.oracle_keeper = ORACLE_KEEPER
        self.last = tuple(oracle.NO_PRICE for _ in markets)
        self.pinned: oracle.Round | None = None
        self.parties: dict[int, Party] = {}
        self.next_sequence = START_S * 1000

    def _deploy_vault(self) -> Any:
        self.clerk, self.backstop, self.reasons, self.verifier, self.lens = (
            deployer(name).deploy() for name in ("Clerk", "Backstop", "Reasons", "OrderVerifier", "Lens")
        )
        arguments = [self.token, self.oracle, self.inbox, self.clerk, self.backstop, self.reasons]
        arguments += [self.verifier, self.lens, self.exit]
        arguments = [contract.address for contract in arguments] + [self.sequencer]
        configs = [market_config(market) for market in self.markets]
        vault = deployer("MarginVault").deploy(*arguments, configs, override_address=self.vault_address)
        return with_views(vault)

    def list_market(self, market: Market) -> None:
        """Learn of a market that the governor listed: from the next round on it may have a price."""
        self.markets = (*self.markets, market)
        self.last = (*self.last, oracle.NO_PRICE)
        self.jumps = [*self.jumps, market.jump_ppm_per_s]

    def branch(self) -> Exchange:
        """The same exchange for one test: what it learns of the chain stays in this copy."""
        copied = copy.copy(self)
        copied.parties = dict(self.parties)
        boa.env.timestamp = self.clock
        return copied

    def sequence(self) -> int:
        """A fresh, growing order or action sequence."""
        self.next_sequence += 1
        return self.next_sequence

    def round(
        self, marks: dict[int, int] | None = None, seconds: int = ROUND_S, abstain: Iterable[int] = ()
    ) -> oracle.Round:
        """Moves time on and posts a round: index = mark = the price of each market, the last one when not given."""
        self.clock += seconds
        boa.env.timestamp = self.clock
        given = dict(enumerate(price.mark_ticks for price in self.last)) | (marks or {})
        prices = tuple(
            0 if market in abstain else oracle.pack_price(mark, mark)
            for market, mark in sorted(given.items())
        )
        report = signing.PriceReport(round=self.clock // ROUND_S, timestamp=self.clock, prices=prices)
        separator = bytes(self.oracle.domain_separator())
        signature = self.oracle_keeper.sign(signing.digest(separator, report))
        entry = (report.round, report.timestamp, prices, signature.r, signature.s, 27 + signature.parity)
        self.oracle.post_round([entry], sender=self.sequencer)
        self.pinned = oracle.aggregate([report], 1, self.last, self.jumps)
        self.last = self.pinned.prices
        return self.pinned

    def post_public(
        self, marks: dict[int, int], abstain: Iterable[int] = (), seconds: int = ROUND_S
    ) -> oracle.Round:
        """Moves time on and has anybody post a first round in the public lane, which the sequencer does not pin."""
        self.clock += seconds
        boa.env.timestamp = self.clock
        given = dict(enumerate(price.mark_ticks for price in self.last)) | marks
        prices = tuple(
            0 if market in abstain else oracle.pack_price(mark, mark)
            for market, mark in sorted(given.items())
        )
        report = signing.PriceReport(round=self.clock // ROUND_S, timestamp=self.clock, prices=prices)
        signature = ORACLE_KEEPER.sign(signing.digest(bytes(self.oracle.domain_separator()), report))
        entry = (report.round, report.timestamp, prices, signature.r, signature.s, 27 + signature.parity)
        self.oracle.post_round_public([entry])
        return oracle.aggregate([report], 1, tuple(oracle.NO_PRICE for _ in self.markets), self.jumps)

    def post_funding(self, hour: int, rates: dict[int, int]) -> None:
        """Posts one hour's rates, signed by the funding keeper."""
        given = tuple(rates.get(market.market_id, 0) for market in self.markets)
        report = signing.FundingReport(hour=hour, rates_ppb=given, samples=bytes(32))
        separator = bytes(self.oracle.domain_separator())
        signature = FUNDING_KEEPER.sign(signing.digest(separator, report))
        entry = (hour, given, bytes(32), signature.r, signature.s, 27 + signature.parity)
        self.oracle.post_funding([entry])

    def fund_wallet(self, owner: signing.Signer, amount: int) -> Address:
        """Mints tokens to a trader and approves the inbox."""
        address = Address(owner.address)
        self.token.mint(address, amount)
        self.token.approve(self.inbox.address, amount, sender=address)
        return address

    def deposit(self, number: int, amount: int, sub_account: int = 0) -> Party:
        """A trader's deposit, consumed by a batch of its own; registers the account when it is new."""
        owner = signer(number)
        self.inbox.deposit(amount, sub_account, sender=self.fund_wallet(owner, amount))
        account = (
            self.vault.account_of(Address(owner.address), sub_account) or self.vault.totals().accounts + 1
        )
        batch = self.batch()
        batch.inbox(account)
        batch.settle()
        party = Party(owner, account, sub_account)
        self.parties[account] = party
        return party

    def donate(self, amount: int) -> None:
        """A donation to the insurance fund, consumed by a batch of its own."""
        self.inbox.donate(amount, sender=self.fund_wallet(signer(999), amount))
        batch = self.batch()
        batch.inbox(None)
        batch.settle()

    def batch(self, **header: Any) -> Builder:
        """An empty batch, next in order, at the pinned round."""
        return Builder(self, header)

    def margin(self, account: int) -> AccountMargin:
        """The account's margin at the pinned round, by the Python formulas on the vault's state."""
        margin = AccountMargin(self.vault.account(account).collateral)
        for market in self.markets:
            position = self.vault.position(account, market.market_id)
            if position.size:
                cumulative = self.vault.market_state(market.market_id).cumulative_funding
                owed = funding_owed(position.size, cumulative, position.entry_cumulative)
                margin.add_position(market, position.size, self.last[market.market_id].mark_ticks, owed)
        return margin

    def check_invariants(self) -> None:
        """Invariants 1 and 2 of the protocol: tokens are conserved, sizes sum to zero, open interest is the longs'."""
        totals = self.vault.totals()
        accounts = range(1, totals.accounts + 1)
        collateral = sum(self.vault.account(account).collateral for account in accounts)
        claims = sum(self.vault.claim(claim).amount for claim in range(1, totals.claims + 1))
        assert collateral + totals.funding_pool + claims == totals.credited
        if totals.batch_id != FROZEN_BATCH_ID:  # what an exit pays counts nowhere
            assert signed_128(self.vault.word(DEPOSITS_WORD)) == collateral + totals.funding_pool
        assert totals.credited + self.inbox.unconsumed() <= self.token.balanceOf(self.vault.address)
        assert totals.dust < 10**12
        for market in self.markets:
            sizes = [self.vault.position(account, market.market_id).size for account in accounts]
            assert sum(sizes) == 0
            longs = sum(size for size in sizes if size > 0)
            assert self.vault.market_state(market.market_id).open_interest == longs
        for account in accounts:
            named = [self.vault.position(account, market.market_id).size != 0 for market in self.markets]
            assert self.vault.account(account).open_positions == sum(named)


@dataclass(eq=False)
class Builder:
    """Collects the parts of one batch, sorts its tables, and sends it. Parts name accounts and rows, not indexes."""

    exchange: Exchange
    header: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    uses: list[int | None] = field(default_factory=list)
    actions: list[tuple[int, Any, signing.Signature]] = field(default_factory=list)
    hours: list[int] = field(default_factory=list)
    bits: list[Row] = field(default_factory=list)
    fills: list[tuple[int, Any, Any, int, int | None]] = field(default_factory=list)
    withdrawals: list[tuple[int, Withdraw, int, signing.Signature]] = field(default_factory=list)
    named: set[tuple[int, int]] = field(default_factory=set)
    accounts: set[int] = field(default_factory=set)
    targets: dict[Transfer, int] = field(default_factory=dict)
    markets: set[int] = field(default_factory=set)
    fee_classes: tuple[tuple[int, int], ...] = ((100, 400),)

    def order(self, party: Party, side: Side, size: int, price: int, **more: Any) -> Row:
        """Signs an order and adds its row. `slot` 0 makes an IOC; `by` signs instead of the owner."""
        by, market = more.pop("by", party.signer), more.pop("market", 0)
        fee_class = more.pop("fee_class", 0)
        slot = more.pop("slot", 0)
        values = {
            "max_fee_ppm": 1_000,
            "sequence": 0,
            "expiry": self.exchange.clock + 3_600,
            "time_in_force": TimeInForce.GTC if slot else TimeInForce.IOC,
        } | more
        values["sequence"] = values["sequence"] or self.exchange.sequence()
        order = Order(
            owner=party.signer.address,
            sub_account=party.sub_account,
            market=self.exchange.markets[market].symbol,
            side=side,
            size=size,
            limit_price=price,
            slot=slot,
            **values,
        )
        signature = by.sign(signing.digest(self.exchange.separator, order))
        row = Row(party.signer, order, party.account, market, fee_class, signature)
        self.rows.append(row)
        return row

    def sign_together(self, rows: list[Row], by: signing.Signer) -> None:
        """One `OrderBatch` signature in place of the rows' own."""
        root, paths = merkle.merkle_paths([signing.struct_hash(row.order) for row in rows])
        message = OrderBatch(root=root)
        signature = by.sign(signing.digest(self.exchange.separator, message))
        for row, path in zip(rows, paths, strict=True):
            row.signature, row.path = signature, path

    def again(self, row: Row) -> Row:
        """The same signed order in another batch."""
        copy = replace(row, index=-1)
        self.rows.append(copy)
        return copy

    def fill(self, maker: Row, taker: Row, size: int) -> None:
        self.fills.append((codec.FILL_ORDERS, maker, taker, size, None))

    def trade(self, maker: Party, taker: Party, side: Side, size: int, price: int, market: int = 0) -> None:
        """Maker and taker orders of one size and price and their fill; `side` is the taker's."""
        resting = self.order(maker, side.opposite, size, price, market=market, slot=1)
        self.fill(resting, self.order(taker, side, size, price, market=market), size)

    def liquidate(self, account: int, market: int, maker: Row, size: int, keeper: int | None = None) -> None:
        self.fills.append((codec.FILL_LIQUIDATION, (account, market), maker, size, keeper))

    def take_over(self, account: int, market: int, size: int, keeper: int | None = None) -> None:
        self.fills.append((codec.FILL_TAKEOVER, (account, market), (1, market), size, keeper))

    def deleverage(self, account: int, market: int, counterparty: int, size: int) -> None:
        self.name(1)
        self.fills.append((codec.FILL_DELEVERAGE, (account, market), (counterparty, market), size, None))

    def force(self, account: int, market: int, counterparty: int, size: int) -> None:
        self.fills.append((codec.FILL_FORCED, (account, market), (counterparty, market), size, None))

    def settle_in_cash(self, account: int, market: int, counterparty: int, size: int) -> None:
        self.fills.append((codec.FILL_CASH, (account, market), (counterparty, market), size, None))

    def force_on_book(self, account: int, market: int, maker: Row, size: int) -> None:
        self.fills.append((codec.FILL_FORCED_ON_BOOK, (account, market), maker, size, None))

    def fill_fund(self, taker: Row, size: int) -> None:
        self.fills.append((codec.FILL_FUND, taker, (1, taker.market), size, None))

    def inbox(self, account: int | None) -> None:
        self.uses.append(account)

    def name(self, account: int) -> None:
        """Names the account with all its open positions."""
        self.accounts.add(account)
        for market in self.exchange.markets:
            if self.exchange.vault.position(account, market.market_id).size:
                self.named.add((account, market.market_id))

    def cancel(self, party: Party, by: signing.Signer | None = None, **values: Any) -> None:
        message = Cancel(**self._common(party) | {"all_slots": False, "slot": 0} | values)
        self._action(party, message, by)

    def approve(
        self, party: Party, agent: bytes, expiry: int, by: signing.Signer | None = None, **values: Any
    ) -> None:
        defaults = {"agent": agent, "agent_expiry": expiry, "transfer_cap": 0}
        defaults["action_sequence"] = self.exchange.sequence()
        self._action(party, ApproveAgent(**self._common(party) | defaults | values), by)

    def transfer(
        self,
        party: Party,
        to_sub_account: int,
        amount: int,
        by: signing.Signer | None = None,
        target: int = 0,
        **values: Any,
    ) -> None:
        """`target` is the account that the batch names: the sub-account's, or the next id."""
        vault = self.exchange.vault
        known = vault.account_of(Address(party.signer.address), to_sub_account)
        defaults = {"to_sub_account": to_sub_account, "amount": amount}
        defaults["action_sequence"] = vault.account(party.account).action_sequence + 1
        message = Transfer(**self._common(party) | defaults | values)
        self.targets[message] = target or known or vault.totals().accounts + 1
        self.accounts.add(self.targets[message])
        self._action(party, message, by)

    def withdraw(
        self, party: Party, amount: int, fee: int = 0, by: signing.Signer | None = None, **values: Any
    ) -> None:
        defaults = {"amount": amount, "max_fee": fee, "action_sequence": self.exchange.sequence()}
        message = Withdraw(**self._common(party) | defaults | values)
        signature = (by or party.signer).sign(signing.digest(self.exchange.separator, message))
        self.withdrawals.append((party.account, message, fee, signature))

    def _common(self, party: Party) -> dict[str, Any]:
        deadline = self.exchange.clock + 60
        return {"owner": party.signer.address, "sub_account": party.sub_account, "deadline": deadline}

    def _action(self, party: Party, message: Any, by: signing.Signer | None) -> None:
        signature = (by or party.signer).sign(signing.digest(self.exchange.separator, message))
        self.actions.append((party.account, message, signature))

    def build(self) -> codec.Batch:
        """The batch with its tables sorted; every party of a fill is named with all its open positions."""
        pairs = {(row.account, row.market) for row in self.rows} | self.named
        keepers = {keeper for *_, keeper in self.fills if keeper is not None}
        for _, first, second, _, _ in self.fills:
            pairs |= {part for part in (first, second) if isinstance(part, tuple)}
        accounts = (
            {account for account, _ in pairs} | {use for use in self.uses if use} | keepers | self.accounts
        )
        accounts |= {account for account, *_ in (*self.actions, *self.withdrawals)}
        known = self.exchange.vault.totals().accounts
        for account in accounts:
            for market in self.exchange.markets:
                if account <= known and self.exchange.vault.position(account, market.market_id).size:
                    pairs.add((account, market.market_id))
        accounts |= {row.builder or self._builder_of(row.order) for row in self.rows} - {0}
        ids = sorted(accounts)
        at = {account: index for index, account in enumerate(ids)}
        table = sorted((at[account], market) for account, market in pairs)
        self.rows.sort(key=lambda row: (row.account, row.order.slot, row.order.sequence))
        for index, row in enumerate(self.rows):
            row.index = index
        pinned = self.exchange.pinned
        assert pinned is not None
        values: dict[str, Any] = {
            "batch_id": self.exchange.vault.totals().batch_id + 1,
            "round": pinned.round,
            "prices_hash": oracle.prices_hash(pinned),
            "journal_sequence": 7,
            "journal_hash": b"\x07" * 32,
            "fee_classes": self.fee_classes,
            "markets": tuple(sorted({market for _, market in pairs} | self.markets)),
            "accounts": tuple(ids),
            "pairs": tuple(table),
            "orders": tuple(self._row(row, at, table) for row in self.rows),
            "inbox": tuple(codec.InboxUse(codec.NO_INDEX if use is None else at[use]) for use in self.uses),
            "actions": tuple(self._packed_action(at, *action) for action in self.actions),
            "funding_hours": tuple(self.hours),
            "triggers": tuple(codec.TriggerBit(row.index) for row in self.bits),
            "fills": tuple(self._fill(at, table, *fill) for fill in self.fills),
            "withdrawals": tuple(
                codec.Withdrawal(at[account], message, fee, signature)
                for account, message, fee, signature in self.withdrawals
            ),
        }
        return codec.Batch(**values | self.header)

    def _row(self, row: Row, at: dict[int, int], table: list[tuple[int, int]]) -> codec.OrderRow:
        pair = table.index((at[row.account], row.market))
        builder = row.builder or self._builder_of(row.order)
        index = at[builder] if builder else codec.NO_INDEX
        return codec.OrderRow(pair, row.fee_class, row.order, row.signature, row.path, index)

    def _builder_of(self, order: Order) -> int:
        """The account that the order's builder is paid on, 0 for none."""
        if not order.max_builder_fee_ppm:
            return 0
        return int(self.exchange.vault.account_of(Address(order.builder), 0))

    def write_off(self, account: int) -> None:
        self.name(1)
        self.actions.append((account, None, signing.Signature(0, 0, 0)))

    def _packed_action(
        self, at: dict[int, int], account: int, message: Any, signature: signing.Signature
    ) -> Any:
        if message is None:
            return codec.WriteOff(at[account])
        if isinstance(message, Transfer):
            return codec.CollateralTransfer(at[account], at[self.targets[message]], message, signature)
        kind = codec.SlotCancel if isinstance(message, Cancel) else codec.AgentApproval
        return kind(at[account], message, signature)

    def _fill(
        self,
        at: dict[int, int],
        table: list[tuple[int, int]],
        kind: int,
        first: Any,
        second: Any,
        size: int,
        keeper: int | None,
    ) -> codec.Fill:
        def index(part: Any) -> int:
            return part.index if isinstance(part, Row) else table.index((at[part[0]], part[1]))

        named = codec.NO_INDEX if keeper is None else at[keeper]
        return codec.Fill(kind, index(first), index(second), size, named)

    def data(self) -> bytes:
        return SELECTOR + codec.encode_batch(self.build())

    def settle(self, sender: Any = None) -> Any:
        """Sends the batch, as the sequencer unless `sender` is given, and returns the computation; a revert raises Refused."""
        return send(self.exchange, self.data(), sender)


class Refused(Exception):
    """The vault reverted, with this reason; empty where only Vyper's own checks (bounds, overflow) refused."""


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """Fails unless what runs inside is refused by the vault with exactly this reason."""
    try:
        yield
    except Refused as refusal:
        if str(refusal) != reason:
            raise AssertionError(f"refused with {refusal}, instead of: {reason}") from refusal
        return
    raise AssertionError(f"settled, instead of: {reason}")


def send(exchange: Exchange, data: bytes, sender: Any = None) -> Any:
    """Raw calldata to the vault, by the sequencer unless `sender` is given. Raises Refused."""
    computation = boa.env.execute_code(
        to_address=exchange.vault.address,
        sender=sender or exchange.sequencer,
        data=data,
        contract=exchange.vault,  # so that scripts/coverage sees what runs
    )
    if computation.is_error:
        output = bytes(computation.output)
        raise Refused(abi_decode(["string"], output[4:])[0] if output[:4] == ERROR_STRING else output.hex())
    return computation


def events(exchange: Exchange, computation: Any, name: str) -> list[Any]:
    """The vault's events of one name in a computation, as named tuples."""
    abi = json.loads(ABI.read_text())["abi"]
    (event,) = (item for item in abi if item["type"] == "event" and item["name"] == name)
    topic = int.from_bytes(keccak(_signature(event).encode()), "big")
    found = []
    for address, topics, data in computation.get_log_entries():
        if topics[0] != topic:
            continue
        assert bytes(address) == bytes.fromhex(exchange.vault.address[2:])
        indexed = iter(topics[1:])
        plain = iter(abi_decode([item["type"] for item in event["inputs"] if not item["indexed"]], data))
        values = {item["name"]: next(indexed if item["indexed"] else plain) for item in event["inputs"]}
        found.append(SimpleNamespace(**values))
    return found


def _signature(event: dict[str, Any]) -> str:
    return event["name"] + "(" + ",".join(item["type"] for item in event["inputs"]) + ")"
