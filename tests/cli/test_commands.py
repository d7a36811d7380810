"""The command line as a person meets it: one clear line and exit code 1 instead of a trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        (("exit", "status", "--exit", "0x" + "11" * 20, "--rpc-url", NOWHERE), "no chain answers at"),
        (("up", "--prices", "dice"), "--prices: 'dice'"),
        (("up", "--json"), "belong to --for"),
        (("sequencer", "--config", "/no/such/file.json"), "/no/such/file.json"),
        (("keeper", "oracle", "--config", "/no/such/file.json"), "/no/such/file.json"),
        (("verify", "--journal", "/no/such/journal.db", "--manifest", "/no/such.json"), "/no/such"),
    ],
)
def test_what_cannot_work_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    """Refused before anything is sent or started."""
    assert words in refused(*arguments)


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
    assert address.lower() in evermark("account", "list", **environment).stdout
    assert "exists already" in refused("account", "new", "trader", **environment)
    assert "letters, digits" in refused("account", "new", "../trader", **environment)
