"""`python -m keeper CONFIG`: the roles of one configuration file as a process."""

import asyncio
import sys
from pathlib import Path

from keeper.config import load_config
from keeper.keystore import KeyRefused
from keeper.run import run_keepers
from keeper.shown import ListenRefused
from keeper.sources.quotes import SourceUnavailable


def main(arguments: list[str]) -> int:
    """0 after a polite stop; 1 with one line on stderr when it cannot start."""
    if len(arguments) != 1:
        print("usage: python -m keeper CONFIG.json", file=sys.stderr)
        return 2
    try:
        asyncio.run(run_keepers(load_config(Path(arguments[0]))))
    except (KeyRefused, ListenRefused, SourceUnavailable, ValueError) as error:
        print(f"keeper: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
