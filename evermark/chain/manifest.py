"""What a deployment is: addresses, ABIs, roles, parameters, markets. One JSON file for every process."""

import os
from pathlib import Path
from typing import Any

import msgspec

from evermark.protocol.markets import Market

CONTRACT_NAMES = (
    "token",
    "oracle",
    "clerk",
    "backstop",
    "reasons",
    "verifier",
    "lens",
    "exit",
    "inbox",
    "vault",
    "governor",
)


class ManifestRefused(ValueError):
    """The manifest is missing, damaged, or of another chain; one line that names file and fact."""


class Roles(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what, as 0x-addresses."""

    sequencer: str
    oracle_keepers: tuple[str, ...]
    funding_keepers: tuple[str, ...]
    deployer: str = ""
    governor: str = ""  # who proposes; empty: nobody ever
    guardian: str = ""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the oracle was built with."""

    round_seconds: int
    oracle_quorum: int
    funding_quorum: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment. `addresses` and `abis` by name, as in `CONTRACT_NAMES`."""

    chain_id: int
    genesis_block: int  # no event of this deployment lies before this block
    addresses: dict[str, str]
    roles: Roles
    parameters: Parameters
    markets: tuple[Market, ...]
    abis: dict[str, list[dict[str, Any]]]

    def address(self, name: str) -> bytes:
        """A contract's address, 20 bytes."""
        return bytes.fromhex(self.addresses[name][2:])

    def save(self, path: Path) -> None:
        """Write the file in one step: a reader sees all of it or none."""
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        os.replace(part, path)


def load_manifest(path: Path | str) -> Manifest:
    """Read a manifest. Raises ManifestRefused."""
    try:
        manifest = msgspec.json.decode(Path(path).read_bytes(), type=Manifest)
    except OSError as error:
        raise ManifestRefused(f"manifest: {path} does not read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ManifestRefused(f"manifest: {path}: {error}") from None
    missing = [name for name in CONTRACT_NAMES if name not in manifest.addresses or name not in manifest.abis]
    if missing:
        raise ManifestRefused(f"manifest: {path} has no contract {', '.join(missing)}")
    return manifest
