"""One deployed exchange for all vault tests; each test works on an anchored chain, invariants 1 and 2 are checked after it."""

import boa
import pytest
from builders import USDC, Exchange, Party
from governing import Governing

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
        # A test may have put other code there; titanoboa goes on taking the address for that code's, and coverage with it.
        for contract in (branch.governance, branch.verifier):
            boa.env.register_contract(contract.address, contract)


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


@pytest.fixture
def governing(exchange: Exchange) -> Governing:
    """The governor and the guardian at work."""
    return Governing(exchange)


@pytest.fixture
def exchange_with_token():
    """Deploys another exchange, over a token of this directory's `mocks`; the vault's address is the usual one."""
    with boa.env.anchor():

        def deploy(token: str) -> Exchange:
            with_token = Exchange(token=token)
            with_token.round(PRICES)
            return with_token

        yield deploy


@pytest.fixture
def maker_of():
    """A trader with a deposit of 1,000 USDC on an exchange of one's own."""
    return lambda exchange, number: exchange.deposit(number, 1_000 * USDC)
