"""An account that is being closed out: its margin now, and what is told of each step."""

from evermark.protocol.margin import AccountMargin
from evermark.protocol.orders import Side
from sequencer.engine.context import Context
from sequencer.engine.events import Liquidated
from sequencer.engine.risk import margin_of
from sequencer.engine.sealing import baseline
from sequencer.engine.state import EngineState


class Target:
    """The position that is being closed."""

    __slots__ = ("account", "at", "keeper", "state")

    def __init__(self, state: EngineState, account_id: int, market_id: int, keeper: int = 0) -> None:
        self.state = state
        self.account = state.accounts[account_id]
        self.at = state.markets[market_id]
        self.keeper = keeper  # account that is paid, 0: none

    @property
    def size(self) -> int:
        """Signed lots that are left."""
        return self.account.positions[self.at.market.market_id].size

    @property
    def closing_side(self) -> Side:
        """The side on which the position is closed."""
        return Side.SELL if self.size > 0 else Side.BUY

    def margin(self) -> AccountMargin:
        """The account's margin now."""
        return margin_of(self.state, self.account)

    def position_maintenance(self) -> int:
        """Maintenance of this position alone."""
        margin_of(self.state, self.account)
        return self.account.positions[self.at.market.market_id].maintenance

    def loss(self, price: int, lots: int) -> int:
        """Loss against the mark of closing `lots` at `price`."""
        sign = 1 if self.size > 0 else -1
        return sign * (self.at.mark - price) * lots * self.at.market.lot_tick_value


def name_keeper(ctx: Context, target: Target) -> None:
    """The batch names the keeper's account even where its share rounds to nothing."""
    if target.keeper:
        baseline(ctx.state, ctx.state.accounts[target.keeper])


def tell_liquidated(
    ctx: Context,
    target: Target,
    lots: int,
    price: int,
    loss: int,
    fee: int,
    *,
    taken_over: bool = False,
    deleveraged: bool = False,
) -> None:
    """Say what one step closed, and at what loss against the mark."""
    ctx.events.append(
        Liquidated(
            account=target.account.account_id,
            market_id=target.at.market.market_id,
            size=lots,
            price=price,
            loss=loss,
            fee=fee,
            taken_over=taken_over,
            deleveraged=deleveraged,
        )
    )
