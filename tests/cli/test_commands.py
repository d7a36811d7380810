"""The command line as a person meets it: one clear line and exit code 1 instead of a trace."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evermark.chain.manifest import CONTRACT_NAMES, Manifest, Parameters, Roles

CHAIN_1 = b'{"jsonrpc": "2.0", "id": 1, "result": "0x1"}'
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


def evermark(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal."""
    command = [sys.executable, "-m", "evermark.cli.main", *arguments]
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=env, stdin=subprocess.DEVNULL
    )


def refused(*arguments: str, **environment: str) -> str:
    """The single line of a refusal."""
    done = evermark(*arguments, **environment)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("evermark: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr[len("evermark: ") : -1]


def test_nobody_there_is_one_line_that_says_what_to_do() -> None:
    """A client command without an exchange names the address and how to start one."""
    line = refused("status", "--url", NOWHERE)
    assert (
        line == f"no exchange answers at {NOWHERE}; start one with `evermark up` or name another with --url"
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("order", "buy", "btc", "1"), "either --price or --market"),
        (("order", "hold", "btc", "1", "--market"), "side is buy or sell"),
        (("order", "buy", "btc", "1", "--price", "5", "--time-in-force", "DAY"), "GTC, GTD, IOC or FOK"),
        (("order", "buy", "btc", "1", "--price", "5", "--time-in-force", "GTD"), "--expires-in"),
        (("order", "sell", "btc", "1", "--trailing", "5", "--take-profit", "9"), "does not go with"),
        (("order", "sell", "btc", "1", "--stop", "5", "--take-profit", "9", "--price", "5"), "a bracket"),
        (("cancel",), "either an order's hash or --all"),
        (("deposit", "1e3"), "is no plain decimal number"),
        (("withdraw", "0"), "above zero"),
        (("transfer", "0", "--to", "1"), "above zero"),
        (("exit", "status"), "give --exit ADDRESS, or --manifest FILE"),
        (("exit", "status", "--exit", "0x12"), "is no address"),
        (("exit", "status", "--manifest", "/no/such.json"), "/no/such.json"),
        (("exit", "status", "--exit", "0x" + "11" * 20, "--owner", "0x12"), "--owner: '0x12' is no address"),
        (("govern", "propose", "delist", "x", "--manifest", "/no"), "delist: x: whole numbers belong there"),
        (("govern", "propose", "sequencer", "0x1", "--manifest", "/no"), "sequencer: '0x1' is no address"),
        (("positions", "--keystore", "nobody"), "nobody.json; `evermark account list` has the names"),
        (("release", "5", "--reason", "x", "--port", "9"), "--port is the `metrics_port`"),
        (("exit", "status", "--exit", "0x" + "11" * 20, "--rpc-url", NOWHERE), "no chain answers at"),
        (("up", "--prices", "dice"), "--prices: 'dice'"),
        (("up", "--json"), "belong to --for"),
        (("sequencer", "--config", "/no/such/file.json"), "/no/such/file.json"),
        (("keeper", "oracle", "--config", "/no/such/file.json"), "/no/such/file.json"),
        (
            ("actor", "maker", "--config", "/no/such/file.json"),
            "/no/such/file.json: No such file or directory",
        ),
        (("verify", "--journal", "/no/such/journal.db", "--manifest", "/no/such.json"), "/no/such"),
    ],
)
def test_what_cannot_work_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    """Refused before anything is sent or started."""
    assert words in refused(*arguments)


class _SomethingElse(http.server.BaseHTTPRequestHandler):
    """A web server that is no exchange; asked as a chain, it is chain 1."""

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CHAIN_1)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def something_else() -> Iterator[str]:
    """The address of a server that is no exchange."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _SomethingElse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_address_of_something_else_is_named(something_else: str) -> None:
    """A web server that knows none of the calls is no exchange, whatever it answers."""
    line = refused("status", "--url", something_else)
    assert line == f"what answers at {something_else} is no exchange (HTTP 404); name another with --url"


def test_verify_refuses_a_chain_that_is_not_the_manifests(tmp_path: Path, something_else: str) -> None:
    """Before anything is downloaded: nobody answers, or another chain does."""
    manifest = tmp_path / "manifest.json"
    nobody = "0x" + "11" * 20
    Manifest(
        chain_id=31337,
        genesis_block=0,
        addresses=dict.fromkeys(CONTRACT_NAMES, nobody),
        roles=Roles(sequencer=nobody, oracle_keepers=(), funding_keepers=()),
        parameters=Parameters(round_seconds=3, oracle_quorum=3, funding_quorum=3),
        markets=(),
        abis={name: [] for name in CONTRACT_NAMES},
    ).save(manifest)
    arguments = ("verify", "--journal-url", f"{NOWHERE}/v1/journal", "--manifest", str(manifest))
    assert "no chain answers at" in refused(*arguments, "--rpc-url", NOWHERE)
    line = refused(*arguments, "--rpc-url", something_else)
    assert line.startswith(f"verify: {manifest} is of chain 31337, and {something_else} is chain 1;")


def test_a_taken_port_is_one_line() -> None:
    """A second chain at the same port says which port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused("devnet", "--port", str(port)).startswith(f"port {port} of 127.0.0.1 is in use")


def test_help_lists_every_command() -> None:
    """The first thing that a newcomer types."""
    text = evermark("--help").stdout
    for command in (
        "up",
        "status",
        "verify",
        "account",
        "deposit",
        "order",
        "cancel",
        "positions",
        "withdraw",
        "transfer",
        "exit",
    ):
        assert f" {command} " in text
    for command in ("devnet", "deploy", "sequencer", "keeper"):
        assert f" {command} " in text


def test_keystores_are_made_and_listed(tmp_path: Path) -> None:
    """`account new` makes an encrypted file, `account list` shows its address, a second `new` is refused."""
    environment = {"EVERMARK_KEYSTORES": str(tmp_path), "EVERMARK_PASSWORD": "correct horse"}
    made = evermark("account", "new", "trader", **environment)
    assert made.returncode == 0, made.stderr
    address = made.stdout.split()[1]
    assert (tmp_path / "trader.json").stat().st_mode & 0o777 == 0o600
    assert address in evermark("account", "list", **environment).stdout
    assert "exists already" in refused("account", "new", "trader", **environment)
    assert "letters, digits" in refused("account", "new", "../trader", **environment)
