"""Where positions stand in the queues of auto-deleveraging, ranked anew with each round."""

from typing import Any

from sequencer.engine.deleveraging import queue
from sequencer.engine.state import Account, EngineState

LIGHTS = 5


class DeleveragingQueues:
    """Ranks a market's side at most once a round, however many ask."""

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self._round = -1
        self._places: dict[tuple[int, int], dict[int, tuple[int, int]]] = {}

    def of(self, account: Account) -> list[dict[str, Any]]:
        """Place, length of the queue, lights and score of each open position, by market id."""
        if self._round != self._state.round.round:
            self._round, self._places = self._state.round.round, {}
        return [
            self._told(account.account_id, market_id, 1 if position.size > 0 else -1)
            for market_id, position in sorted(account.positions.items())
            if position.size
        ]

    def _told(self, account_id: int, market_id: int, sign: int) -> dict[str, Any]:
        places = self._ranked(market_id, sign)
        place, score = places.get(account_id, (None, None))
        return {
            "market": self._state.markets[market_id].market.symbol,
            "place": place,
            "of": len(places),
            "lights": 0 if place is None else lights(place, len(places)),
            "score_ppm": score,
        }

    def _ranked(self, market_id: int, sign: int) -> dict[int, tuple[int, int]]:
        places = self._places.get((market_id, sign))
        if places is None:
            ranked = queue(self._state, market_id, sign)
            places = {account: (place, score) for place, (account, score) in enumerate(ranked, start=1)}
            self._places[market_id, sign] = places
        return places


def lights(place: int, of: int) -> int:
    """1 to 5, by fifths of the queue; 5 for the fifth that goes first."""
    return LIGHTS - LIGHTS * (place - 1) // of
