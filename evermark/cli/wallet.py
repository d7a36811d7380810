"""Which key a command signs with: a keystore, an environment variable, or a development account."""

import getpass
import os
import sys
from pathlib import Path

import msgspec

from evermark.cli import keystore
from evermark.cli.errors import CliError
from evermark.protocol.signing import Signer

PASSWORD_ENV = "EVERMARK_PASSWORD"
DEVNET_CHAIN_ID = 31337
DEV_MNEMONIC = "test test test test test test test test test test test junk"  # the one that every devnet uses
DEV_ACCOUNTS = 20


class WalletChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options of a command said; exactly one may be given."""

    keystore: str = ""
    key_env: str = ""
    dev: int = -1
    password_file: str = ""


def dev_key(index: int) -> bytes:
    """Private key of development account `index`, the same on every devnet. Never holds real money."""
    if not 0 <= index < DEV_ACCOUNTS:
        raise CliError(f"--dev: accounts are 0 to {DEV_ACCOUNTS - 1}")
    from eth_account import Account

    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(DEV_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return bytes(account.key)


def open_wallet(choice: WalletChoice) -> Signer:
    """The signer that the options name, as `open_key` finds it."""
    return Signer(open_key(choice))


def open_key(choice: WalletChoice) -> bytes:
    """The private key that the options name; refuses none, several, and what does not open."""
    given = [bool(choice.keystore), bool(choice.key_env), choice.dev >= 0]
    if sum(given) > 1:
        raise CliError("give only one of --keystore, --key-env and --dev")
    if choice.dev >= 0:
        return dev_key(choice.dev)
    if choice.key_env:
        value = os.environ.get(choice.key_env)
        if not value:
            raise CliError(f"--key-env: the environment variable {choice.key_env} is not set")
        return keystore.parse_key(value, f"environment variable {choice.key_env}")
    path = find_keystore(choice.keystore)
    if not path.is_file():
        raise CliError(f"--keystore: no file {path}; `evermark account list` has the names")
    return keystore.open_keystore(path, read_password(choice.password_file, f"password of {path.name}: "))


def find_keystore(name: str) -> Path:
    """A path, or a name in the default directory; without a name, the only keystore there."""
    directory = keystore.default_directory()
    if name:
        path = Path(name)
        return path if path.is_file() or path.parent != Path() else directory / f"{path.stem}.json"
    found = sorted(directory.glob("*.json"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise CliError("no wallet: make one with `evermark account new NAME`, or give --key-env or --dev N")
    raise CliError(f"which wallet? --keystore {' | '.join(path.stem for path in found)}")


def read_password(password_file: str, prompt: str, confirm: bool = False) -> str:
    """From a file, the environment variable EVERMARK_PASSWORD, or typed."""
    if password_file:
        try:
            return Path(password_file).read_text().rstrip("\n")
        except OSError as error:
            raise CliError(f"--password-file: {error.strerror}: {password_file}") from None
    if PASSWORD_ENV in os.environ:
        return os.environ[PASSWORD_ENV]
    if not sys.stdin.isatty():
        raise CliError(f"no password: give --password-file or set {PASSWORD_ENV}")
    password = getpass.getpass(prompt)
    if confirm and getpass.getpass("once more: ") != password:
        raise CliError("the two passwords differ")
    return password
