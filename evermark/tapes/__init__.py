"""Trade tapes: recorded or generated prints of venues, in the column layout that tick-data vendors use.

Keepers read prices from them, actors their order flow; neither knows whether a tape was recorded or made.
"""

from evermark.tapes.discovery import TapeFile, discover, identify
from evermark.tapes.generator import SeededTape, write_seeded_day, write_tape
from evermark.tapes.prices import Rounding, to_lots, to_ticks
from evermark.tapes.reader import TapeError, TapeReader, Trade

__all__ = [
    "Rounding",
    "SeededTape",
    "TapeError",
    "TapeFile",
    "TapeReader",
    "Trade",
    "discover",
    "identify",
    "to_lots",
    "to_ticks",
    "write_seeded_day",
    "write_tape",
]
