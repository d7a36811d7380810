"""Configuration of a devnet and its well-known accounts. Never real money."""

import time
from functools import cache

import msgspec
from eth_account.hdaccount import seed_from_mnemonic
from eth_account.hdaccount.deterministic import HDPath

CHAIN_ID = 31337
DEV_MNEMONIC = (
    "test test test test test test test test test test test junk"  # what every development node uses
)
DEV_ACCOUNTS = 20
DEV_BALANCE_WEI = 10_000 * 10**18
MAX_SPEED = 100_000


class DevnetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a devnet is started with."""

    host: str = "127.0.0.1"
    port: int = 8545  # 0 picks a free one
    genesis_time: int | None = None  # unix seconds; None: now, or what the recorded state says
    speed: float = 1.0  # chain seconds in a wall second
    block_time_s: float | None = (
        None  # wall seconds between blocks; None: each accepted transaction is mined at once
    )
    state_dir: str | None = None  # blocks are logged there and replayed at the next start
    print_accounts: bool = False  # run_devnet prints the development accounts with their keys

    def __post_init__(self) -> None:
        if not 0 < self.speed <= MAX_SPEED:
            raise ValueError(f"devnet: speed {self.speed} is not above 0 and at most {MAX_SPEED}")
        if self.block_time_s is not None and self.block_time_s <= 0:
            raise ValueError(f"devnet: block time {self.block_time_s} is not above 0")

    def start_time(self) -> int:
        """Timestamp of a new genesis block."""
        return int(time.time()) if self.genesis_time is None else self.genesis_time


@cache
def dev_key(index: int) -> bytes:
    """Private key of development account `index`, at m/44'/60'/0'/0/index of the well-known mnemonic."""
    return bytes(HDPath(f"m/44'/60'/0'/0/{index}").derive(seed_from_mnemonic(DEV_MNEMONIC, "")))
