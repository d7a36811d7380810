"""What a person sees of a refusal has its units; scripts get the raw numbers from the exchange itself."""

import ast
from pathlib import Path

import pytest
from web3.exceptions import ContractLogicError, Web3Exception

from evermark.cli.chain import reason
from evermark.cli.errors import CliError
from evermark.cli.refusals import KINDS, about, explain
from evermark.cli.units import checksum, format_ether
from evermark.client import EvermarkError, NotFound, Refused
from evermark.protocol.markets import load_markets

BTC = load_markets()[0]  # 5 size decimals, 1 price decimal
ENGINE = Path(__file__).resolve().parents[2] / "sequencer" / "engine"
# Details that are no amount of anything: ids, counts and sequences, and what no person's request is refused with.
PLAIN = {
    *(
        "account",
        "batch",
        "batches",
        "cap",
        "confirmed",
        "entry",
        "expected",
        "have",
        "hour",
        "last",
        "least",
    ),
    *(
        "market_id",
        "most",
        "next",
        "open",
        "positions",
        "quorum",
        "round",
        "sealed",
        "seen",
        "sequence",
        "slices",
    ),
    *("slot", "value"),
}


def refused(name: str, message: str = "no", field: str = "", **details: int | str) -> Refused:
    return Refused({"code": 1, "name": name, "message": message, "field": field, "details": details})


@pytest.mark.parametrize(
    "error, told",
    [
        (
            refused("BELOW_FIRST_DEPOSIT", amount=5_000_000, least=10_000_000),
            "amount 5.00 USDC, least 10.00 USDC",
        ),
        (refused("ABOVE_TRANSFER_CAP", amount=7, cap=1_000_000), "amount 0.000007 USDC, cap 1.00 USDC"),
        (refused("INSUFFICIENT_MARGIN", required=1_500_000, available=-1), "available -0.000001 USDC"),
        (refused("OUTSIDE_PRICE_BAND", mark=1_185_980, lowest=1), "mark 118,598.0 USDC, lowest 0.1 USDC"),
        (refused("ABOVE_MAX_SIZE", size=150_000, most=100_000), "size 1.5 BTC, most 1 BTC"),
        (refused("OPEN_INTEREST_CAP", open_interest=3, cap=200_000), "open interest 0.00003 BTC, cap 2 BTC"),
        (
            refused("OUT_OF_RANGE", field="display_size", value=10, least=100_000),
            "value 0.0001 BTC, least 1 BTC",
        ),
        (refused("OUT_OF_RANGE", field="twap_interval", value=1, least=10), "value 1 s, least 10 s"),
        (refused("FEE_ABOVE_MAXIMUM", fee_ppm=600, max_fee_ppm=500), "fee 0.06 %, max fee 0.05 %"),
        (refused("EXPIRED", expiry=1_760_129_400), "expiry 2025-10-10 20:50:00 UTC"),
        (refused("STALE_PRICE", stamp_ms=1_760_129_400_123), "stamp 2025-10-10 20:50:00 UTC"),
        (
            refused("UNSETTLED_LIMIT", batches=3, notional=10, age_s=61),
            "batches 3, notional 0.00001 USDC, age 61 s",
        ),
        (refused("OVERLOADED", retry_after_ms=1_001), "retry after 2 s"),
        (refused("MARKET_CANCEL_ONLY", mode=3), "mode cancel-only"),
        (refused("UNKNOWN_ACCOUNT", owner="0x" + "ab" * 20, sub_account=0), "owner 0xABaBaB"),
        (refused("STALE_SEQUENCE", sequence=2, seen=3), "sequence 2, seen 3"),
    ],
)
def test_numbers_have_their_units(error: Refused, told: str) -> None:
    """Tokens, sizes, prices, rates and times as people write them, signs kept."""
    line = explain(error, BTC)
    assert line.startswith(f"{error.name}: no (")
    assert told in line


def test_without_a_market_lots_and_ticks_say_so() -> None:
    """A number alone is never shown."""
    assert explain(refused("ABOVE_MAX_SIZE", size=7)) == "ABOVE_MAX_SIZE: no (size 7 lots)"
    assert explain(refused("OUTSIDE_PRICE_BAND", mark=7)) == "OUTSIDE_PRICE_BAND: no (mark 7 ticks)"


def test_a_command_about_a_market_tells_in_its_units() -> None:
    """Whatever the client raises within it becomes one line."""
    with pytest.raises(CliError, match=r"mark 0\.7 USDC"), about(BTC):
        raise refused("OUTSIDE_PRICE_BAND", mark=7)
    with pytest.raises(CliError, match="never seen"), about(BTC):
        raise NotFound("never seen")
    assert issubclass(NotFound, EvermarkError)


def test_every_number_that_the_engine_refuses_with_is_known_here() -> None:
    """A detail that is added there is given its unit, or is listed as none."""
    told = {
        keyword.arg
        for path in ENGINE.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "no"
        for keyword in call.keywords
        if keyword.arg
    }
    assert len(told) > 30
    assert told <= {key.rpartition(" ")[2] for key in KINDS} | PLAIN


@pytest.mark.parametrize(
    "address",
    ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"],
)
def test_addresses_have_their_capitals(address: str) -> None:
    """EIP-55's own examples; what is no address stays as it is."""
    assert checksum(address.lower()) == checksum(address) == address
    assert (checksum("0x12"), checksum("owner"), checksum("0x" + "zz" * 20)) == (
        "0x12",
        "owner",
        "0x" + "zz" * 20,
    )


def test_wei_are_told_as_ether() -> None:
    """To the last one."""
    assert format_ether(10**18 + 1) == "1.000000000000000001 ether"


@pytest.mark.parametrize(
    "error, told",
    [
        (
            ContractLogicError("execution reverted: exit: not counted yet", "0x08c379a0"),
            "exit: not counted yet",
        ),
        (Web3Exception("node says no"), "node says no"),
        (ContractLogicError("execution reverted"), "it gives no reason"),
    ],
)
def test_what_a_contract_said_is_told_without_the_librarys_words(error: Exception, told: str) -> None:
    """No tuple, and no hex of it."""
    assert reason(error) == told
