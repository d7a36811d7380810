"""Proposals of a hostile governor: of every kind, at the bounds, beyond them, and malformed; and the world that consumes them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from boa.util.abi import Address
from builders import MARKETS, NOBODY, ORACLE_KEEPER, Builder
from governing import THIN, THIN_INDEX
from hostile_world import World
from msgspec.structs import replace

from evermark.chain.governor import Action, listing_arguments
from evermark.protocol import signing
from evermark.protocol.governance import tiers_of
from evermark.protocol.markets import Market

SLOW = (Action.QUORUMS, Action.GUARDIAN, Action.GOVERNOR)  # 14 days, as is registering a keeper
PROPOSED, CANCELLED, EXECUTED = 1, 2, 3
CHANGE, PAUSE = 9, 10  # kinds of inbox entries
LARGEST = 2**256 - 1
OWN_KEEPER = signing.Signer(b"\x67" * 32)
KEEPERS = [Address(key.address) for key in (OWN_KEEPER, ORACLE_KEEPER)]


@dataclass
class Proposal:
    """What was proposed, by the event's own account."""

    action: Action
    ready_at: int
    deadline: int
    subject: Any = None
    market: Market | None = None
    state: int = PROPOSED


class GovernedWorld(World):
    """The honest sequencer gives each entry of governor or guardian a batch of its own."""

    def inbox_entries(self, batch: Builder, count: int) -> None:
        kinds = [kind for kind, _ in self.pending[:count]]
        changes = [place for place, kind in enumerate(kinds) if kind in (CHANGE, PAUSE)]
        super().inbox_entries(batch, changes[0] if changes else count)


def is_slow(proposal: Proposal, arguments: tuple[Any, ...]) -> bool:
    return proposal.action in SLOW or (proposal.action == Action.KEEPER and arguments[2])


def some_proposal(
    world: World, own: list[Any], holders: tuple[Any, Any]
) -> tuple[str, tuple[Any, ...], Proposal]:
    pick, exchange = world.random, world.exchange
    action = pick.choice([action for action in Action if action is not Action.SETTLE])
    made = Proposal(action, 0, 0)
    market = pick.choice((0, 1, 2, 0, 1, 2, 3, 63, 64, LARGEST))
    if action == Action.LIST:
        symbol = pick.choice(("PEPE-PERP", "MEME-PERP", exchange.markets[0].symbol, "a", ""))
        made.market = bent(pick, replace(THIN, symbol=symbol))
        index = pick.choice((THIN_INDEX, THIN_INDEX, 1, 0, 2**32))
        return "listing", (*listing_arguments(made.market), index), made
    if action == Action.TUNE:
        made.subject = market if market < len(exchange.markets) else 0
        made.market = bent(pick, exchange.markets[made.subject])
        return "tuning", (made.subject, *listing_arguments(made.market)), made
    if action == Action.DELIST:
        made.subject = market
        return "delisting", (market,), made
    if action == Action.KEEPER:
        return (
            "keeper",
            (pick.choice((0, 0, 1, 2)), pick.choice((*KEEPERS, NOBODY)), pick.random() < 0.5),
            made,
        )
    if action == Action.QUORUMS:
        return "quorums", (pick.choice((1, 3, 15, 0, 2, 17)), pick.choice((1, 3, 0, 257))), made
    if action == Action.SEQUENCER:
        made.subject = pick.choice((*own, world.exchange.sequencer, NOBODY))
        return "sequencer", (made.subject,), made
    if action == Action.REFERENCE:
        feed = pick.choice((NOBODY, own[0], exchange.vault.address, exchange.token.address))
        return (
            "reference",
            (market, (feed, *pick.choice(((0, 0, 0), (1_000, 60, 10**18), (LARGEST,) * 3)))),
            made,
        )
    made.subject = pick.choice((*own, *holders, NOBODY))
    return "role", (pick.choice((int(action), int(action), 0, 7, 10)), made.subject), made


def bent(pick: random.Random, market: Market) -> Market:
    """With some parameters at a bound, beyond it, or far from what they were."""
    cap, first = market.open_interest_cap_lots, market.tiers[0].initial_fraction_ppm
    fractions = (first, first // 2, first * 2, first // 2 - 1, first * 2 + 1, 20_000, 1_000_000, 1)
    changes = {
        "open_interest_cap_lots": pick.choice((cap, cap * 2, cap * 2 + 1, cap // 2, 1, 2**62 - 1, 2**63)),
        "tiers": tiers_of([(0, pick.choice(fractions))]),
        "liquidation_fee_ppm": pick.choice((0, 10_000, 10_001, 65_535)),
        "price_band_ppm": pick.choice((1_000, 250_000, 999, 250_001)),
        "max_price_age_s": pick.choice((10, 3_600, 9, 3_601)),
        "jump_ppm_per_s": pick.choice((100_000, 100_000, 100_001, 0)),
        "lot_tick_value": market.lot_tick_value * 10,
        "fund_position_cap_lots": pick.choice((0, cap, cap * 2)),
        "symbol": pick.choice((MARKETS[0].symbol, MARKETS[1].symbol)),
        "taker_fee_ppm": pick.choice((2_000, 2_001, -1)),
    }
    names = pick.sample(sorted(changes), pick.choice((0, 0, 1, 1, 2)))
    bent = replace(market, **{name: changes[name] for name in names})
    lots = min(bent.max_order_lots, bent.open_interest_cap_lots)
    return replace(
        bent,
        max_order_lots=lots,
        mark_band_ppm=min(bent.mark_band_ppm, max(1, bent.tiers[0].initial_fraction_ppm // 6)),
    )


def check_step(old: Market, new: Market) -> None:
    """A tuning goes one step at a time, and stays the same contract."""
    first, before = new.tiers[0].initial_fraction_ppm, old.tiers[0].initial_fraction_ppm
    assert new.open_interest_cap_lots <= 2 * old.open_interest_cap_lots, "a cap more than doubled"
    assert first <= 2 * before <= 4 * first, "a fraction more than doubled or halved"
    assert (new.symbol, new.lot_tick_value) == (old.symbol, old.lot_tick_value), "another contract"
