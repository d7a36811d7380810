"""The embedded chain of a development exchange: py-evm behind JSON-RPC, with one clock that can run fast."""

from evermark.devnet.config import CHAIN_ID, DEV_MNEMONIC, DevnetConfig, dev_key
from evermark.devnet.server import Devnet, run_devnet
from evermark.devnet.state_log import StateRefused

__all__ = ["CHAIN_ID", "DEV_MNEMONIC", "Devnet", "DevnetConfig", "StateRefused", "dev_key", "run_devnet"]
