"""The flow that takers follow: a tape's trades at the chain's pace, or a generated one, thinned to a rate.

Pure.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import msgspec

from evermark.actors.common import least_lots, lots_for
from evermark.actors.config import TakersConfig
from evermark.protocol.markets import Market
from evermark.protocol.orders import Side
from evermark.tapes.discovery import TapeFile, TapeKind, discover
from evermark.tapes.generator import SeededTape
from evermark.tapes.prices import Rounding, to_lots
from evermark.tapes.reader import TapeReader, Trade

MICRO = 1_000_000
WINDOW_S = 30  # chain seconds over which the flow's own rate is measured
GENERATED_GAP_US = 400_000  # between two generated trades of a market, on average


class MarketFlow:
    """One market's trades in time order, read up to the chain's time."""

    def __init__(self, market: Market, label: str, trades: Iterator[Trade]) -> None:
        self.market = market
        self.label = label
        self.seen = 0
        self.sampled = 0
        self._trades = trades
        self._next = next(trades, None)

    @property
    def ended(self) -> bool:
        """True when the flow has nothing more."""
        return self._next is None

    def until(self, now_us: int) -> list[Trade]:
        """Trades up to `now_us` that were not returned before."""
        found = []
        while self._next is not None and self._next.time_us <= now_us:
            found.append(self._next)
            self._next = next(self._trades, None)
        self.seen += len(found)
        return found


class Intent(msgspec.Struct, frozen=True):
    """A trade to repeat on our exchange: lots, signed by side; the price is the exchange's own."""

    market: Market
    side: Side
    lots: int


class Sampler:
    """Keeps about `per_s` trades a wall second of what happens.

    Whether a trade is kept depends on the seed and its id alone, at the share that the flow's recent rate
    allows.
    """

    def __init__(self, per_s: float, seed: int) -> None:
        self._per_s = per_s
        self._seed = seed
        self._recent: list[tuple[float, int]] = []  # (wall seconds, trades)
        self.seen = 0

    def keep(self, trades: Sequence[tuple[str, Trade]], wall_s: float) -> list[tuple[str, Trade]]:
        """Those of the trades (each with its flow's label) to repeat, after `wall_s` of wall time."""
        self._recent = [one for one in self._recent if wall_s - one[0] < WINDOW_S]
        self._recent.append((wall_s, len(trades)))
        span = max(1.0, wall_s - self._recent[0][0])
        rate = sum(count for _, count in self._recent) / span
        share_ppm = 1_000_000 if rate <= self._per_s else int(self._per_s / rate * 1_000_000)
        kept = [one for one in trades if draw(self._seed, one[0], one[1].trade_id) < share_ppm]
        self.seen += len(trades)
        return kept


def draw(seed: int, label: str, trade_id: str) -> int:
    """0 .. 999,999, the same for the same trade."""
    raw = blake2b(f"{seed}/{label}/{trade_id}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") % 1_000_000


def open_flows(markets: Sequence[Market], config: TakersConfig, now_s: int) -> tuple[MarketFlow, ...]:
    """A flow for every market from `now_s` on: its largest spot tape, or without tapes a generated one."""
    tapes = largest_spot_tapes(discover(Path(config.tapes), markets)) if config.tapes else {}
    flows = []
    for market in markets:
        tape = tapes.get(market.market_id)
        if tape is not None:
            reader = TapeReader(tape.path, start_us=now_s * MICRO)
            flows.append(MarketFlow(market, f"{tape.venue} {tape.symbol}", iter(reader)))
        elif not config.tapes:
            flows.append(MarketFlow(market, "generated", generated(market, config.seed, now_s).trades()))
    return tuple(flows)


def largest_spot_tapes(tapes: Sequence[TapeFile]) -> dict[int, TapeFile]:
    """The spot tape of the largest file, by market id."""
    best: dict[int, TapeFile] = {}
    for tape in tapes:
        if tape.kind is not TapeKind.SPOT:
            continue
        known = best.get(tape.market_id)
        if known is None or tape.path.stat().st_size > known.path.stat().st_size:
            best[tape.market_id] = tape
    return best


def generated(market: Market, seed: int, now_s: int) -> SeededTape:
    """A week of generated trades; only their sides and sizes are used."""
    return SeededTape(
        venue="generated",
        symbol=f"{market.base}USD",
        base=market.base,
        start_us=now_s * MICRO,
        end_us=(now_s + 7 * 86_400) * MICRO,
        seed=seed,
        mean_gap_us=GENERATED_GAP_US,
    )


def intent(market: Market, trade: Trade, mark_ticks: int, config: TakersConfig) -> Intent:
    """The trade in lots, held within the configured bounds."""
    least = max(least_lots(market, mark_ticks), lots_for(market, config.least_usdc, mark_ticks))
    most = max(least, lots_for(market, config.most_usdc, mark_ticks))
    lots = to_lots(trade.amount, market, Rounding.UP) or least
    return Intent(market, trade.side, max(least, min(most, lots)))


def choose_account(positions: Sequence[int], wanted: Intent, limit_lots: int, turn: int) -> int | None:
    """Which account trades: the next in turn whose position stays within the limit, else None."""
    count = len(positions)
    for step in range(count):
        number = (turn + step) % count
        if abs(positions[number] + wanted.side.sign * wanted.lots) <= limit_lots:
            return number
    return None
