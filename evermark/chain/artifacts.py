"""Compiled contracts, as `scripts/build_contracts.py` leaves them: running needs no compiler."""

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from eth_abi.abi import encode
from eth_utils.abi import collapse_if_tuple

CONTRACTS = {
    "token": "TestUSDC",
    "oracle": "PriceOracle",
    "clerk": "Clerk",
    "backstop": "Backstop",
    "reasons": "Reasons",
    "verifier": "OrderVerifier",
    "lens": "Lens",
    "exit": "Exit",
    "inbox": "Inbox",
    "vault": "MarginVault",
    "governor": "Governor",
}


class Artifact(msgspec.Struct, frozen=True):
    """One compiled contract; `bytecode` is 0x-hex creation code without constructor arguments."""

    name: str
    compiler: str
    runtime_size: int
    abi: list[dict[str, Any]]
    bytecode: str

    def creation_code(self, *arguments: Any) -> bytes:
        """Creation code with ABI-encoded constructor arguments."""
        inputs = [item["inputs"] for item in self.abi if item["type"] == "constructor"]
        types = [collapse_if_tuple(item) for item in (inputs[0] if inputs else [])]
        return bytes.fromhex(self.bytecode[2:]) + bytes(encode(types, arguments))

    def is_runtime(self, code: bytes) -> bool:
        """True when `code`, read from a chain, is this contract's.

        Vyper writes immutables behind the runtime code, so those bytes are left out of the comparison.
        """
        runtime = code[: self.runtime_size]
        return len(runtime) == self.runtime_size and runtime in bytes.fromhex(self.bytecode[2:])


@cache
def load_artifact(role: str) -> Artifact:
    """The artifact behind a manifest's contract name: a key of `CONTRACTS`."""
    # `contracts` stands beside `evermark`, in a checkout as well as where a wheel is installed.
    file = Path(__file__).resolve().parents[2] / "contracts" / "artifacts" / f"{CONTRACTS[role]}.json"
    return msgspec.json.decode(file.read_bytes(), type=Artifact)
