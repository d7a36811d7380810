"""A small exchange for engine tests: applies commands with invariants checked, and settles every sealed batch
on the reference vault, which must reach the engine's integers."""

from itertools import count

import msgspec
from naive_vault import NaiveVault

from evermark.protocol.batch import AccountOwner, decode_batch, encode_batch
from evermark.protocol.markets import Market, Tier
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport, pack_price
from evermark.protocol.orders import (
    ApproveAgent,
    Cancel,
    Order,
    Side,
    Signature,
    TimeInForce,
    Transfer,
    Withdraw,
)
from evermark.protocol.signing import FundingReport, PriceReport
from sequencer.engine.apply import apply
from sequencer.engine.commands import (
    AgentApproval,
    BatchConfirmed,
    CancelOrder,
    ChainRestarted,
    DepositWaits,
    FundingHour,
    Genesis,
    InboxEntry,
    InboxEntryKind,
    OracleRound,
    PlaceOrder,
    SetMarketMode,
    TransferRequest,
    TriggerLiquidation,
    WithdrawRequest,
)
from sequencer.engine.events import BatchSealed, CommandRejected
from sequencer.engine.invariants import check_invariants
from sequencer.engine.state import EngineState

USDC = 10**6
START_S = 1_800_000_000
ROUND_S = 5
SIGNATURE = Signature(1, 1, 0)
KEEPERS = tuple(bytes([0xAA, n]) * 10 for n in range(1, 4))
GTC, GTD, IOC, FOK = TimeInForce.GTC, TimeInForce.GTD, TimeInForce.IOC, TimeInForce.FOK
BUY, SELL = Side.BUY, Side.SELL


def market(market_id: int = 0, **changes) -> Market:
    """A market at 20x, then 10x above 100,000 USDC; a lot at a tick is worth 100 quote units."""
    plain = Market(
        market_id=market_id,
        symbol=f"M{market_id}-PERP",
        base=f"M{market_id}",
        size_decimals=2,
        price_decimals=2,
        lot_tick_value=100,
        tiers=(Tier(0, 50_000, 0), Tier(100_000 * USDC, 100_000, 5_000 * USDC)),
        maker_fee_ppm=100,
        taker_fee_ppm=400,
        min_notional=10 * USDC,
        max_order_lots=10**9,
        open_interest_cap_lots=10**10,
        fund_position_cap_lots=10**8,
        price_band_ppm=50_000,
        mark_band_ppm=8_000,
        max_price_age_s=60,
        liquidation_fee_ppm=5_000,
        slice_notional=50_000 * USDC,
        impact_notional=10_000 * USDC,
        min_sources=3,
    )
    return msgspec.structs.replace(plain, **changes)


def owner_of(number: int) -> bytes:
    return number.to_bytes(20, "big")


