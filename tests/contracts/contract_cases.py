"""The token, inbox and oracle on titanoboa, and signed reports for the oracle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boa

from evermark.protocol.orders import Signature
from evermark.protocol.signing import (
    SECP256K1_N,
    FundingReport,
    PriceReport,
    Signer,
    digest,
    domain_separator,
)
from tests.compiled_contracts import deployer

MOCKS = Path(__file__).resolve().parent / "mocks"
START_S = 1_800_000_000
ROUND_S = 10
MARKETS = 3
JUMP_PPM = 5_000  # 5 % in a round
NOBODY = "0x" + "00" * 20
QUORUM = 3
SEQUENCER_LANE, PUBLIC_LANE = 0, 1


def compiled(name: str) -> Any:
    """A contract, or a mock of one."""
    return deployer(name, MOCKS)


def signers(first: int, count: int) -> list[Signer]:
    """Keys by number, ascending by address as the oracle wants them."""
    keys = [Signer(number.to_bytes(32, "big")) for number in range(first, first + count)]
    return sorted(keys, key=lambda signer: signer.address)


KEEPERS = signers(1_000, 5)
FUNDING_KEEPERS = signers(2_000, 3)
STRANGER = Signer(b"\x77" * 32)


def text(address: bytes) -> str:
    return "0x" + address.hex()


def separator(oracle: Any, chain_id: int | None = None) -> bytes:
    """The oracle's EIP-712 domain as keepers compute it."""
    return domain_separator(
        boa.env.evm.patch.chain_id if chain_id is None else chain_id,
        bytes.fromhex(oracle.address[2:]),
        "Evermark Oracle",
    )


def signed(oracle: Any, signer: Signer, report: PriceReport | FundingReport, **domain: Any) -> Signature:
    return signer.sign(digest(separator(oracle, **domain), report))


def flipped(signature: Signature) -> Signature:
    """The same signature in its high-s form."""
    return Signature(signature.r, SECP256K1_N - signature.s, 1 - signature.parity)


def price_report(timestamp: int, prices: Sequence[int], round_: int | None = None) -> PriceReport:
    number = timestamp // ROUND_S if round_ is None else round_
    return PriceReport(round=number, timestamp=timestamp, prices=tuple(prices))


def price_row(report: PriceReport, signature: Signature) -> tuple[Any, ...]:
    """A report as the oracle's ABI takes it."""
    return (
        report.round,
        report.timestamp,
        list(report.prices),
        signature.r,
        signature.s,
        27 + signature.parity,
    )


def funding_row(report: FundingReport, signature: Signature) -> tuple[Any, ...]:
    return (
        report.hour,
        list(report.rates_ppb),
        report.samples,
        signature.r,
        signature.s,
        27 + signature.parity,
    )


def rows(oracle: Any, reports: Sequence[PriceReport | FundingReport], keepers: Sequence[Signer]) -> list[Any]:
    """Reports signed by the first keepers, in order."""
    made = []
    for report, keeper in zip(reports, keepers, strict=False):
        make: Any = price_row if isinstance(report, PriceReport) else funding_row
        made.append(make(report, signed(oracle, keeper, report)))
    return made
