"""Private keys at rest: encrypted keystore files (scrypt), readable by their owner only."""

import json
import os
import secrets
from pathlib import Path

from evermark.cli.errors import CliError
from evermark.protocol.signing import Signer

STRONG_SCRYPT = 2**18  # about a second to open; for keys that may hold money
DEVNET_SCRYPT = 2**10  # throw-away keys of one run, so that a dozen roles open at once


def default_directory() -> Path:
    """Where `evermark account` keeps keystores: EVERMARK_KEYSTORES, or ~/.evermark/keystores."""
    return Path(os.environ.get("EVERMARK_KEYSTORES", "") or Path.home() / ".evermark" / "keystores")


def write_private(path: Path, text: str) -> None:
    """Create `path` with mode 0600 from the first byte on; refuses to replace a file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CliError(f"keystore: {path} exists already") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def create(path: Path, password: str, *, key: bytes | None = None, scrypt_n: int = STRONG_SCRYPT) -> str:
    """Write a keystore for `key` (default: a new random one); returns the checksummed address."""
    from eth_account import Account  # half a second to load, and most commands open no keystore

    account = Account.from_key(key or secrets.token_bytes(32))
    content = Account.encrypt(account.key, password, kdf="scrypt", iterations=scrypt_n)
    write_private(path, json.dumps(content))
    return str(account.address)


def read_address(path: Path) -> str:
    """The address that a keystore names, lower-case 0x-hex, without opening it."""
    try:
        return "0x" + str(json.loads(path.read_text())["address"]).lower().removeprefix("0x")
    except (OSError, ValueError, KeyError, TypeError):
        raise CliError(f"keystore: {path} is no keystore file") from None


def open_keystore(path: Path, password: str) -> bytes:
    """The private key in a keystore. Refuses files that others may read, and a wrong password."""
    from eth_account import Account

    if not path.is_file():
        raise CliError(f"keystore: no file {path}")
    if path.stat().st_mode & 0o077:
        raise CliError(f"keystore: {path} is readable by others; run chmod 600 on it")
    try:
        return bytes(Account.decrypt(path.read_text(), password))
    except (ValueError, KeyError, TypeError):
        raise CliError(f"keystore: {path} does not open with this password") from None


def parse_key(text: str, origin: str) -> bytes:
    """A private key in hex -> its 32 bytes; the refusal never repeats the text."""
    try:
        key = bytes.fromhex(text.strip().removeprefix("0x"))
        Signer(key)
    except ValueError:
        raise CliError(f"{origin}: not a private key of 64 hex digits") from None
    return key
