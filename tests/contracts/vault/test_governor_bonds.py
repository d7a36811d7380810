"""What a change of governor or guardian costs whoever submits it, beside the bond that its entry posts."""

import boa
import pytest
from builders import USDC, Exchange
from governing import HALTED, HOUR_S, NORMAL, THIN, Governing
from msgspec.structs import replace
from test_requests_in_batches import PRICE, batch_gas

from evermark.chain.governor import listing_arguments
from evermark.protocol.markets import Tier
from evermark.protocol.oracle import SETTLED_BIT

CHANGE, PAUSE = 9, 10
MANY_TIERS = tuple(Tier(place * 1_000_000 * USDC, 100_000 * (place + 1), 0) for place in range(4))
MOST_MARKETS = 64
PRICES = {0: PRICE, 1: 250_000, 2: 15_000, 3: 30_000}


class Bonded(Governing):
    """Everybody posts exactly the bond; batches are measured."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self.anybody = boa.env.generate_address("anybody")
        for payer in (self.anybody, exchange.guardian):
            boa.env.set_balance(payer, 10**24)
        self.gas: dict[str, int] = {}

    def measure(self, name: str) -> None:
        """A batch that holds nothing but the entry at the head."""
        self.exchange.round()
        batch = self.exchange.batch()
        batch.inbox(None)
        self.gas[name] = batch_gas(self.exchange, batch)

    def change(self, call: str, *arguments: object, slow: bool = False, name: str = "") -> None:
        """Propose, wait, execute and consume."""
        proposal = self.propose(call, *arguments, slow=slow)
        self.wait(slow)
        bond = self.exchange.inbox.bond(CHANGE)
        with boa.reverts("inbox: bond too small"):
            self.contract.execute(proposal, sender=self.anybody, value=bond - 1)
        self.contract.execute(proposal, sender=self.anybody, value=bond)
        self.measure(name or call)
        assert self.state(proposal) == 4, name

    def halt(self, mode: int, duration_s: int, name: str) -> None:
        """Pause market 0, or lift it."""
        boa.env.timestamp = self.exchange.clock
        bond = self.exchange.inbox.bond(PAUSE)
        with boa.reverts("inbox: bond too small"):
            self.contract.pause([0], mode, duration_s, sender=self.exchange.guardian, value=bond - 1)
        self.contract.pause([0], mode, duration_s, sender=self.exchange.guardian, value=bond)
        self.measure(name)

    def settle(self, name: str) -> None:
        """Once the hour of a delisted market is over."""
        ends_at = self.exchange.oracle.ending(0)[0]
        self.exchange.round(seconds=ends_at - HOUR_S - self.exchange.clock)
        self.exchange.round(seconds=HOUR_S)
        self.contract.settle(0, sender=self.anybody, value=self.exchange.inbox.bond(CHANGE))
        self.measure(name)


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    """Gas of a batch with each kind of change alone, by its name; and the bonds, as 9 and 10."""
    with boa.swap_env(boa.Env()):  # committing its state, as cold gas wants it, spoils the anchors of another
        exchange = Exchange(bond_gas_price=1)
        exchange.round(PRICES)
        governing = Bonded(exchange)
        governing.halt(HALTED, 3_600, "pause")
        governing.halt(NORMAL, 0, "lift")
        governing.change("tuning", 1, *listing_arguments(replace(exchange.markets[1], taker_fee_ppm=500)))
        exchange.jumps[1] = exchange.markets[1].jump_ppm_per_s
        keeper = boa.env.generate_address("keeper")
        governing.change("keeper", 0, keeper, True, slow=True)
        governing.change("quorums", 1, 1, slow=True)
        governing.change("keeper", 0, keeper, False, name="keeper removed")
        listed = replace(THIN, tiers=MANY_TIERS)
        governing.change("listing", *listing_arguments(listed), 12)
        exchange.list_market(listed)
        another = replace(listed, symbol="MORE-PERP")
        governing.change("listing", *listing_arguments(another), 12, name="another listing")
        exchange.list_market(another)
        governing.change("delisting", 0)
        governing.settle("settlement")
        exchange.jumps[0] |= exchange.oracle.ending(0)[1] << SETTLED_BIT
        governing.change("sequencer", boa.env.generate_address("next"))
        return governing.gas | {str(kind): exchange.inbox.bond(kind) for kind in (CHANGE, PAUSE)}


def test_bonds_of_changes_cover_what_their_batch_costs(measured: dict[str, int]) -> None:
    """Every action that goes through the inbox, on cold storage, by itself in a batch; the figures of docs/governance.md."""
    pauses = {name: measured[name] for name in ("pause", "lift")}
    changes = {name: gas for name, gas in measured.items() if name not in (*pauses, str(CHANGE), str(PAUSE))}
    assert set(changes) == {
        *("tuning", "delisting", "settlement", "keeper", "quorums", "keeper removed", "sequencer"),
        *("listing", "another listing"),
    }
    assert (measured[str(CHANGE)], measured[str(PAUSE)]) == (700_000, 350_000)
    assert max(pauses.values()) < measured[str(PAUSE)], measured
    assert max(changes.values()) < measured[str(CHANGE)], measured
    # A listing reads the symbols of all markets that there are: 5 here, 63 at most.
    for_each = changes["another listing"] - changes["listing"]
    assert for_each > 2_000
    assert changes["another listing"] + (MOST_MARKETS - 6) * for_each < measured[str(CHANGE)], measured
