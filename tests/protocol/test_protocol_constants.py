"""Numbers that the protocol shares with the contracts are the same in both, and those that only it has are as documented."""

import re
from pathlib import Path

import pytest

from evermark.protocol import funding, governance, liquidation, margin, markets, merkle, oracle, orders, units

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"


def constant(name: str) -> int:
    """The value of `module.NAME` in the contracts."""
    module, name = name.rsplit(".", 1)
    path = CONTRACTS / f"{module}.vy" if module[0].isupper() else CONTRACTS / "modules" / f"{module}.vy"
    found = re.search(rf"^{name}: constant\(u?int\d+\) = ([^#\n]+)", path.read_text(encoding="utf-8"), re.M)
    assert found, f"{module} has no {name}"
    return int(eval(found[1].replace("units.USDC", "1_000_000"), {}))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (units.PPM, "units.PPM"),
        (units.PPB, "units.PPB"),
        (units.FUNDING_SCALE, "units.FUNDING_SCALE"),
        (units.USDC, "units.USDC"),
        (units.MAX_SIZE_LOTS, "units.MAX_SIZE_LOTS"),
        (units.MAX_NOTIONAL, "units.MAX_NOTIONAL"),
        (units.MAX_COLLATERAL, "units.MAX_COLLATERAL"),
        (units.MAX_PRICE_TICKS, "units.U32"),
        (units.MAX_SEQUENCE, "units.U48"),
        (units.MIN_FIRST_DEPOSIT, "Inbox.MIN_FIRST_DEPOSIT"),
        (units.MIN_FIRST_DEPOSIT, "Clerk.MIN_FIRST_DEPOSIT"),
        (orders.MAX_FEE_LIMIT_PPM, "units.U16"),
        (orders.MAX_EXPIRY_S, "units.U32"),
        (markets.MAX_MARKETS, "PriceOracle.MAX_MARKETS"),
        (markets.MAX_MARKETS, "Governor.MAX_MARKETS"),
        (markets.MAX_OPEN_MARKETS, "ledger.MAX_OPEN_MARKETS"),
        (markets.MIN_JUMP_PPM, "PriceOracle.MIN_JUMP_PPM"),
        (markets.MAX_JUMP_PPM, "PriceOracle.MAX_JUMP_PPM"),
        (oracle.CALM_ROUNDS, "medians.CALM_ROUNDS"),
        (liquidation.DEPOSIT_GRACE_S, "forced.DEPOSIT_GRACE_S"),
        (funding.HOUR_S, "Clerk.HOUR_S"),
        (governance.DELAY_S, "Governor.DELAY_S"),
        (governance.LONG_DELAY_S, "Governor.LONG_DELAY_S"),
        (governance.WINDOW_S, "Governor.WINDOW_S"),
        (governance.MAX_PAUSE_S, "Governor.MAX_PAUSE_S"),
        (governance.NOTICE_S, "Governor.NOTICE_S"),
        (governance.PAUSE_REST_S, "Governor.PAUSE_REST_S"),
        (governance.MAX_KEEPERS, "oracle_roles.MAX_KEEPERS"),
        (governance.THIN_INTEREST, "market_bounds.THIN_INTEREST"),
        (governance.THIN_FRACTION_PPM, "market_bounds.THIN_FRACTION_PPM"),
        (governance.THIN_FUND_SHARE, "market_bounds.THIN_FUND_SHARE"),
        (governance.MAX_INTEREST, "market_bounds.MAX_INTEREST"),
    ],
)
def test_a_shared_number_is_the_contracts(value: int, name: str) -> None:
    assert value == constant(name)


def test_what_only_the_protocol_has() -> None:
    """Nobody's address, the orders of one signature, and the rate an hour's premium far from the interest gives."""
    assert not any(orders.NO_ADDRESS)
    assert len(orders.NO_ADDRESS) == 20
    assert [side.opposite for side in orders.Side] == [orders.Side.SELL, orders.Side.BUY]
    assert [side.sign for side in orders.Side] == [1, -1]
    assert merkle.MAX_BATCH_ORDERS == 64
    assert margin.UP == units.PPM - 1
    market = markets.load_markets()[0]
    for premium, rate in (
        (10_000_000, 1_187_500),
        (-10_000_000, -1_187_500),
        (700_000, 25_000),
        (-3, 12_500),
    ):
        assert funding.hourly_rate_ppb([premium], market) == rate
