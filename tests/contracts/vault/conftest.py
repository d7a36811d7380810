"""One deployed exchange for all vault tests; each test works on an anchored chain, and invariants 1 and 2 are checked after it."""

import boa
import pytest
from builders import USDC, Exchange, Party

PRICES = {0: 600_000, 1: 250_000, 2: 15_000, 3: 30_000}  # BTC 60,000.0, ETH 2,500.00, SOL 150.00, AVAX 30.000
DEPOSIT = 100_000 * USDC


@pytest.fixture(scope="session")
def deployed() -> Exchange:
    """An exchange with a pinned round, a rich maker and taker, and an insurance fund."""
    exchange = Exchange()
    exchange.round(PRICES)
    exchange.donate(50_000 * USDC)
    for number in (1, 2, 3):
        exchange.deposit(number, DEPOSIT)
    exchange.round()
    return exchange


@pytest.fixture
def exchange(deployed: Exchange):
    """The deployed exchange, restored after the test; the protocol's invariants 1 and 2 hold whatever the test did."""
    with boa.env.anchor():
        branch = deployed.branch()
        yield branch
        branch.check_invariants()


@pytest.fixture
def maker(exchange: Exchange) -> Party:
    return exchange.parties[3]


@pytest.fixture
def taker(exchange: Exchange) -> Party:
    return exchange.parties[4]


@pytest.fixture
def keeper(exchange: Exchange) -> Party:
    """A third trader: a liquidation keeper's account, or a bystander."""
    return exchange.parties[5]