class World:
    """An engine, its sequence numbers, and a vault that settles what is sealed."""

    def __init__(self, *markets: Market, prices: list[int] | None = None, settle: bool = True) -> None:
        self.markets = markets or (market(0), market(1))
        self.state = EngineState()
        self.vault = NaiveVault(self.markets) if settle else None
        self.confirms = True  # the chain confirms what is sealed with each round
        self.log = []
        self.sealed = []
        self.now_s = START_S
        self.hashes = count(1)
        self.sequences = count(1)
        self.apply(
            Genesis(
                chain_id=1,
                vault=bytes(20),
                oracle=bytes(20),
                round_seconds=ROUND_S,
                oracle_quorum=3,
                funding_quorum=3,
                oracle_keepers=KEEPERS,
                funding_keepers=KEEPERS,
                markets=self.markets,
            )
        )
        self.round(prices or [10_000] * len(self.markets), after_s=0)

    def apply(self, command):
        sequence = self.state.sequence + 1
        stamp_ms = self.now_s * 1000
        events = apply(self.state, command, sequence, stamp_ms)
        self.log.append((command, stamp_ms))
        check_invariants(self.state)
        if any(
            isinstance(event, BatchSealed) and event.batch.journal_sequence == sequence for event in events
        ):
            assert self.state.batch.is_empty, (
                "what a command does lies in the batches that name it, or after them all"
            )
        sealed = [event for event in events if isinstance(event, BatchSealed)]
        for event in sealed:
            self._settle(event)
        if sealed and self.vault is not None and self.state.batch.is_empty:
            self.assert_settled()
        return events

    def round(self, prices: list[int], after_s: int = ROUND_S, index: list[int] | None = None):
        """New marks (0 abstains), `after_s` later; the index is the mark unless given."""
        self.now_s += after_s
        packed = tuple(
            pack_price(spot, mark) if mark else 0 for spot, mark in zip(index or prices, prices, strict=True)
        )
        report = PriceReport(round=self.now_s // ROUND_S, timestamp=self.now_s, prices=packed)
        events = self.apply(
            OracleRound(reports=tuple(SignedPriceReport(report, keeper, SIGNATURE) for keeper in KEEPERS))
        )
        if self.confirms and self.state.sealed_batch > self.state.confirmed_batch:
            self.confirm(self.state.sealed_batch)
        return events

    def funding(self, rates: list[int], hour: int | None = None):
        """An hour's rates; the last full hour unless given."""
        hour = self.state.now // 3600 - 1 if hour is None else hour
        report = FundingReport(hour=hour, rates_ppb=tuple(rates), samples=bytes(32))
        return self.apply(
            FundingHour(reports=tuple(SignedFundingReport(report, keeper, SIGNATURE) for keeper in KEEPERS))
        )

    def entry(self, kind: InboxEntryKind, number: int, amount: int = 0, sub_account: int = 0, **fields):
        """The next inbox entry; `fields` are those that its kind needs."""
        return self.apply(
            InboxEntry(
                entry_id=self.state.next_entry_id,
                entry_kind=kind,
                owner=owner_of(number) if number else bytes(20),
                sub_account=sub_account,
                amount=amount,
                created=fields.pop("created", self.now_s),
                **fields,
            )
        )

    def trader(self, number: int, usdc: int = 100_000) -> int:
        """Deposit for the owner `number`; its account id."""
        self.entry(InboxEntryKind.DEPOSIT, number, usdc * USDC)
        return self.state.account_ids[owner_of(number), 0]

    def donate(self, usdc: int) -> None:
        self.entry(InboxEntryKind.DONATION, 0, usdc * USDC)

    def order(self, account: int, side: Side, size: int, price: int, tif=GTC, market_id=0, **fields):
        """Place an order; a fresh slot and sequence unless given."""
        holder = self.state.accounts[account]
        signer, path = fields.pop("signer", holder.owner), fields.pop("path", None)
        if "slot" not in fields:
            fields["slot"] = 0 if tif in (IOC, FOK) else self._free_slot(account)
        fields.setdefault("sequence", START_S * 1000 + next(self.sequences))
        fields.setdefault("expiry", self.now_s + 100_000)
        fields.setdefault("max_fee_ppm", 1_000)
        fields.setdefault("market", self.markets[market_id].symbol)
        order = Order(
            owner=holder.owner,
            sub_account=holder.sub_account,
            side=side,
            size=size,
            limit_price=price,
            time_in_force=tif,
            **fields,
        )
        return self.apply(
            PlaceOrder(
                account=account,
                order=order,
                order_hash=next(self.hashes).to_bytes(32, "big"),
                signature=SIGNATURE,
                signer=signer,
                path=path,
            )
        )

    def cancel(self, account: int, slot: int = 1, sequence: int | None = None, all_slots=False, **fields):
        holder = self.state.accounts[account]
        signer = fields.pop("signer", holder.owner)
        fields.setdefault("deadline", self.now_s + 60)
        cancel = Cancel(
            owner=holder.owner,
            sub_account=holder.sub_account,
            all_slots=all_slots,
            slot=slot,
            sequence=START_S * 1000 + next(self.sequences) if sequence is None else sequence,
            **fields,
        )
        return self.apply(CancelOrder(account=account, cancel=cancel, signature=SIGNATURE, signer=signer))

    def withdraw(self, account: int, amount: int, fee: int = 0, **fields):
        holder = self.state.accounts[account]
        fields.setdefault("max_fee", 10 * USDC)
        fields.setdefault("action_sequence", holder.action_sequence + 1)
        fields.setdefault("deadline", self.now_s + 60)
        signed = Withdraw(owner=holder.owner, sub_account=holder.sub_account, amount=amount, **fields)
        return self.apply(WithdrawRequest(account=account, withdraw=signed, fee=fee, signature=SIGNATURE))

    def transfer(self, account: int, to_sub_account: int, amount: int, **fields):
        """By the owner, or `signer`, whom the naive vault reads from the signature."""
        holder = self.state.accounts[account]
        signer = fields.pop("signer", holder.owner)
        fields.setdefault("action_sequence", holder.action_sequence + 1)
        fields.setdefault("deadline", self.now_s + 60)
        signed = Transfer(
            owner=holder.owner,
            sub_account=holder.sub_account,
            to_sub_account=to_sub_account,
            amount=amount,
            **fields,
        )
        signature = Signature(int.from_bytes(signer, "big"), 1, 0)
        return self.apply(
            TransferRequest(account=account, transfer=signed, signature=signature, signer=signer)
        )

    def approve(self, account: int, agent: bytes, life_s: int = 1_000, **fields):
        """Approve an agent; `life_s` 0 revokes."""
        holder = self.state.accounts[account]
        fields.setdefault("agent_expiry", self.now_s + life_s if life_s else 0)
        fields.setdefault("action_sequence", holder.action_sequence + 1)
        fields.setdefault("deadline", self.now_s + 60)
        fields.setdefault("transfer_cap", 0)
        approval = ApproveAgent(owner=holder.owner, sub_account=holder.sub_account, agent=agent, **fields)
        return self.apply(AgentApproval(account=account, approval=approval, signature=SIGNATURE))

    def outage(self, restarted: bool = True):
        """The chain was down within the last hour, or that hour is over."""
        self.vault.restarted = restarted
        return self.apply(ChainRestarted(restarted=restarted, block_number=1))

    def liquidate(self, account: int, market_id: int = 0, keeper_account: int = 0):
        return self.apply(
            TriggerLiquidation(
                account=account, market_id=market_id, keeper=KEEPERS[0], keeper_account=keeper_account
            )
        )

    def mode(self, mode, market_id: int = 0):
        return self.apply(SetMarketMode(market_id=market_id, mode=mode, reason="test"))

    def confirm(self, batch_id: int):
        return self.apply(BatchConfirmed(batch_id=batch_id, block_number=1))

    def next_round(self):
        """A round at the prices in force, which seals the open batch."""
        return self.round([at.mark for at in self.state.markets])

    def size(self, account: int, market_id: int = 0) -> int:
        position = self.state.accounts[account].positions.get(market_id)
        return position.size if position is not None else 0

    def collateral(self, account: int) -> int:
        return self.state.accounts[account].collateral

    def _free_slot(self, account: int) -> int:
        taken = self.state.accounts[account].slots
        return next(slot for slot in count(1) if slot not in taken)

    def _settle(self, sealed: BatchSealed) -> None:
        batch = sealed.batch
        accounts = self.state.accounts.values()
        owners = {
            account.account_id: AccountOwner(account.owner, account.sub_account) for account in accounts
        }
        symbols = [market.symbol for market in self.markets]
        assert decode_batch(encode_batch(batch), owners, symbols) == batch
        self.sealed.append(sealed)
        if self.vault is not None:
            offered = [command for command, _ in self.log if isinstance(command, InboxEntry)]
            by_id = {
                command.entry_id: self._waits(command)
                for command, _ in self.log
                if isinstance(command, DepositWaits)
            }
            by_id |= {entry.entry_id: entry for entry in offered}  # a refused one comes again
            entries = [by_id[entry_id] for entry_id in sorted(by_id)]
            funding = {
                command.reports[0].report.hour: command.reports[0].report.rates_ppb
                for command, _ in self.log
                if isinstance(command, FundingHour)
            }
            self.vault.settle(batch, sealed.round, entries, funding)

    @staticmethod
    def _waits(command: DepositWaits) -> InboxEntry:
        """What the model sees of a deposit that was not offered yet."""
        return InboxEntry(
            entry_id=command.entry_id,
            entry_kind=InboxEntryKind.DEPOSIT,
            owner=command.owner,
            sub_account=command.sub_account,
            amount=0,
            created=command.created,
        )

    def assert_settled(self) -> None:
        """With nothing open, vault and engine agree on every integer."""
        state, vault = self.state, self.vault
        for account_id, account in state.accounts.items():
            assert vault.collateral(account_id) == account.collateral, account_id
            for market_id, position in account.positions.items():
                ours = (position.size, position.entry_cumulative, position.entry_mark)
                assert vault.position(account_id, market_id) == ours, (account_id, market_id)
            for slot, seen in account.slots.items():
                if seen.used_sequence:
                    assert vault.slots[account_id, slot] == (seen.used_sequence, seen.filled)
            assert vault.taker_sequences.get(account_id, 0) == account.used_taker_sequence
            assert vault.action_sequences.get(account_id, 0) == account.action_sequence
            assert vault.min_sequences.get(account_id, 0) <= account.min_sequence
            assert vault.ids.get((account.owner, account.sub_account), account_id) == account_id
        for key, (expiry, cap) in state.agents.items():
            assert vault.agents[key] == (expiry, cap)
        assert (vault.pool, vault.dust) == (state.funding_pool, state.dust)
        assert vault.claimed == state.claimed
        assert (*vault.levels.values(), vault.last_claim) == state.outflow
        assert all(vault.dues[claim - 1] == due for due, claim, _, _ in state.delayed_claims)
        live = {key for key, (expiry, _) in vault.agents.items() if expiry}
        assert live == set(state.agents)
        for at in state.markets:
            assert vault.open_interest[at.market.market_id] == at.open_interest
            assert vault.cumulative[at.market.market_id] == at.cumulative


def rejection(events):
    """The refusal of a command that was refused, with nothing but sealed batches beside it."""
    refused = [event for event in events if isinstance(event, CommandRejected)]
    assert len(refused) == 1, events
    assert all(isinstance(event, CommandRejected | BatchSealed) for event in events), events
    return refused[0].reject


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]
