"""Random messages within the ranges that the signed types allow."""

from hypothesis import strategies as st

from evermark.protocol.markets import load_markets
from evermark.protocol.orders import (
    ApproveAgent,
    Cancel,
    Order,
    OrderBatch,
    Side,
    Signature,
    TimeInForce,
    Transfer,
    Trigger,
    Withdraw,
)
from evermark.protocol.signing import FundingReport, Liquidate, PriceReport

ADDRESSES = st.binary(min_size=20, max_size=20)
SYMBOLS = tuple(market.symbol for market in load_markets())
SIGNATURES = st.builds(
    Signature, r=st.integers(0, 2**256 - 1), s=st.integers(0, 2**256 - 1), parity=st.integers(0, 1)
)


def unsigned(bits, least=0):
    return st.integers(least, 2**bits - 1)


def orders(**fixed):
    """Orders with every field random; `expiry_bits` 32 keeps them within a batch row."""
    fields = {
        "owner": ADDRESSES,
        "sub_account": unsigned(16),
        "market": st.sampled_from(SYMBOLS),
        "side": st.sampled_from(Side),
        "size": unsigned(62, 1),
        "limit_price": unsigned(32),
        "max_fee_ppm": unsigned(16),
        "slot": unsigned(16),
        "sequence": unsigned(48),
        "expiry": unsigned(32),
        "time_in_force": st.sampled_from(TimeInForce),
        "post_only": st.booleans(),
        "reduce_only": st.booleans(),
        "amend": st.booleans(),
        "builder": st.one_of(st.just(bytes(20)), ADDRESSES),
        "max_builder_fee_ppm": st.one_of(st.just(0), unsigned(16)),
        "trigger": st.sampled_from(Trigger),
        "trigger_price": unsigned(32),
        "trailing_offset": unsigned(32),
        "display_size": unsigned(64),
        "twap_interval": unsigned(32),
        "bracket_link": unsigned(16),
    }
    return st.builds(Order, **{**fields, **fixed})


def plain_orders(**fixed):
    """Orders without an optional field."""
    plain = {
        "builder": st.just(bytes(20)),
        "max_builder_fee_ppm": st.just(0),
        "trigger": st.just(Trigger.NONE),
        **dict.fromkeys(
            ("trigger_price", "trailing_offset", "display_size", "twap_interval", "bracket_link"), st.just(0)
        ),
    }
    return orders(**{**plain, **fixed})


ACTION = {"owner": ADDRESSES, "sub_account": unsigned(16)}
CANCELS = st.builds(
    Cancel, **ACTION, all_slots=st.booleans(), slot=unsigned(16), sequence=unsigned(48), deadline=unsigned(32)
)
WITHDRAWS = st.builds(
    Withdraw,
    **ACTION,
    amount=unsigned(96),
    max_fee=unsigned(96),
    action_sequence=unsigned(48),
    deadline=unsigned(32),
)
APPROVALS = st.builds(
    ApproveAgent,
    **ACTION,
    agent=ADDRESSES,
    agent_expiry=unsigned(32),
    transfer_cap=unsigned(96),
    action_sequence=unsigned(48),
    deadline=unsigned(32),
)
TRANSFERS = st.builds(
    Transfer,
    **ACTION,
    to_sub_account=unsigned(16),
    amount=unsigned(96),
    action_sequence=unsigned(48),
    deadline=unsigned(32),
)
PRICE_REPORTS = st.builds(
    PriceReport,
    round=unsigned(64),
    timestamp=unsigned(64),
    prices=st.lists(unsigned(64), max_size=5).map(tuple),
)
FUNDING_REPORTS = st.builds(
    FundingReport,
    hour=unsigned(64),
    rates_ppb=st.lists(st.integers(-(2**63), 2**63), max_size=5).map(tuple),
    samples=st.binary(min_size=32, max_size=32),
)
LIQUIDATES = st.builds(
    Liquidate,
    account=unsigned(32),
    market=st.sampled_from(SYMBOLS),
    round=unsigned(64),
    deadline=unsigned(64),
)
MESSAGES = st.one_of(
    orders(),
    CANCELS,
    WITHDRAWS,
    APPROVALS,
    TRANSFERS,
    st.builds(OrderBatch, root=st.binary(min_size=32, max_size=32)),
    PRICE_REPORTS,
    FUNDING_REPORTS,
    LIQUIDATES,
)
