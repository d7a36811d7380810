"""Evermark: what the sequencer, the keepers and the traders share.

`evermark.protocol` is the language, `evermark.client` the SDK, `evermark.chain` the way to the contracts,
`evermark.devnet` the embedded chain and `evermark.cli` the command line.
"""

import os

from evermark import compiled

__version__ = "0.1.0"

# eth-hash chooses its keccak once, at first use, and prefers one that is seven times slower than safe-pysha3.
# An operator's own choice in the environment wins.
os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")

# Before anything of the engine or the protocol is imported.
compiled.install()
