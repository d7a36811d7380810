"""Makes `evermark/protocol/vectors/*.json`, which Python and the contracts must both reproduce.

Run by hand after a deliberate change of a formula or an encoding: `python tests/protocol/make_vectors.py`.
The random inputs are seeded, so a change of the vectors is a change of the protocol. Integers beyond 2^53 are
decimal strings.
"""

import json
import random
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from evermark.protocol.batch import (
    FILL_FUND,
    FILL_LIQUIDATION,
    FILL_ORDERS,
    FILL_TAKEOVER,
    NO_INDEX,
    AgentApproval,
    Batch,
    CollateralTransfer,
    Fill,
    InboxUse,
    OrderRow,
    SlotCancel,
    TriggerBit,
    Withdrawal,
    encode_batch,
)
from evermark.protocol.funding import cumulative_step, hourly_rate_ppb
from evermark.protocol.liquidation import book_loss_bound, liquidation_fee, loss_bound, takeover_allowed
from evermark.protocol.margin import (
    AccountMargin,
    closing_check,
    fee_delta,
    funding_owed,
    funding_remainder,
    initial_margin,
    maintenance_margin,
)
from evermark.protocol.markets import load_markets
from evermark.protocol.merkle import merkle_paths
from evermark.protocol.oracle import MarketPrice, Round, prices_hash, round_words
from evermark.protocol.orders import (
    NO_ADDRESS,
    ApproveAgent,
    Cancel,
    Order,
    OrderBatch,
    Side,
    TimeInForce,
    Transfer,
    Trigger,
    Withdraw,
)
from evermark.protocol.signing import (
    FundingReport,
    Liquidate,
    PriceReport,
    Signer,
    digest,
    domain_separator,
    struct_hash,
    typed_data,
)

KEY = b"\x42" * 32
CHAIN_ID = 31_337
VAULT, ORACLE = b"\x11" * 20, b"\x22" * 20
OWNER = Signer(KEY).address
MARKETS = load_markets()


def order(rng: random.Random, *, extended: bool) -> Order:
    """A random order; with every optional field when `extended`."""
    plain = Order(
        owner=OWNER,
        sub_account=rng.randrange(2**16),
        market=rng.choice(MARKETS).symbol,
        side=rng.choice(list(Side)),
        size=rng.randrange(1, 2 ** rng.randint(1, 62)),
        limit_price=rng.randrange(1, 2**32),
        max_fee_ppm=rng.randrange(2**16),
        slot=rng.randrange(1, 2**16),
        sequence=rng.randrange(1, 2**48),
        expiry=rng.randrange(2**32),
        time_in_force=rng.choice(list(TimeInForce)),
        post_only=rng.random() < 0.5,
        reduce_only=rng.random() < 0.5,
        amend=rng.random() < 0.5,
    )
    if not extended:
        return plain
    return msgspec.structs.replace(
        plain,
        builder=rng.randbytes(20),
        max_builder_fee_ppm=rng.randrange(2**16),
        trigger=rng.choice(list(Trigger)),
        trigger_price=rng.randrange(2**32),
        trailing_offset=rng.randrange(2**32),
        display_size=rng.randrange(2**62),
        twap_interval=rng.randrange(2**32),
        bracket_link=rng.randrange(2**16),
    )


def cancel(rng: random.Random) -> Cancel:
    """A random cancel."""
    return Cancel(
        owner=OWNER,
        sub_account=7,
        all_slots=rng.random() < 0.5,
        slot=rng.randrange(2**16),
        sequence=rng.randrange(2**48),
        deadline=rng.randrange(2**32),
    )


def withdraw(rng: random.Random) -> Withdraw:
    """A random withdrawal."""
    return Withdraw(
        owner=OWNER,
        sub_account=7,
        amount=rng.randrange(2**96),
        max_fee=rng.randrange(2**96),
        action_sequence=rng.randrange(2**48),
        deadline=rng.randrange(2**32),
    )


def approval(rng: random.Random) -> ApproveAgent:
    """A random agent approval."""
    return ApproveAgent(
        owner=OWNER,
        sub_account=7,
        agent=rng.randbytes(20),
        agent_expiry=rng.randrange(2**32),
        transfer_cap=rng.randrange(2**96),
        action_sequence=rng.randrange(2**48),
        deadline=rng.randrange(2**32),
    )


