"""The configuration is checked whole before anything starts; each refusal is one line that names the
setting.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from sequencer.config import ConfigRefused, load_config, open_key

KEY = (7).to_bytes(32, "big")


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "manifest.json").write_text("{}")
    keystore = tmp_path / "key.json"
    keystore.write_text(json.dumps(Account.encrypt(KEY, "secret", kdf="scrypt", iterations=2**10)))
    keystore.chmod(0o600)
    (tmp_path / "password").write_text("secret\n")
    return {
        "rpc_url": "http://127.0.0.1:8545",
        "manifest": "manifest.json",
        "directory": "journal",
        "keystore": "key.json",
        "password_file": "password",
    }


def written(tmp_path: Path, content: dict[str, Any]) -> Path:
    path = tmp_path / "sequencer.json"
    path.write_text(json.dumps(content))
    return path


def test_relative_paths_start_at_the_file(tmp_path: Path, content: dict[str, Any]) -> None:
    """Paths are relative to the configuration, so that a directory can be moved as a whole."""
    config = load_config(written(tmp_path, content))
    assert config.directory == tmp_path / "journal"
    assert config.port == 8645
    assert open_key(config) == KEY


def test_toml_reads_as_well(tmp_path: Path, content: dict[str, Any]) -> None:
    """The suffix decides the language."""
    path = tmp_path / "sequencer.toml"
    path.write_text("".join(f'{name} = "{value}"\n' for name, value in content.items()))
    assert load_config(path).manifest == tmp_path / "manifest.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rpc_url": "localhost"}, "rpc_url: localhost is no http"),
        ({"journal": "mysql://somewhere"}, "journal: mysql is not postgresql"),
        ({"manifest": "none.json"}, "manifest: no file"),
        ({"keystore": "none.json"}, "keystore: no file"),
        ({"port": 70_000}, "port: 70000 is not within"),
        ({"port": "80"}, "Expected `int`, got `str` - at `$.port`"),
        ({"confirmations": 65}, "confirmations: 65 is not within"),
        ({"capacity": 1}, "capacity: 1 is below"),
        ({"signature_processes": -1}, "signature_processes: -1 is not within 0 to 64"),
        ({"standby": True}, "standby: only a replicated journal"),
        ({"silence_s": 0.5}, "silence_s: 0.5 is below 2"),
        ({"metrics_port": -1}, "metrics_port: -1 is not within"),
        ({"reconcile_s": 0}, "reconcile_s: 0.0 is not above 0"),
        ({"reserve_bytes": -1}, "reserve_bytes: -1 is negative"),
        ({"snapshot_every": 1}, "snapshot_every: 1 is below"),
        ({"prot": 1}, "unknown field `prot`"),
        ({"directory": 5}, "expected a path, got 5"),
    ],
)
def test_bad_settings_are_named(
    tmp_path: Path, content: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    """Unknown, mistyped and impossible settings are refused with their name."""
    with pytest.raises(ConfigRefused, match=message.replace("$", r"\$")):
        load_config(written(tmp_path, content | changes))


def test_missing_file_is_named(tmp_path: Path) -> None:
    """No file, one line."""
    with pytest.raises(ConfigRefused, match=r"none\.json does not read: No such file"):
        load_config(tmp_path / "none.json")


@pytest.mark.safety("F07", "ops")
def test_keystore_that_others_may_read_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    """File mode 0600 or nothing."""
    config = load_config(written(tmp_path, content))
    os.chmod(config.keystore, 0o644)
    with pytest.raises(ConfigRefused, match="is readable by others"):
        open_key(config)


@pytest.mark.safety("F07", "ops")
def test_wrong_password_is_refused_without_repeating_it(tmp_path: Path, content: dict[str, Any]) -> None:
    """Neither password nor key appears in the refusal."""
    (tmp_path / "password").write_text("hunter2\n")
    with pytest.raises(ConfigRefused, match="does not open with this password") as refusal:
        open_key(load_config(written(tmp_path, content)))
    assert "hunter2" not in str(refusal.value)


def test_process_refuses_with_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    """`python -m sequencer` with a bad configuration: exit code 1 and one line, no traceback."""
    path = written(tmp_path, content | {"port": -1})
    command = [sys.executable, "-m", "sequencer", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "config: port: -1 is not within 0 to 65535\n"
