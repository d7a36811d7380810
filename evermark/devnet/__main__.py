"""`python -m evermark.devnet [CONFIG.json]`: a devnet with the defaults, or with a DevnetConfig."""

import asyncio
import sys
from pathlib import Path

import msgspec

from evermark.devnet.config import DevnetConfig
from evermark.devnet.server import run_devnet

if __name__ == "__main__":
    config = DevnetConfig(print_accounts=True)
    if len(sys.argv) > 1:
        config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=DevnetConfig)
    try:
        asyncio.run(run_devnet(config))
    except (ValueError, OSError) as error:
        sys.exit(f"devnet: {error}")