def transfer(rng: random.Random) -> Transfer:
    """A random transfer between sub-accounts."""
    return Transfer(
        owner=OWNER,
        sub_account=7,
        to_sub_account=rng.randrange(2**16),
        amount=rng.randrange(2**96),
        action_sequence=rng.randrange(2**48),
        deadline=rng.randrange(2**32),
    )


def signing(rng: random.Random) -> list[Any]:
    """Typed data, its digest, and the signature of a known key."""
    cases = []
    messages: list[tuple[Any, str, bytes]] = [
        *((order(rng, extended=extended), "Evermark", VAULT) for extended in (False, False, True, True)),
        (cancel(rng), "Evermark", VAULT),
        (withdraw(rng), "Evermark", VAULT),
        (approval(rng), "Evermark", VAULT),
        (transfer(rng), "Evermark", VAULT),
        (OrderBatch(root=rng.randbytes(32)), "Evermark", VAULT),
        (Liquidate(account=9, market="BTC-PERP", round=5, deadline=6), "Evermark", VAULT),
        (PriceReport(round=5, timestamp=30, prices=(7 << 32 | 8, 0)), "Evermark Oracle", ORACLE),
        (FundingReport(hour=9, rates_ppb=(-5, 6), samples=b"\x33" * 32), "Evermark Oracle", ORACLE),
    ]
    for message, name, contract in messages:
        separator = domain_separator(CHAIN_ID, contract, name)
        message_digest = digest(separator, message)
        cases.append(
            {
                "typed_data": typed_data(message, CHAIN_ID, contract, name),
                "struct_hash": struct_hash(message),
                "digest": message_digest,
                "private_key": KEY,
                "signer": OWNER,
                "signature": Signer(KEY).sign(message_digest).to_bytes(),
            }
        )
    return cases


def margin(rng: random.Random) -> list[Any]:
    """Requirements at and around every tier, funding owed, fees and closing checks."""
    cases: list[Any] = []
    for market in MARKETS:
        edges = [tier.lower_notional + delta for tier in market.tiers for delta in (-1, 0, 1)]
        for notional in [*edges, 0, 1, *(rng.randrange(10**15) for _ in range(4))]:
            if notional >= 0:
                cases.append(
                    {
                        "market": market.symbol,
                        "notional": notional,
                        "initial": initial_margin(market, notional),
                        "maintenance": maintenance_margin(market, notional),
                    }
                )
    for _ in range(20):
        size, now, entry = (
            rng.randint(-(2**62), 2**62),
            rng.randint(-(2**90), 2**90),
            rng.randint(-(10**12), 10**12),
        )
        owed, left = funding_owed(size, now, entry), funding_remainder(size, now, entry)
        cases.append({"size": size, "cumulative": now, "entry": entry, "owed": owed, "remainder": left})
    for _ in range(10):
        numerator, notional, rate = (
            rng.randint(-(10**15), 10**15),
            rng.randrange(10**12),
            rng.randint(-500, 1_000),
        )
        after, fee = fee_delta(numerator, notional, rate)
        cases.append({"numerator": numerator, "notional": notional, "rate": rate, "after": after, "fee": fee})
    cases.extend(_closing(rng) for _ in range(40))
    return cases


def _closing(rng: random.Random) -> dict[str, Any]:
    was, now = AccountMargin(rng.randint(-100, 400)), AccountMargin(rng.randint(-100, 400))
    for state in (was, now):
        state.maintenance = rng.randint(1, 150)
        state.initial = 2 * state.maintenance
    grew = rng.random() < 0.3
    return {
        "before": [was.equity, was.initial, was.maintenance],
        "after": [now.equity, now.initial, now.maintenance],
        "grew": grew,
        "allowed": closing_check(was, now, grew),
    }


def liquidation(rng: random.Random) -> list[Any]:
    """Loss bounds and fees, above and below zero."""
    cases = []
    for at in range(40):
        market = MARKETS[at % len(MARKETS)]
        size = rng.randrange(1, 10**9)
        own = rng.randrange(1, 10**12)
        maintenance = own + rng.randrange(10**12)
        equity = rng.randint(-maintenance, maintenance)
        closed, notional = rng.randint(1, size), rng.randrange(10**13)
        bound = loss_bound(equity, maintenance, own, closed, size)
        cases.append(
            {
                "market": market.symbol,
                "equity": equity,
                "maintenance": maintenance,
                "position_maintenance": own,
                "closed": closed,
                "size": size,
                "notional": notional,
                "loss_bound": bound,
                "book_loss_bound": book_loss_bound(equity, maintenance, own, closed, size),
                "fee": liquidation_fee(market, notional, bound),
                "takeover_allowed": takeover_allowed(equity, maintenance),
            }
        )
    return cases


