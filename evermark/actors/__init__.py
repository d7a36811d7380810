"""Traders that bring a development exchange to life: a market maker, takers, leveraged accounts, a wallet.

They use `evermark.client` as anybody's program would, with test money; none of them is part of the exchange.
"""

from evermark.actors.config import LeveragedConfig, MakerConfig, TakersConfig, WalletConfig
from evermark.actors.leveraged import run_leveraged
from evermark.actors.maker import run_maker
from evermark.actors.takers import run_takers
from evermark.actors.wallet import run_wallet

__all__ = [
    "LeveragedConfig",
    "MakerConfig",
    "TakersConfig",
    "WalletConfig",
    "run_leveraged",
    "run_maker",
    "run_takers",
    "run_wallet",
]
