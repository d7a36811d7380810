"""The exchange of `exchange.py` a third time: the naive reference vault settles the same batches, and all three must agree."""

from msgspec import structs
from naive_vault import NaiveVault

from evermark.protocol.orders import Signature
from sequencer.engine.commands import FundingHour, InboxEntry, TransferRequest
from sequencer.engine.events import BatchSealed
from tests.agreement.exchange import Exchange


class ThreeWays(Exchange):
    """Engine, contracts and naive model, fed by one stream of commands."""

    def __init__(self, markets, start_s: int) -> None:
        self.naive = NaiveVault(markets)
        self.queue: dict[int, InboxEntry] = {}  # an entry that had to wait is offered again
        self.signers: dict[Signature, bytes] = {}
        self.rates: dict[int, tuple[int, ...]] = {}
        super().__init__(markets, start_s)

    def send(self, command):
        """Notes what the model reads from the chain beside the batch."""
        if isinstance(command, InboxEntry):
            self.queue[command.entry_id] = command
        if isinstance(command, TransferRequest):
            self.signers[command.signature] = command.signer
        if isinstance(command, FundingHour):
            self.rates[command.reports[0].report.hour] = command.reports[0].report.rates_ppb
        return super().send(command)

    def settle(self, event: BatchSealed) -> None:
        """On the contracts and on the model."""
        super().settle(event)
        batch = structs.replace(
            event.batch, actions=tuple(self._named(action) for action in event.batch.actions)
        )
        self.naive.settle(batch, event.round, list(self.queue.values()), self.rates)

    def _named(self, action):
        """The model recovers no keys: in place of a transfer's signature it wants its signer."""
        signer = self.signers.get(getattr(action, "signature", None))
        if signer is None:
            return action
        return structs.replace(action, signature=Signature(int.from_bytes(signer, "big"), 1, 0))

    def compare(self) -> None:
        """Engine = vault, and engine = model, to the last unit."""
        super().compare()
        state, naive = self.state, self.naive
        assert (naive.pool, naive.dust) == (state.funding_pool, state.dust)
        assert naive.claimed == state.claimed
        assert (naive.levels[3_600], naive.levels[86_400], naive.last_claim) == state.outflow
        for due, claim, _, _ in state.delayed_claims:
            assert naive.dues[claim - 1] == due, f"model: claim {claim}"
        for account_id, account in state.accounts.items():
            assert naive.collateral(account_id) == account.collateral, f"model: collateral of {account_id}"
            for market_id, held in account.positions.items():
                ours = (held.size, held.entry_cumulative, held.entry_mark)
                assert naive.position(account_id, market_id) == ours, (
                    f"model: position of {account_id} in {market_id}"
                )
        for market_id, at in enumerate(state.markets):
            assert naive.open_interest[market_id] == at.open_interest
            assert naive.cumulative[market_id] == at.cumulative
