"""Whole exchanges under faults in virtual time; `run.py` is the command, `exchange.py` the place to begin reading.

The reference models and the small worlds of the other tests are plain modules: their folders join the path here.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    folder for folder in (str(TESTS / "reference"), str(TESTS / "sequencer")) if folder not in sys.path
]
