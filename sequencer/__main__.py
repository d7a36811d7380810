"""`python -m sequencer --config FILE`."""

import argparse
import sys
from pathlib import Path

from sequencer.app import run
from sequencer.config import ConfigRefused, load_config


def main() -> int:
    """Read the configuration and run."""
    parser = argparse.ArgumentParser(prog="sequencer", description="Runs an Evermark sequencer.")
    parser.add_argument("--config", type=Path, required=True, help="JSON or TOML, see sequencer/config.py")
    try:
        config = load_config(parser.parse_args().config)
    except ConfigRefused as error:
        print(error, file=sys.stderr)
        return 1
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
