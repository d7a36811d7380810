"""Governor and guardian of a deployed exchange: propose, wait, execute, consume."""

from typing import Any

import boa
from builders import MARKETS, USDC, Exchange
from msgspec.structs import replace

from evermark.chain.governor import listing_arguments
from evermark.protocol.governance import DELAY_S, LONG_DELAY_S
from evermark.protocol.markets import Market, Tier

HOUR_S = 3_600
PRICE = 600_000
NORMAL, POST_ONLY, REDUCE_ONLY, CANCEL_ONLY, HALTED = range(5)
PROPOSED, CANCELLED, EXECUTED, IN_FORCE, WITHOUT_EFFECT = range(1, 6)

THIN = replace(
    MARKETS[3],
    market_id=4,
    symbol="PEPE-PERP",
    base="PEPE",
    size_decimals=0,
    price_decimals=6,
    lot_tick_value=1,
    tiers=(Tier(0, 100_000, 0), Tier(500_000 * USDC, 200_000, 50_000 * USDC)),
    max_order_lots=10_000_000_000,
    open_interest_cap_lots=400_000_000_000,
    fund_position_cap_lots=40_000_000_000,
    mark_band_ppm=15_000,
)  # 1 lot = 1 PEPE, worth 12 ticks of 1e-6 USDC
THIN_INDEX = 12


class Governing:
    """What a test does as governor or guardian; time moves with the exchange's."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.contract = exchange.governance

    def deadline(self, slow: bool = False, hours: int = 20) -> int:
        """Some hours into the window of a proposal that is made now."""
        return self.exchange.clock + (LONG_DELAY_S if slow else DELAY_S) + hours * HOUR_S

    def propose(self, call: str, *arguments: Any, slow: bool = False) -> int:
        """As the governor, with a usual deadline."""
        boa.env.timestamp = self.exchange.clock
        propose = getattr(self.contract, f"propose_{call}")
        return propose(*arguments, self.deadline(slow), sender=self.exchange.proposer)

    def propose_market(self, market: Market = THIN, index: int = THIN_INDEX) -> int:
        return self.propose("listing", *listing_arguments(market), index)

    def wait(self, slow: bool = False) -> None:
        """Until the delay is over, with a round then."""
        self.exchange.round(seconds=LONG_DELAY_S if slow else DELAY_S)

    def execute(self, proposal: int) -> int:
        """As anybody."""
        return self.contract.execute(proposal, sender=boa.env.generate_address("anybody"))

    def consume(self, count: int = 1) -> Any:
        """A batch of the sequencer's that takes entries of governor or guardian."""
        self.exchange.round()
        batch = self.exchange.batch()
        for _ in range(count):
            batch.inbox(None)
        return batch.settle()

    def carry_out(self, call: str, *arguments: Any, slow: bool = False) -> int:
        """Everything; the proposal's id."""
        proposal = self.propose(call, *arguments, slow=slow)
        self.wait(slow)
        self.execute(proposal)
        self.consume()
        return proposal

    def list_thin(self) -> None:
        """Its market is in force, and has a price."""
        self.carry_out("listing", *listing_arguments(THIN), THIN_INDEX)
        self.exchange.list_market(THIN)
        self.exchange.round({4: THIN_INDEX})

    def pause(self, mode: int, duration_s: int, *markets: int) -> None:
        """As the guardian."""
        boa.env.timestamp = self.exchange.clock
        self.contract.pause(list(markets) or [0], mode, duration_s, sender=self.exchange.guardian)

    def state(self, proposal: int) -> int:
        return self.contract.proposal(proposal).state