def funding(rng: random.Random) -> list[Any]:
    """Hourly rates of sampled premiums, and what they add to the index."""
    cases = []
    for at in range(20):
        market = MARKETS[at % len(MARKETS)]
        reach = 10 ** rng.randint(3, 9)
        premiums = [rng.randint(-reach, reach) for _ in range(5)]
        rate, index = hourly_rate_ppb(premiums, market), rng.randrange(1, 2**32)
        cases.append(
            {
                "market": market.symbol,
                "premiums_ppb": premiums,
                "rate_ppb": rate,
                "index": index,
                "step": cumulative_step(market, index, rate),
            }
        )
    return cases


def oracle(rng: random.Random) -> list[Any]:
    """Packed words and hashes of rounds."""
    cases = []
    for count in range(6):
        prices = tuple(
            MarketPrice(
                rng.randrange(2**32),
                rng.randrange(2**32),
                rng.randrange(2**40),
                clamped=at % 2 == 1,
                calm_rounds=at % 4 if at % 2 else 0,
            )
            for at in range(count)
        )
        made = Round(rng.randrange(2**40), rng.randrange(2**40), prices)
        cases.append({"round": made, "words": round_words(made), "prices_hash": prices_hash(made)})
    return cases


def batch(rng: random.Random) -> list[Any]:
    """Encoded batches: an empty one, and ones with everything."""
    return [_batch(rng, rows) for rows in (0, 1, 4)]


def _batch(rng: random.Random, rows: int) -> dict[str, Any]:
    signature = Signer(KEY).sign(b"\x55" * 32)
    signed = [order(rng, extended=at % 2 == 1) for at in range(rows)]
    signed = [
        msgspec.structs.replace(made, sub_account=7, market=MARKETS[at % 2].symbol)
        for at, made in enumerate(signed)
    ]
    paths = (
        [None, None, *merkle_paths([struct_hash(made) for made in signed])[1][2:]]
        if rows > 2
        else [None] * rows
    )
    kinds = (FILL_ORDERS, FILL_LIQUIDATION, FILL_TAKEOVER, FILL_FUND)[:rows]
    made = Batch(
        batch_id=rng.randrange(2**48),
        round=rng.randrange(2**40),
        prices_hash=rng.randbytes(32),
        journal_sequence=rng.randrange(2**48),
        journal_hash=rng.randbytes(32),
        fee_classes=((100, 400), (-20, 300)),
        markets=(0, 1),
        accounts=(1, 2, 3),
        pairs=((0, 0), (2, 0), (2, 1)),
        orders=tuple(
            OrderRow(1 + at % 2, at % 2, made, signature, path, NO_INDEX if made.is_plain else 2)
            for at, (made, path) in enumerate(zip(signed, paths, strict=True))
        ),
        inbox=(InboxUse(2), InboxUse(NO_INDEX))[:rows],
        actions=(
            AgentApproval(2, approval(rng), signature),
            SlotCancel(2, cancel(rng), signature),
            CollateralTransfer(2, 1, transfer(rng), signature),
        )[:rows],
        funding_hours=(500_000,)[:rows],
        triggers=(TriggerBit(0), TriggerBit(3))[:rows],
        fills=tuple(Fill(kind, 0, 1, rng.randrange(1, 2**60)) for kind in kinds),
        withdrawals=(Withdrawal(2, withdraw(rng), 5, signature),)[:rows],
    )
    owners = {1: [NO_ADDRESS, 0], 2: [NO_ADDRESS, 0], 3: [OWNER, 7]}
    return {"batch": made, "owners": owners, "encoded": encode_batch(made)}


FILES: dict[str, Callable[[random.Random], list[Any]]] = {
    "signing": signing,
    "margin": margin,
    "liquidation": liquidation,
    "funding": funding,
    "oracle": oracle,
    "batch": batch,
}


def render(name: str) -> str:
    """The text of one vectors file."""
    return json.dumps(_plain(FILES[name](random.Random(name))), indent=1, sort_keys=True) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, int):
        return int(value) if abs(value) <= 2**53 else str(int(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}


def directory() -> Path:
    """Where the vectors live."""
    return Path(str(resources.files("evermark.protocol"))) / "vectors"


if __name__ == "__main__":
    directory().mkdir(exist_ok=True)
    for file_name in sys.argv[1:] or FILES:
        (directory() / f"{file_name}.json").write_text(render(file_name))
