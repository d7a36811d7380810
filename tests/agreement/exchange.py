"""One exchange twice: the engine, and the real contracts on an in-process EVM, fed by the same commands.

Every batch that the engine seals is settled on the contracts at once; `compare` then holds the two against each other.
"""

import boa
from eth_hash.auto import keccak
from msgspec import structs

from evermark.protocol.batch import FIRST_USER_ACCOUNT, encode_batch
from evermark.protocol.markets import Market
from evermark.protocol.merkle import merkle_paths
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport, pack_price
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
from evermark.protocol.signing import (
    FundingReport,
    PriceReport,
    Signer,
    digest,
    domain_separator,
    struct_hash,
)
from sequencer.engine.apply import apply
from sequencer.engine.commands import (
    AgentApproval,
    BatchConfirmed,
    CancelOrder,
    FundingHour,
    Genesis,
    InboxEntry,
    OracleRound,
    PlaceOrder,
    TransferRequest,
    TriggerLiquidation,
    WithdrawRequest,
)
from sequencer.engine.events import BatchSealed
from sequencer.engine.state import EngineState
from tests.agreement.deployed import CHAIN_ID, ROUND_SECONDS, Contracts
from tests.agreement.inbox_calls import InboxCalls, hex_address, signer

ROUNDS_A_DAY = 86_400
DEPOSITS_WORD, OUTFLOW_WORD = 2**39 + 515, 2**39 + 516


