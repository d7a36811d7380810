"""A rounding that is wrong by one unit, in any one of the three, is caught by the agreement of the other two."""

import shutil

import boa
import naive_vault
import pytest

from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from tests import fast_evm
from tests.agreement.exchange import signer
from tests.agreement.three_ways import ThreeWays
from tests.compiled_contracts import CONTRACTS, replaced

START = 1_760_129_400
PRICES = [(1_136_000, 1_136_200), (383_000, 383_100), (19_500, 19_510), (22_100, 22_120)]


def trade_and_compare():
    """Two fills whose fees and funding do not divide evenly, an hour of funding between them."""
    with boa.swap_env(fast_evm.fresh()):
        exchange = ThreeWays(load_markets(), START)
        exchange.round(PRICES)
        maker, taker = signer("maker"), signer("taker")
        exchange.deposit(maker, 50_000 * 10**6)
        exchange.deposit(taker, 50_000 * 10**6)
        exchange.order(maker, 0, Side.SELL, 12_347, 1_136_501, slot=1)
        exchange.order(taker, 0, Side.BUY, 12_347, 1_137_000, slot=0)
        exchange.round(PRICES, 1_000)
        exchange.confirm()
        exchange.funding(exchange.now // 3600 - 1, [77_777, -5, 3, 1])
        exchange.order(maker, 0, Side.SELL, 1_001, 1_136_501, slot=2)
        exchange.order(taker, 0, Side.BUY, 1_001, 1_137_000, slot=0)
        exchange.round(PRICES)
        exchange.compare()


@pytest.mark.safety("C02", "contract")
@pytest.mark.safety("C02", "sequencer")
def test_right_roundings_agree():
    """The stream that the others run agrees when nothing is changed."""
    trade_and_compare()


def test_a_wrong_rounding_of_the_engine_is_caught(monkeypatch):
    """Funding rounded down instead of up: one unit, and the comparison fails."""
    honest = pytest.importorskip("sequencer.engine.ledger").funding_owed
    if not hasattr(honest, "__code__"):
        pytest.skip("a compiled engine cannot be changed from outside")

    def down(size, cumulative, entry):
        return -honest(-size, cumulative, entry)

    monkeypatch.setattr("sequencer.engine.ledger.funding_owed", down)
    with pytest.raises(AssertionError):
        trade_and_compare()


def test_a_wrong_rounding_of_the_model_is_caught(monkeypatch):
    """Every ceiling of the model becomes a floor."""
    monkeypatch.setattr(naive_vault, "ceil", lambda numerator, denominator: numerator // denominator)
    with pytest.raises(AssertionError):
        trade_and_compare()


def test_a_wrong_rounding_of_the_vault_is_caught(monkeypatch, tmp_path):
    """A vault compiled from a copy whose fees truncate instead of rounding up."""
    shutil.copytree(CONTRACTS, tmp_path / "contracts", ignore=shutil.ignore_patterns("artifacts"))
    orders = tmp_path / "contracts" / "modules" / "orders.vy"
    right = "10**6 * 2**100 + 10**6 - 1"
    source = orders.read_text()
    assert source.count(right) == 1
    orders.write_text(source.replace(right, "10**6 * 2**100"))
    monkeypatch.setitem(replaced, "MarginVault", tmp_path / "contracts" / "MarginVault.vy")
    with pytest.raises(AssertionError):
        trade_and_compare()
