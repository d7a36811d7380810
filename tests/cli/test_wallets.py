"""Keys: encrypted, private to their owner, and refused with one line that never shows them."""

from pathlib import Path

import pytest

from evermark.cli import keystore, wallet
from evermark.cli.errors import CliError
from evermark.cli.rundir import LAYOUT_VERSION, ROLES, RunDirectory, RunFacts
from evermark.cli.wallet import WalletChoice

KEY = bytes(range(1, 33))


def write(path: Path, password: str = "open") -> str:
    return keystore.create(path, password, key=KEY, scrypt_n=keystore.DEVNET_SCRYPT)


@pytest.mark.safety("F07", "ops")
def test_a_keystore_is_encrypted_and_private(tmp_path: Path) -> None:
    """Mode 0600, no key in the text; it opens with its password only, and not when others may read it."""
    path = tmp_path / "trader.json"
    address = write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KEY.hex() not in path.read_text()
    assert keystore.read_address(path) == address.lower()
    assert keystore.open_keystore(path, "open") == KEY
    with pytest.raises(CliError, match="does not open"):
        keystore.open_keystore(path, "shut")
    path.chmod(0o644)
    with pytest.raises(CliError, match="readable by others"):
        keystore.open_keystore(path, "open")


def test_a_keystore_is_never_replaced(tmp_path: Path) -> None:
    """A second `new` under the same name is refused and the first file stays."""
    write(tmp_path / "trader.json")
    before = (tmp_path / "trader.json").read_text()
    with pytest.raises(CliError, match="exists already"):
        write(tmp_path / "trader.json")
    assert (tmp_path / "trader.json").read_text() == before


def test_dev_accounts_are_the_well_known_ones() -> None:
    """Account 0 of the test mnemonic, as every Ethereum devnet has it."""
    signer = wallet.open_wallet(WalletChoice(dev=0))
    assert signer.address.hex() == "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"
    with pytest.raises(CliError, match="0 to 19"):
        wallet.dev_key(20)


def test_a_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the variable and never its content."""
    monkeypatch.setenv("TRADER_KEY", "0x" + KEY.hex())
    assert wallet.open_wallet(WalletChoice(key_env="TRADER_KEY")).address
    monkeypatch.setenv("TRADER_KEY", "hunter2")
    with pytest.raises(CliError, match="TRADER_KEY") as refused:
        wallet.open_wallet(WalletChoice(key_env="TRADER_KEY"))
    assert "hunter2" not in str(refused.value)
    with pytest.raises(CliError, match="NOBODY is not set"):
        wallet.open_wallet(WalletChoice(key_env="NOBODY"))


def test_the_only_keystore_is_found_and_several_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without options: no wallet says how to make one, one is used, two ask which."""
    monkeypatch.setenv("EVERMARK_KEYSTORES", str(tmp_path))
    monkeypatch.setenv(wallet.PASSWORD_ENV, "open")
    with pytest.raises(CliError, match="account new"):
        wallet.open_wallet(WalletChoice())
    write(tmp_path / "first.json")
    assert wallet.open_wallet(WalletChoice()).address
    write(tmp_path / "second.json")
    with pytest.raises(CliError, match=r"which wallet\? --keystore first \| second"):
        wallet.open_wallet(WalletChoice())
    assert wallet.open_wallet(WalletChoice(keystore="second")).address
    with pytest.raises(CliError, match="only one of"):
        wallet.open_wallet(WalletChoice(keystore="second", dev=1))


def made(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.open(tmp_path / "state")
    assert run.load() is None
    addresses = run.make_keys()
    run.save(RunFacts(layout=LAYOUT_VERSION, prices="sim", start_s=0, seed=1, addresses=addresses))
    run.chain.mkdir()
    run.journal.mkdir()
    (run.journal / "journal.db").write_text("")
    run.manifest.write_text("{}")
    return run


@pytest.mark.safety("F07", "ops")
def test_every_role_has_a_key_of_its_own(tmp_path: Path) -> None:
    """One private keystore a role, no two alike, in a directory that only its owner enters."""
    run = made(tmp_path)
    facts = run.load()
    assert facts is not None
    assert len(set(facts.addresses.values())) == len(ROLES)
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert all(run.key(role).stat().st_mode & 0o777 == 0o600 for role in ROLES)
    assert run.password.stat().st_mode & 0o777 == 0o600


def test_a_directory_with_a_part_missing_is_refused_by_name(tmp_path: Path) -> None:
    """Chain and journal are restored together or not at all."""
    run = made(tmp_path)
    (run.journal / "journal.db").unlink()
    with pytest.raises(CliError, match="missing journal"):
        run.load()


def test_two_exchanges_never_share_a_directory(tmp_path: Path) -> None:
    """The second one is refused while the first holds it."""
    first = RunDirectory.open(tmp_path / "state")
    with pytest.raises(CliError, match="in use by another exchange"):
        RunDirectory.open(first.path)


def test_an_exchanged_key_is_refused_by_role(tmp_path: Path) -> None:
    """A keystore that is not the one of the exchange is named with both addresses."""
    run = made(tmp_path)
    run.key("liquidator").unlink()
    write(run.key("liquidator"))
    with pytest.raises(CliError, match="key of liquidator is 0x"):
        run.load()
