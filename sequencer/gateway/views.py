"""Engine state -> the JSON of the public reads. Formulas are the engine's and the protocol's."""

from typing import Any

import msgspec

from evermark.protocol.margin import AccountMargin, funding_owed
from evermark.protocol.units import MAX_PRICE_TICKS
from sequencer.engine.market_state import MarketState
from sequencer.engine.risk import available, margin_of
from sequencer.engine.state import Account, EngineState, Position
from sequencer.gateway.services import ExchangeFacts
from sequencer.history.records import wire_int
from sequencer.market_data import MarketData

ENTRY_DECIMALS = 6  # of an entry price in ticks


def exchange_json(state: EngineState, facts: ExchangeFacts, listed: int) -> dict[str, Any]:
    """The fixed facts of the exchange, as GET /v1/exchange answers, with the first `listed` markets."""
    genesis = state.genesis
    markets = [at.market for at in state.markets[:listed]]
    return {
        "chain_id": facts.chain_id,
        "vault": "0x" + facts.vault.hex(),
        "oracle": "0x" + facts.oracle.hex(),
        "inbox": "0x" + facts.inbox.hex(),
        "token": "0x" + facts.token.hex(),
        "round_seconds": genesis.round_seconds if genesis is not None else 0,
        "markets": [msgspec.to_builtins(market) for market in markets],
        "fee_schedule": {
            market.symbol: {"maker_ppm": market.maker_fee_ppm, "taker_ppm": market.taker_fee_ppm}
            for market in markets
        },
    }


def status_json(
    state: EngineState, market_data: MarketData, now_s: int, missing: list[str], extra: dict[str, Any]
) -> dict[str, Any]:
    """The exchange's condition, as GET /v1/status answers; `extra` is what settlement adds."""
    own = {
        "chain_time": now_s,
        "round": state.round.round,
        "batch_open": state.sealed_batch + 1,
        "batch_settled": state.confirmed_batch,
        "journal_sequence": state.sequence,
        "unsettled_notional": wire_int(state.unsettled_notional),
        "fills_matched": state.trade_count,
        "ready": not missing,
        "missing": missing,
        "markets": {
            at.market.symbol: _market_status(at, now_s, market_data.funding_rates.get(at.market.market_id, 0))
            for at in state.markets
        },
    }
    return own | extra


def account_json(state: EngineState, account: Account) -> dict[str, Any]:
    """ACCOUNT of the API reference; quote amounts as text."""
    margin = margin_of(state, account)
    return {
        "account": account.account_id,
        "owner": "0x" + account.owner.hex(),
        "sub_account": account.sub_account,
        "collateral": str(account.collateral),
        "equity": str(margin.equity),
        "initial_margin": str(margin.initial),
        "maintenance_margin": str(margin.maintenance),
        "withdrawable": str(available(state, account)),
        "action_sequence": account.action_sequence,
        "positions": [
            _position_json(state.markets[market_id], position, margin)
            for market_id, position in sorted(account.positions.items())
            if position.size
        ],
        "open_orders": len(account.orders) + len(account.untriggered),
        "delayed_withdrawals": [
            {"claim": claim, "amount": str(amount), "payable_at": due}
            for due, claim, holder, amount in sorted(state.delayed_claims)
            if holder == account.account_id
        ],
    }


def entry_price(entry_notional: int, size: int, lot_tick_value: int) -> str:
    """Average entry in decimal ticks, rounded toward zero."""
    whole, rest = divmod(abs(entry_notional), abs(size) * lot_tick_value)
    digits = (
        str(rest * 10**ENTRY_DECIMALS // (abs(size) * lot_tick_value)).rjust(ENTRY_DECIMALS, "0").rstrip("0")
    )
    return f"{whole}.{digits}" if digits else str(whole)


def liquidation_price(at: MarketState, size: int, mark: int, margin: AccountMargin) -> int | None:
    """The mark nearest to now at which the account falls below maintenance when only this market moves.

    None when no price does it: a long survives even at one tick, a short even at the highest.
    """
    own = AccountMargin(0)
    own.add_position(at.market, size, mark, 0)

    def fails(price: int) -> bool:
        moved = AccountMargin(margin.equity - own.equity)
        moved.maintenance = margin.maintenance - own.maintenance
        moved.add_position(at.market, size, price, 0)
        return moved.liquidatable

    if margin.liquidatable:
        return mark
    safe, failing = (mark, 1) if size > 0 else (mark, MAX_PRICE_TICKS)
    if not fails(failing):
        return None
    while abs(safe - failing) > 1:
        middle = (safe + failing) // 2
        if fails(middle):
            failing = middle
        else:
            safe = middle
    return failing


def _position_json(at: MarketState, position: Position, margin: AccountMargin) -> dict[str, Any]:
    value = at.market.notional(position.size, at.mark)
    return {
        "market": at.market.symbol,
        "size": wire_int(position.size),
        "entry_price": entry_price(position.entry_notional, position.size, at.market.lot_tick_value),
        "mark": at.mark,
        "notional": str(abs(value)),
        "unrealized_pnl": str(value - position.entry_notional),
        "funding_owed": str(funding_owed(position.size, at.cumulative, position.entry_cumulative)),
        "liquidation_price": liquidation_price(at, position.size, at.mark, margin),
    }


def _market_status(at: MarketState, now_s: int, rate_ppb: int) -> dict[str, Any]:
    return {
        "mode": at.effective_mode.name.lower(),
        "index": at.price.index_ticks,
        "mark": at.mark,
        "price_age_s": max(0, now_s - at.price.updated_at) if at.price.updated_at else None,
        "open_interest": wire_int(at.open_interest),
        "funding_rate_ppb": rate_ppb,
    }
