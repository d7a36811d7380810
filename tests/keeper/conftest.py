"""Lets the keeper tests start the real gateway with its engine and journal, and contracts on a chain, as their own tests do."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "gateway"), str(TESTS / "chain")]
