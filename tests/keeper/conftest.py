"""Lets the keeper tests start the real gateway with its engine and journal, as the gateway's own tests do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "gateway"))
