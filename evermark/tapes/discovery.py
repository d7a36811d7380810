"""Which tapes a directory holds, and which market, venue and kind each belongs to, by file name.

Names are `VENUE_SYMBOL.csv` or `.csv.gz`; symbols as venues write them: BTCUSD, BTC-USD, BTC_USDT,
AVAXUSD_PERP.
"""

import enum
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from evermark.protocol.markets import Market

TAPES_VARIABLE = "EVERMARK_TAPES"  # the directory that holds the days' folders
_QUOTES = ("USDT", "USDC", "USD")  # longest first where one begins another
_FUTURES_VENUE = re.compile(r"-(futures|delivery|swap|perp)$|^(deribit|bitmex)$")


class TapeKind(enum.StrEnum):
    """What a venue trades: only spot may enter an index, perpetuals may enter a mark."""

    SPOT = "spot"
    PERPETUAL = "perpetual"


class TapeFile(msgspec.Struct, frozen=True):
    """A tape on disk and the market it speaks about."""

    path: Path
    venue: str
    symbol: str
    kind: TapeKind
    market_id: int


def split_symbol(symbol: str) -> tuple[str, bool] | None:
    """A venue's symbol -> (base, names a perpetual); None when it is not quoted in dollars."""
    plain = re.sub(r"[-_/:]", "", symbol.upper())
    perpetual = plain.endswith(("PERP", "SWAP"))
    plain = plain[:-4] if perpetual else plain
    for quote in _QUOTES:
        if plain.endswith(quote) and len(plain) > len(quote):
            return plain[: -len(quote)], perpetual
    return None


def identify(path: Path, markets: Sequence[Market]) -> TapeFile | None:
    """The tape that `path` is by its name; None for other files and for markets that are not listed."""
    match = re.fullmatch(r"([A-Za-z0-9.-]+)_([A-Za-z0-9_-]+)\.csv(?:\.gz)?", path.name)
    parts = split_symbol(match[2]) if match else None
    if match is None or parts is None:
        return None
    base, perpetual = parts
    kind = TapeKind.PERPETUAL if perpetual or _FUTURES_VENUE.search(match[1].lower()) else TapeKind.SPOT
    for market in markets:
        if market.base == base:
            return TapeFile(path, match[1].lower(), match[2], kind, market.market_id)
    return None


def discover(root: Path, markets: Sequence[Market], day: str = "") -> tuple[TapeFile, ...]:
    """Tapes of `root` itself and of its folders (only the folder `day`, such as 2025-10-10, when given).

    Ordered by market, kind and venue. Raises FileNotFoundError when there is none.
    """
    folders = [root / day] if day else [root, *sorted(entry for entry in root.glob("*") if entry.is_dir())]
    found = [identify(path, markets) for folder in folders for path in sorted(folder.glob("*.csv*"))]
    tapes = [tape for tape in found if tape is not None]
    if not tapes:
        raise FileNotFoundError(f"no tape of a listed market in {root / day if day else root}")
    return tuple(sorted(tapes, key=lambda tape: (tape.market_id, tape.kind, tape.venue, str(tape.path))))
