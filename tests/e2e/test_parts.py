"""The parts started by hand: a chain, and contracts on it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_exchange import command, eventually

from evermark.cli.plan import choose_port

KEEPERS = [f"0x{number:040x}" for number in (0xA1, 0xA2, 0xA3)]
SEQUENCER = f"0x{0x5E:040x}"


@pytest.fixture
def rpc_url(tmp_path: Path) -> Iterator[str]:
    """`evermark devnet` as its own process."""
    port = choose_port(0, "--port")
    log = tmp_path / "devnet.log"
    with log.open("w") as out:
        process = subprocess.Popen(command("devnet", "--port", str(port)), stdout=out, stderr=out)
    try:
        eventually(lambda: "chain 31337 at" in log.read_text(), 60, "the devnet")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(20) == 0


def deploy(rpc_url: str, manifest: Path, sequencer: str) -> subprocess.CompletedProcess[str]:
    """`evermark deploy` with three keepers of each kind."""
    keepers = [word for keeper in KEEPERS for word in ("--oracle-keeper", keeper, "--funding-keeper", keeper)]
    options = ["--sequencer", sequencer, "--out", str(manifest), "--rpc-url", rpc_url, "--dev", "0"]
    return subprocess.run(command("deploy", *options, *keepers), capture_output=True, text=True, timeout=90)


def test_deploy_writes_a_manifest_once(rpc_url: str, tmp_path: Path) -> None:
    """The second run finds the contracts and changes nothing; other roles under that manifest are refused."""
    manifest = tmp_path / "manifest.json"
    first = deploy(rpc_url, manifest, SEQUENCER)
    assert first.returncode == 0, first.stderr
    assert "vault" in first.stdout
    written = manifest.read_text()
    again = deploy(rpc_url, manifest, SEQUENCER)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert manifest.read_text() == written
    other = deploy(rpc_url, manifest, KEEPERS[0])
    assert other.returncode == 1
    assert other.stderr.startswith("evermark: deploy: ")
    assert "other roles" in other.stderr
