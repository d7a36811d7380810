"""What each actor is told. Sizes are whole USDC of notional, rates orders per wall second."""

import msgspec


class ActorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all actors need.

    `dev_account` is an index of the development mnemonic; only a devnet funds those.
    """

    url: str
    rpc_url: str
    manifest: str
    dev_account: int
    name: str = ""
    status_path: str = ""
    seed: int = 1
    markets: tuple[str, ...] = ()  # symbols; empty: all

    def __post_init__(self) -> None:
        if not 0 <= self.dev_account < 20:
            raise ValueError(f"actor: dev_account {self.dev_account} is not within 0 to 19")


class MakerConfig(ActorConfig, frozen=True, kw_only=True):
    """Quotes `levels` prices a side and market around the mark, leaning against its inventory."""

    levels: int = 3
    half_spread_ppm: int = 300
    step_ppm: int = 400  # between two levels
    level_usdc: int = 12_000
    # at this position the quotes have moved by `skew_ppm`, and one side ends
    max_position_usdc: int = 400_000
    skew_ppm: int = 1_500
    requote_ppm: int = 120  # a quote nearer than this to where it should be stays
    orders_per_s: float = 10.0
    deposit_usdc: int = 5_000_000


class TakersConfig(ActorConfig, frozen=True, kw_only=True):
    """Follows a tape's trade flow, sampled to a rate that the machine can take."""

    accounts: int = 4  # sub-accounts of one owner
    orders_per_s: float = 6.0
    tapes: str = ""  # directory of tapes; empty: a generated flow
    least_usdc: int = 20
    most_usdc: int = 6_000
    max_position_usdc: int = 60_000  # of one account and market; beyond it only orders that reduce
    slippage_ppm: int = 8_000
    deposit_usdc: int = 250_000


class LeveragedConfig(ActorConfig, frozen=True, kw_only=True):
    """Accounts that open near the greatest leverage of their market, long and short in turn."""

    accounts: int = 6
    deposit_usdc: int = 400
    share_ppm: int = 850_000  # of the greatest leverage
    slippage_ppm: int = 5_000
    most_deposits: int = 20  # of one account after losses, so that a long run ends somewhere
    pause_s: float = 2.0


class WalletConfig(ActorConfig, frozen=True, kw_only=True):
    """Deposits, buys, sells, withdraws, and waits until the chain has paid."""

    deposit_usdc: int = 2_000
    trade_usdc: int = 500
    withdraw_usdc: int = 700
    payout_timeout_s: float = 120.0
