"""A role's key: an encrypted keystore file (scrypt) that only its owner may read, opened once at the start.

The key stays inside the `Signer`; neither it nor the password reaches a log, an error or the environment of
others.
"""

import json
import os
import secrets
from pathlib import Path

import msgspec
from eth_account import Account

from evermark.protocol.signing import Signer

STRONG_SCRYPT = 2**18  # about a second to open


class KeyRefused(Exception):
    """The key cannot be used; the message names the file and the fact, never a secret."""


class KeyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a key lies and where its password comes from: a file, or an environment variable."""

    keystore: str
    password_file: str = ""
    password_env: str = ""


def load_signer(config: KeyConfig) -> Signer:
    """Decrypt the key. Raises KeyRefused for a missing or exposed file, a missing or a wrong password."""
    return Signer(load_key(config))


def load_key(config: KeyConfig) -> bytes:
    """The key itself, for whoever sends transactions with it. Raises what `load_signer` does."""
    path = Path(config.keystore)
    text = _read_private(path, "keystore")
    try:
        return bytes(Account.decrypt(json.loads(text), _password(config)))
    except (ValueError, KeyError, TypeError):
        raise KeyRefused(f"keystore: {path} does not open with this password") from None


def create_keystore(
    path: Path, password: str, *, key: bytes | None = None, scrypt_n: int = STRONG_SCRYPT
) -> Signer:
    """Write a keystore with mode 0600 for `key` (default: a new random one).

    Raises KeyRefused when it exists.
    """
    signer_key = key or secrets.token_bytes(32)
    content = json.dumps(Account.encrypt(signer_key, password, kdf="scrypt", iterations=scrypt_n))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyRefused(f"keystore: {path} exists already") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    return Signer(signer_key)


def _password(config: KeyConfig) -> str:
    if config.password_file:
        return _read_private(Path(config.password_file), "password file").rstrip("\r\n")
    if config.password_env:
        # Taken out of the environment, so that no child process and no dump of it shows the password.
        password = os.environ.pop(config.password_env, None)
        if password is None:
            raise KeyRefused(f"keystore: environment variable {config.password_env} is not set")
        return password
    raise KeyRefused(f"keystore: {config.keystore} has neither password_file nor password_env")


def _read_private(path: Path, what: str) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise KeyRefused(f"{what}: {path} is open to others; run chmod 600 on it")
        return path.read_text()
    except OSError as error:
        raise KeyRefused(f"{what}: {path}: {error.strerror}") from None