class Exchange(InboxCalls, Contracts):
    """`send` applies a command to the engine; sealed batches go to the vault in the same call."""

    def __init__(self, markets: tuple[Market, ...], start_s: int) -> None:
        self.markets = markets
        self.now = start_s
        self.state = EngineState()
        self.sequence = 0
        self.keepers = sorted((signer(f"keeper {i}") for i in range(3)), key=lambda key: key.address)
        self.sequencer = signer("sequencer")
        self.proposer, self.guardian = signer("governor"), signer("guardian")
        self.settled = []
        self.posted: set[int] = set()
        self.reports: dict[int, tuple[SignedPriceReport, ...]] = {}
        self.entries = 0
        self.waiting: list[InboxEntry] = []
        self.clock_ms = 0
        self._deploy()
        self.separator = domain_separator(CHAIN_ID, self._raw(self.vault))
        self.oracle_separator = domain_separator(CHAIN_ID, self._raw(self.oracle), "Evermark Oracle")
        self.send(
            Genesis(
                chain_id=CHAIN_ID,
                vault=self._raw(self.vault),
                oracle=self._raw(self.oracle),
                round_seconds=ROUND_SECONDS,
                oracle_quorum=3,
                funding_quorum=3,
                oracle_keepers=tuple(key.address for key in self.keepers),
                funding_keepers=tuple(key.address for key in self.keepers),
                markets=markets,
            )
        )

    def send(self, command):
        """Apply one command; settle what it sealed; return its events."""
        self.sequence += 1
        self.clock_ms = max(self.clock_ms, self.now * 1000)
        events = self._apply(command)
        for event in events:
            if isinstance(event, BatchSealed):
                self.settle(event)
        return events

    def _apply(self, command):
        return apply(self.state, command, self.sequence, self.clock_ms)

    def settle(self, event: BatchSealed) -> None:
        """Post the rounds up to the batch's that are not there yet, and settle."""
        boa.env.evm.patch.timestamp = event.round.timestamp
        for number in sorted(self.reports):
            if max(self.posted, default=0) < number <= event.round.round:
                with boa.env.prank(hex_address(self.sequencer.address)):
                    self.oracle.post_round(self.report_rows(number))
                self.posted.add(number)
        batch = structs.replace(event.batch, journal_hash=b"\x11" * 32)
        data = keccak(b"settle()")[:4] + encode_batch(batch)
        with boa.env.prank(hex_address(self.sequencer.address)):
            result = boa.env.raw_call(self.vault.address, data=data)
            if result.is_error:
                self.vault.handle_error(result)
        self.settled.append(batch)

    def report_rows(self, number: int):
        """The signed reports of a round, as the oracle takes them."""
        return [
            (
                signed.report.round,
                signed.report.timestamp,
                list(signed.report.prices),
                signed.signature.r,
                signed.signature.s,
                27 + signed.signature.parity,
            )
            for signed in self.reports[number]
        ]

    def round(self, prices, step_s: int = ROUND_SECONDS):
        """A new round `step_s` later; `prices` are (index, mark) or None (all keepers abstain) by market."""
        self.now += step_s
        self.last_prices = prices
        packed = tuple(pack_price(*price) if price else 0 for price in prices)
        report = PriceReport(round=self.now // ROUND_SECONDS, timestamp=self.now, prices=packed)
        signed = tuple(
            SignedPriceReport(report, key.address, key.sign(digest(self.oracle_separator, report)))
            for key in self.keepers
        )
        self.reports[report.round] = signed
        return self.send(OracleRound(reports=signed))

    def funding(self, hour: int, rates):
        """Post an hour's reports on chain and apply them."""
        report = FundingReport(hour=hour, rates_ppb=tuple(rates), samples=keccak(b"samples"))
        signed = tuple(
            SignedFundingReport(report, key.address, key.sign(digest(self.oracle_separator, report)))
            for key in self.keepers
        )
        boa.env.evm.patch.timestamp = self.now
        rows = [
            (hour, list(rates), report.samples, row.signature.r, row.signature.s, 27 + row.signature.parity)
            for row in signed
        ]
        if not self.oracle.funding_posted_at(hour):
            self.oracle.post_funding(rows)
        return self.send(FundingHour(reports=signed))

    def order(self, owner: Signer, market: int, side: Side, size: int, price: int, slot: int, **fields):
        """A signed order, by `by` instead of the owner when given; slot 0 is IOC unless told otherwise."""
        by = fields.pop("by", owner)
        if slot == 0:
            fields.setdefault("time_in_force", TimeInForce.IOC)
        self.clock_ms = max(self.clock_ms + 1, self.now * 1000)
        sub_account = fields.pop("sub_account", 0)
        order = Order(
            owner=owner.address,
            sub_account=sub_account,
            market=self.state.markets[market].market.symbol,
            side=side,
            size=size,
            limit_price=price,
            max_fee_ppm=fields.pop("max_fee_ppm", 1000),
            slot=slot,
            sequence=fields.pop("sequence", self.clock_ms),
            expiry=fields.pop("expiry", self.now + ROUNDS_A_DAY),
            **fields,
        )
        return self.send(
            PlaceOrder(
                account=self.state.account_ids[owner.address, sub_account],
                order=order,
                order_hash=struct_hash(order),
                signature=by.sign(digest(self.separator, order)),
                signer=by.address,
            )
        )

    def place_together(self, owner: Signer, agent: Signer, drafts):
        """Orders under one `OrderBatch` signature of an agent; `drafts` are (market, side, size, price, slot)."""
        orders = []
        for market, side, size, price, slot in drafts:
            self.clock_ms = max(self.clock_ms + 1, self.now * 1000)
            orders.append(
                Order(
                    owner=owner.address,
                    sub_account=0,
                    market=self.state.markets[market].market.symbol,
                    side=side,
                    size=size,
                    limit_price=price,
                    max_fee_ppm=1_000,
                    slot=slot,
                    sequence=self.clock_ms,
                    expiry=self.now + ROUNDS_A_DAY,
                    time_in_force=TimeInForce.GTC if slot else TimeInForce.IOC,
                )
            )
        hashes = [struct_hash(order) for order in orders]
        root, paths = merkle_paths(hashes)
        signature = agent.sign(digest(self.separator, OrderBatch(root=root)))
        events = []
        for order, hashed, path in zip(orders, hashes, paths, strict=True):
            events += self.send(
                PlaceOrder(
                    account=self.account(owner),
                    order=order,
                    order_hash=hashed,
                    signature=signature,
                    signer=agent.address,
                    path=path,
                )
            )
        return events

    def cancel(self, owner: Signer, slot: int, all_slots: bool = False):
        """A signed cancel, off the chain."""
        self.clock_ms += 1
        message = Cancel(
            owner=owner.address,
            sub_account=0,
            all_slots=all_slots,
            slot=slot,
            sequence=self.clock_ms,
            deadline=self.now + 60,
        )
        return self.send(
            CancelOrder(
                account=self.account(owner),
                cancel=message,
                signature=owner.sign(digest(self.separator, message)),
                signer=owner.address,
            )
        )

    def withdraw(self, owner: Signer, amount: int, fee: int = 0):
        """A signed withdrawal."""
        account = self.state.accounts[self.account(owner)]
        message = Withdraw(
            owner=owner.address,
            sub_account=0,
            amount=amount,
            max_fee=fee,
            action_sequence=account.action_sequence + 1,
            deadline=self.now + 60,
        )
        return self.send(
            WithdrawRequest(
                account=account.account_id,
                withdraw=message,
                fee=fee,
                signature=owner.sign(digest(self.separator, message)),
            )
        )

    def transfer(self, account_id: int, to: int, amount: int, by: Signer):
        """A signed transfer out of an account, by its owner or an agent."""
        account = self.state.accounts[account_id]
        message = Transfer(
            owner=account.owner,
            sub_account=account.sub_account,
            to_sub_account=to,
            amount=amount,
            action_sequence=account.action_sequence + 1,
            deadline=self.now + 60,
        )
        signature = by.sign(digest(self.separator, message))
        return self.send(
            TransferRequest(account=account_id, transfer=message, signature=signature, signer=by.address)
        )

    def approve(self, owner: Signer, agent: Signer, life_s: int, cap: int):
        """A signed approval; `life_s` 0 revokes."""
        account = self.state.accounts[self.account(owner)]
        message = ApproveAgent(
            owner=owner.address,
            sub_account=0,
            agent=agent.address,
            agent_expiry=self.now + life_s if life_s else 0,
            transfer_cap=cap,
            action_sequence=account.action_sequence + 1,
            deadline=self.now + 60,
        )
        signature = owner.sign(digest(self.separator, message))
        return self.send(AgentApproval(account=account.account_id, approval=message, signature=signature))

    def liquidate(self, account: int, market: int, keeper_account: int = 0):
        """A liquidation trigger."""
        return self.send(
            TriggerLiquidation(
                account=account,
                market_id=market,
                keeper=signer("liquidator").address,
                keeper_account=keeper_account,
            )
        )

    def confirm(self) -> None:
        """Tell the engine that everything settled is confirmed."""
        if self.settled and self.settled[-1].batch_id > self.state.confirmed_batch:
            self.send(BatchConfirmed(batch_id=self.settled[-1].batch_id, block_number=1))

    def account(self, owner: Signer) -> int:
        """Account id of an owner's sub-account 0."""
        return self.state.account_ids.get((owner.address, 0), 0)

    def traded_in(self, owner: Signer) -> list[tuple[int, int]]:
        """Slots in which an order traded, with its sequence."""
        account = self.state.accounts.get(self.account(owner))
        slots = account.slots.items() if account else ()
        return [(slot, used.used_sequence) for slot, used in slots if used.used_sequence]

    def compare(self) -> None:
        """Engine = vault to the last unit: balances, positions, markets, totals; and the sums of invariants 1 and 2."""
        assert not self.state.batch.fills, "compare right after a batch was sealed"
        totals = self.vault.totals()
        assert (totals.funding_pool, totals.dust) == (self.state.funding_pool, self.state.dust)
        assert totals.claims == self.state.claim_count
        flow = self.state.outflow
        assert self.vault.word(OUTFLOW_WORD) == flow.at | flow.hour << 40 | flow.day << 144
        assert self.vault.word(DEPOSITS_WORD) == self.state.credited - self.state.claimed
        for due, claim, _, amount in self.state.delayed_claims:
            assert self.vault.claim(claim)[1:] == (amount, due), f"claim {claim}"
        collateral = 0
        sizes = [0] * len(self.state.markets)
        for account in self.state.accounts.values():
            on_chain = self.vault.account(account.account_id)
            collateral += on_chain.collateral
            assert on_chain.collateral == account.collateral, f"collateral of account {account.account_id}"
            assert on_chain.open_positions == account.open_positions
            assert on_chain.action_sequence == account.action_sequence
            assert on_chain.min_sequence <= account.min_sequence
            assert on_chain.sub_account == account.sub_account
            for slot, seen in account.slots.items():
                if seen.used_sequence:
                    known = self.vault.slot(account.account_id, slot)
                    assert (known.sequence, known.filled) == (seen.used_sequence, seen.filled), f"slot {slot}"
            if account.account_id >= FIRST_USER_ACCOUNT:
                assert str(on_chain.owner).lower() == hex_address(account.owner)
            for market_id in range(len(self.markets)):
                position = account.positions.get(market_id)
                chain_position = self.vault.position(account.account_id, market_id)
                size = position.size if position else 0
                assert chain_position.size == size, (
                    f"size of account {account.account_id} in market {market_id}"
                )
                if size:
                    assert chain_position.entry_cumulative == position.entry_cumulative
                    assert chain_position.entry_mark == position.entry_mark
                sizes[market_id] += size
        for (account_id, agent), word in self.state.agents.items():
            assert tuple(self.vault.agent(account_id, hex_address(agent))) == word
        for market_id, at in enumerate(self.state.markets):
            on_chain = self.vault.market_state(market_id)
            assert on_chain.cumulative_funding == at.cumulative
            assert on_chain.open_interest == at.open_interest
            assert sizes[market_id] == 0
        claims = sum(self.vault.claim(i + 1).amount for i in range(totals.claims))
        assert collateral + totals.funding_pool + claims == totals.credited
        assert totals.credited + self.inbox.unconsumed() == self.token.balanceOf(self.vault.address)
