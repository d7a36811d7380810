"""Each test starts from fresh contracts and leaves no trace."""

from collections.abc import Iterator
from typing import Any

import boa
import pytest
from boa.contracts.vyper.vyper_contract import VyperContract
from contract_cases import (
    FUNDING_KEEPERS,
    JUMP_PPM,
    KEEPERS,
    MARKETS,
    NOBODY,
    QUORUM,
    ROUND_S,
    START_S,
    compiled,
    text,
)


@pytest.fixture(autouse=True)
def no_storage_dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """titanoboa prints the storage of a contract that reverts, and stumbles over some maps of maps doing so."""
    monkeypatch.setattr(VyperContract, "__repr__", lambda self: "a contract")


@pytest.fixture
def chain() -> Iterator[Any]:
    """The test chain at START_S; everything is rolled back afterwards."""
    with boa.env.anchor():
        boa.env.timestamp = START_S
        yield boa.env


@pytest.fixture
def sequencer(chain: Any) -> str:
    return chain.generate_address("sequencer")


@pytest.fixture
def governor(chain: Any) -> str:
    return chain.generate_address("governor")


@pytest.fixture
def oracle(chain: Any, sequencer: str, governor: str) -> Any:
    """Five oracle keepers, three funding keepers, quorums of three, three markets."""
    keepers = [text(keeper.address) for keeper in KEEPERS]
    funding = [text(keeper.address) for keeper in FUNDING_KEEPERS]
    jumps = [JUMP_PPM] * MARKETS
    return compiled("PriceOracle").deploy(
        ROUND_S, QUORUM, jumps, keepers, QUORUM, funding, sequencer, governor, NOBODY
    )


@pytest.fixture
def usdc(chain: Any) -> Any:
    return compiled("TestUSDC").deploy()


@pytest.fixture
def vault(chain: Any) -> Any:
    return compiled("StubVault").deploy()


@pytest.fixture
def inbox(usdc: Any, vault: Any, chain: Any) -> Any:
    """Without bonds; `bonded` in test_inbox_requests.py has them."""
    others = (chain.generate_address("exit"), chain.generate_address("governor"))
    return compiled("Inbox").deploy(usdc, vault, *others, 0)


@pytest.fixture
def owner(chain: Any, usdc: Any, inbox: Any) -> str:
    """Holds 1,000 USDC and lets the inbox take them."""
    address = chain.generate_address("owner")
    usdc.mint(address, 1_000_000_000)
    usdc.approve(inbox, 2**256 - 1, sender=address)
    return address
