"""Seeded tapes in the recorded layout: a random walk with jumps, the same bytes for the same seed everywhere.

Integer arithmetic throughout; prices leave it as decimal strings.
"""

import gzip
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random

import msgspec

from evermark.protocol.markets import Market
from evermark.protocol.orders import SIDE_TEXT, Side
from evermark.protocol.units import PPM
from evermark.tapes.reader import COLUMNS, Trade

# Round starting prices in whole dollars; a base that is not listed starts at 100.
START_DOLLARS = {"BTC": 120_000, "ETH": 4_300, "SOL": 220, "AVAX": 28}
PRICE_SCALE = 8  # the walk's own decimals, finer than any market's tick
AMOUNT_SCALE = 8


class SeededTape(msgspec.Struct, frozen=True, kw_only=True):
    """One generated tape. Amounts are around `mean_notional` dollars a trade."""

    venue: str
    symbol: str
    base: str
    start_us: int
    end_us: int
    seed: int
    price_decimals: int = 2
    mean_gap_us: int = 2_000_000
    step_ppm: int = 150  # a usual move between two trades lies within this
    jump_every: int = 400  # trades between two jumps, on average
    jump_ppm: int = 12_000
    mean_notional: int = 1_500
    offset_ppm: int = 0  # this venue's prices stand so far from the walk
    delay_us: int = 0  # and follow it this much later

    def trades(self) -> Iterator[Trade]:
        """The tape's prints in time order; every call yields the same ones."""
        random = Random(f"{self.seed}/{self.base}")  # venues of one base share the walk
        price = START_DOLLARS.get(self.base, 100) * 10**PRICE_SCALE
        floor, ceiling = price // 5, price * 5  # a walk without memory could leave every market's range
        quantum = 10 ** (PRICE_SCALE - self.price_decimals)
        time_us, number = self.start_us, 0
        while True:
            time_us += 1 + random.getrandbits(40) % (2 * self.mean_gap_us)
            if time_us + self.delay_us >= self.end_us:
                return
            reach = self.jump_ppm if random.getrandbits(32) % self.jump_every == 0 else self.step_ppm
            move_ppm = random.getrandbits(32) % (2 * reach + 1) - reach
            price = max(floor, min(ceiling, price + price * move_ppm // PPM))
            shown = max(quantum, price * (PPM + self.offset_ppm) // PPM // quantum * quantum)
            dollars = 1 + random.getrandbits(32) % (2 * self.mean_notional)
            amount = max(1, dollars * 10 ** (PRICE_SCALE + AMOUNT_SCALE) // shown)
            side = Side.BUY if move_ppm > 0 or (move_ppm == 0 and number % 2) else Side.SELL
            number += 1
            at_us = time_us + self.delay_us
            yield Trade(
                at_us, side, _decimal(shown, PRICE_SCALE), _decimal(amount, AMOUNT_SCALE), str(number)
            )


def write_tape(path: Path, tape: SeededTape) -> int:
    """Write `tape` to `path` (.csv or .csv.gz); returns the number of rows. Equal tapes give equal bytes."""
    text = io.StringIO()
    text.write(",".join(COLUMNS) + "\n")
    rows = 0
    for trade in tape.trades():
        local_us = trade.time_us + 40_000
        side = SIDE_TEXT[trade.side]
        text.write(f"{tape.venue},{tape.symbol},{trade.time_us},{local_us},{trade.trade_id},{side},")
        text.write(f"{trade.price:f},{trade.amount:f}\n")
        rows += 1
    content = text.getvalue().encode("ascii")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return rows


def write_seeded_day(root: Path, markets: Sequence[Market], *, start_s: int, seconds: int, seed: int) -> Path:
    """A day's folder below `root`: one spot tape a market, and a second one and a perpetual for the last.

    It has the shape of the recorded day: most markets have a single venue. Returns the folder.
    """
    folder = root / datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%d")
    for market in markets:
        venues = [("venue-a", f"{market.base}USD", 0, 0)]
        if market is markets[-1]:
            venues.append(("venue-b", f"{market.base}-USD", 80, 300_000))
            venues.append(("venue-c", f"{market.base}USD_PERP", -120, 150_000))
        for venue, symbol, offset_ppm, delay_us in venues:
            tape = SeededTape(
                venue=venue,
                symbol=symbol,
                base=market.base,
                start_us=start_s * 1_000_000,
                end_us=(start_s + seconds) * 1_000_000,
                seed=seed,
                price_decimals=market.price_decimals,
                offset_ppm=offset_ppm,
                delay_us=delay_us,
            )
            write_tape(folder / f"{venue}_{symbol}.csv.gz", tape)
    return folder


def _decimal(value: int, scale: int) -> Decimal:
    return Decimal(value).scaleb(-scale).normalize()
