"""The projection: rebuilt from the journal, resumed after a restart, never fed with a gap."""

from pathlib import Path

import pytest
from gateway_world import MAKER, TAKER, Caller, GatewayWorld, running
from sqlalchemy.exc import OperationalError

from evermark.protocol.orders import Order, Side, TimeInForce, Trigger
from sequencer.engine.state import EngineState
from sequencer.history import History, HistoryGap, Store
from sequencer.history.candles import INTERVALS_S, CandleBuilder
from sequencer.history.records import OrderRecord, Progress
from sequencer.history.store import WriteBatch
from sequencer.replay import Applied, replay


async def trade(world: GatewayWorld, caller: Caller) -> None:
    await caller.place(world.order(MAKER, side=Side.SELL, limit_price=1_100_000), MAKER, client_id="one")
    await caller.place(world.order(TAKER, limit_price=1_100_000, size=400), TAKER)
    await caller.place(world.order(TAKER, limit_price=1_090_000, slot=2), TAKER)
    await world.advance(90)
    await caller.place(world.order(TAKER, limit_price=1_100_000, size=300, slot=3), TAKER)


async def everything(world: GatewayWorld, caller: Caller) -> dict[str, object]:
    answers: dict[str, object] = {}
    for signer in (MAKER, TAKER):
        account = f"/v1/accounts/0x{signer.address.hex()}/0"
        for part in ("", "/orders", "/fills", "/funding", "/ledger", "/orders?status=open"):
            answers[account + part] = (await caller.get(account + part)).body
    for interval in INTERVALS_S:
        path = f"/v1/markets/BTC-PERP/candles?interval={interval}"
        answers[path] = (await caller.get(path)).body
    answers["trades"] = (await caller.get("/v1/markets/BTC-PERP/trades?limit=1000")).body
    return answers


@pytest.mark.parametrize("loss", ["nothing", "history", "other journal's history"])
async def test_same_answers_after_restart(tmp_path: Path, loss: str) -> None:
    """Resumed, or rebuilt from the journal because the file is gone or another journal's: the same
    answers.
    """
    async with running(tmp_path / loss) as world:
        caller = Caller(world)
        await world.fund(MAKER, TAKER)
        await trade(world, caller)
        before = await everything(world, caller)
        await world.stop()
        path = world.directory / "history.db"
        if loss != "nothing":
            path.unlink()
        if loss.startswith("other"):
            store = Store(path)
            store.write(WriteBatch({}, 3, b"another journal's hash")).result()
            store.close()
        await world.start()
        assert await everything(world, caller) == before
        await trade(world, caller)
        candles = (await caller.get("/v1/markets/BTC-PERP/candles?interval=1d")).body
        trades = (await caller.get("/v1/markets/BTC-PERP/trades?limit=1000")).body
        assert [candle["n"] for candle in candles] == [len(trades)]
        assert len(trades) > 2
        await caller.close()


def test_start_reads_orders_as_they_were_written(tmp_path: Path) -> None:
    """Open and recent orders come back field by field: flags, hashes, quote amounts beyond 64 bits, text that looks like a
    number."""
    written = [
        OrderRecord(
            order=Order(
                owner=bytes([7]) * 20,
                sub_account=1,
                market="BTC-PERP",
                side=Side.SELL,
                size=2**62 - 1,
                limit_price=10,
                max_fee_ppm=1_000,
                slot=number,
                sequence=number,
                expiry=2**40,
                time_in_force=TimeInForce.FOK,
                post_only=number == 1,
                trigger=Trigger.LAST_BELOW,
                bracket_link=9,
            ),
            order_hash=bytes([number]) * 32,
            client_id="007",
            account=3,
            time_ms=9,
            journal_sequence=number,
            status=status,
            traded=4,
            lot_ticks=10**30,
            fee=-(10**25),
            builder_fee=12,
            reason="1",
            first=Progress("open", 1, 1, 10**30, -7, 0, ""),
        )
        for number, status in ((1, "open"), (2, "filled"))
    ]
    store = Store(tmp_path / "history.db")
    store.write(WriteBatch({"orders": [record.row() for record in written]}, 2, b"x")).result()
    store.close()
    again = History(Store(tmp_path / "history.db"))
    assert [again.order(record.order_hash) for record in written] == written
    again.store.close()


async def test_pages(world: GatewayWorld, caller: Caller) -> None:
    """`limit` and `before` walk a list without gap or repetition, newest first."""
    placed = [await caller.place(world.order(MAKER, slot=slot), MAKER) for slot in range(1, 8)]
    path = f"/v1/accounts/0x{MAKER.address.hex()}/0/orders?limit=3"
    found, before = [], ""
    while page := (await caller.get(path + before)).body:
        found += [order["order_hash"] for order in page]
        before = f"&before={page[-1]['journal_sequence']}"
    assert found == [answer.body["order_hash"] for answer in reversed(placed)]


async def test_gap_is_refused(world: GatewayWorld, tmp_path: Path) -> None:
    """A record that does not follow on the last one stops the projection instead of leaving a hole."""
    applied: list[Applied] = []
    replay(world.core.reader, EngineState(), [applied.append])
    history = History(Store(tmp_path / "other.db"))
    history.observe(applied[0])
    with pytest.raises(HistoryGap):
        history.observe(applied[2])
    history.observe(applied[0])  # an old record is nothing new
    history.store.close()


async def test_failing_disk_is_told_and_ends_with_close(tmp_path: Path) -> None:
    """A write that fails is repeated until the store is closed; it is never silently dropped."""
    store = Store(tmp_path / "history.db")
    store.read_now(lambda connection: connection.exec_driver_sql("DROP TABLE meta"))
    writing = store.write(WriteBatch({}, 1, b"x"))
    store._closing.set()
    with pytest.raises(OperationalError):
        writing.result()
    store.close()


def test_candles() -> None:
    """Open, high, low, close, volume and count of each interval; a new one begins on its boundary."""
    builder = CandleBuilder()
    start = 1_760_000_400  # a multiple of 900
    for price, size, at in ((10, 1, 0), (12, 2, 30), (9, 3, 59), (11, 4, 60)):
        builder.add("X", price, size, (start + at) * 1000)
    minutes = [candle for key, candle in builder.changed.items() if key[1] == "1m"]
    assert [(c.t - start, c.o, c.h, c.l, c.c, c.v, c.n) for c in minutes] == [
        (0, 10, 12, 9, 9, 6, 3),
        (60, 11, 11, 11, 11, 4, 1),
    ]
    (quarter,) = [candle for key, candle in builder.changed.items() if key[1] == "15m"]
    assert (quarter.o, quarter.h, quarter.l, quarter.c, quarter.v, quarter.n) == (10, 12, 9, 11, 10, 4)
