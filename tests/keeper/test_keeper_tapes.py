"""Tapes: the generator's determinism, the reader's strictness, what file names say."""

import gzip
from decimal import Decimal
from pathlib import Path

import pytest
from keeper_cases import AVAX, BTC, MARKETS, NOW_S

from evermark.protocol.orders import Side
from evermark.tapes import (
    Rounding,
    SeededTape,
    TapeError,
    TapeReader,
    discover,
    identify,
    to_lots,
    to_ticks,
    write_seeded_day,
    write_tape,
)
from evermark.tapes.discovery import TapeKind

HEADER = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
START_US = NOW_S * 1_000_000


def tape(**changes) -> SeededTape:
    """Ten minutes of a generated venue."""
    terms = {"venue": "v", "symbol": "BTCUSD", "base": "BTC", "start_us": START_US, "seed": 7}
    return SeededTape(**(terms | {"end_us": START_US + 600_000_000} | changes))


def written(path: Path, *rows: str) -> Path:
    """A tape file with the usual header."""
    path.write_text(HEADER + "".join(f"v,BTCUSD,{row}\n" for row in rows))
    return path


def test_equal_seeds_give_equal_bytes(tmp_path):
    """Also compressed; another seed gives another tape."""
    first, second, other = (tmp_path / name for name in ("a.csv.gz", "b.csv.gz", "c.csv.gz"))
    assert write_tape(first, tape()) == write_tape(second, tape()) > 100
    write_tape(other, tape(seed=8))
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("name", ["v_BTCUSD.csv", "v_BTCUSD.csv.gz"])
def test_reader_returns_what_was_generated(tmp_path, name):
    """Every trade, exactly, in both forms; a second pass too."""
    path = tmp_path / name
    write_tape(path, tape())
    reader = TapeReader(path)
    assert list(reader) == list(tape().trades()) == list(reader)
    assert (reader.bad_rows, reader.late_rows) == (0, 0)


def test_window_is_half_open(tmp_path):
    """From start on, before end."""
    rows = [f"{time},0,{time},buy,1,1" for time in (10, 20, 30)]
    path = written(tmp_path / "t.csv", *rows)
    assert [trade.time_us for trade in TapeReader(path, start_us=10, end_us=30)] == [10, 20]
    assert [trade.time_us for trade in TapeReader(path, start_us=11)] == [20, 30]


def test_bad_rows_are_named_counted_and_left_out(tmp_path):
    """File and line in every complaint; good rows around them survive."""
    path = written(
        tmp_path / "t.csv",
        "10,0,1,buy,100.5,2",
        "11,0,2,hold,100,2",
        "12,0,3,buy,0,2",
        "13,0,4,buy,-5,2",
        "14,0,5,buy,nan,2",
        "15,0,6,buy,1e9,2",
        "16,0,7,buy,100,",
        "17,0,8,buy,100",
        "x,0,9,buy,100,2",
        "١٨,0,9,buy,100,2".replace("١٨", "-1"),
        "19,0,10,sell,100,1e-05",
    )
    reader = TapeReader(path)
    trades = list(reader)
    assert [(trade.time_us, trade.side) for trade in trades] == [(10, Side.BUY), (19, Side.SELL)]
    assert trades[1].amount == Decimal("0.00001")
    assert reader.bad_rows == 9
    assert reader.complaints[0] == f"{path}:3: side 'hold'"
    assert [complaint.split(":")[1] for complaint in reader.complaints] == [
        str(line) for line in range(3, 12)
    ]


def test_times_never_fall(tmp_path):
    """A late row takes its predecessor's time and is counted."""
    path = written(tmp_path / "t.csv", "20,0,1,buy,1,1", "15,0,2,buy,2,1", "30,0,3,buy,3,1")
    reader = TapeReader(path)
    assert [trade.time_us for trade in reader] == [20, 20, 30]
    assert reader.late_rows == 1


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", gzip.compress(HEADER.encode())[:-9], b"\xff\xfe\x00"], ids=len
)
def test_what_is_no_tape_is_refused_by_name(tmp_path, content):
    """Empty, other columns, cut short, not text: TapeError names the file."""
    path = tmp_path / ("t.csv.gz" if content[:2] == b"\x1f\x8b" else "t.csv")
    path.write_bytes(content)
    with pytest.raises(TapeError, match=str(path)):
        list(TapeReader(path))


def test_a_missing_file_is_refused(tmp_path):
    """As TapeError, like any other unreadable one."""
    with pytest.raises(TapeError, match="No such file"):
        list(TapeReader(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    "name, found",
    [
        ("gemini_BTCUSD.csv.gz", ("gemini", "spot", 0)),
        ("coinbase_AVAX-USD.csv", ("coinbase", "spot", 3)),
        ("okx_SOL_USDT.csv", ("okx", "spot", 2)),
        ("binance-delivery_AVAXUSD_PERP.csv.gz", ("binance-delivery", "perpetual", 3)),
        ("binance-futures_BTCUSDT.csv.gz", ("binance-futures", "perpetual", 0)),
        ("okex-swap_ETH-USDT-SWAP.csv", ("okex-swap", "perpetual", 1)),
        ("binance-futures_BTCUSDT_depth.csv.gz", None),
        ("gemini_DOGEUSD.csv.gz", None),
        ("gemini_BTCEUR.csv.gz", None),
        ("README.md", None),
    ],
)
def test_file_names_say_venue_kind_and_market(name, found):
    """Symbols in the spellings of venues; other files and unlisted markets are no tapes."""
    file = identify(Path(name), MARKETS)
    assert (file and (file.venue, str(file.kind), file.market_id)) == found


def test_a_seeded_day_is_discovered(tmp_path):
    """One spot venue a market, two and a perpetual for the last; a directory without tapes is refused."""
    folder = write_seeded_day(tmp_path, MARKETS, start_s=NOW_S, seconds=60, seed=1)
    assert folder.name == "2025-10-10"
    tapes = discover(tmp_path, MARKETS)
    assert discover(tmp_path, MARKETS, "2025-10-10") == discover(folder, MARKETS) == tapes
    assert [(tape.market_id, tape.kind) for tape in tapes] == [
        (0, TapeKind.SPOT),
        (1, TapeKind.SPOT),
        (2, TapeKind.SPOT),
        (3, TapeKind.PERPETUAL),
        (3, TapeKind.SPOT),
        (3, TapeKind.SPOT),
    ]
    with pytest.raises(FileNotFoundError, match="no tape of a listed market"):
        discover(tmp_path / "nowhere", MARKETS)


@pytest.mark.parametrize(
    "price, rounding, ticks",
    [
        ("121758.75", Rounding.DOWN, 1_217_587),
        ("121758.75", Rounding.UP, 1_217_588),
        ("121758.75", Rounding.NEAREST, 1_217_588),
        ("121758.74", Rounding.NEAREST, 1_217_587),
        ("0.04", Rounding.NEAREST, None),
        ("429496729.6", Rounding.DOWN, None),
        ("NaN", Rounding.DOWN, None),
        ("Infinity", Rounding.DOWN, None),
        ("1E+900", Rounding.DOWN, None),
    ],
)
def test_prices_become_ticks_with_a_named_rounding(price, rounding, ticks):
    """Exact decimals in, ticks out; what does not fit is None."""
    assert to_ticks(Decimal(price), BTC, rounding) == ticks


def test_amounts_become_lots():
    """Down to nothing is None."""
    assert to_lots(Decimal("4.11908"), AVAX, Rounding.DOWN) == 411
    assert to_lots(Decimal("0.001"), AVAX, Rounding.DOWN) is None
