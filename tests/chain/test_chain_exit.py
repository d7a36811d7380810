"""Out of a dead exchange on a real chain, by the command line alone: freeze, count, take, paid."""

import asyncio
import json
import os
import sys

import pytest
from chain_cases import SEQUENCER, address

from evermark.chain import ExchangeContracts, TransactionSender
from evermark.chain.exit import ExitContracts, ExitRefused
from evermark.chain.rpc import rpc
from evermark.devnet import dev_key
from evermark.protocol.units import USDC

OWNER = 9


async def evermark(devnet, manifest, *arguments):
    """A command of `evermark exit`: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "evermark.cli.main", "exit", *arguments),
        *("--exit", manifest.addresses["exit"], "--rpc-url", devnet.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def done(devnet, manifest, *arguments):
    """The standard output of a command that succeeds."""
    code, out, err = await evermark(devnet, manifest, *arguments)
    assert code == 0, err
    return out


@pytest.mark.safety("E11", "contract")
async def test_an_owner_leaves_with_nothing_but_the_contracts(devnet, w3, manifest):
    """A deposit that the sequencer never consumed: after a day overdue it comes back whole, with its bond."""
    contracts = ExchangeContracts(w3, manifest)
    owner = TransactionSender(w3, dev_key(OWNER))
    await contracts.mint(owner, owner.address, 50 * USDC)
    entry = await contracts.deposit(owner, 50 * USDC)
    bond = (await contracts.inbox_entry(entry)).bond
    assert bond > 0
    before = json.loads(await done(devnet, manifest, "status", "--json"))
    assert (before["head"], before["tail"], before["frozen_s"]) == (1, 2, 0)
    code, _, err = await evermark(devnet, manifest, "freeze", "--dev", "8")
    assert code == 1
    assert "exit: not a day overdue" in err
    await rpc(w3, "evm_increaseTime", 86_400 + 600 + 1)
    await rpc(w3, "evm_mine")
    await done(devnet, manifest, "freeze", "--dev", "8")
    await done(devnet, manifest, "push", "--dev", "8", "--count", "1")
    taken = json.loads(await done(devnet, manifest, "take", "--dev", str(OWNER), "--json"))
    assert taken == {"account": 0, "share": 0, "reclaimed": 50 * USDC, "bonds_wei": bond}
    assert await contracts.tokens_of(owner.address) == 50 * USDC
    assert await contracts.tokens_of(contracts.vault.address) == 0
    again = json.loads(await done(devnet, manifest, "take", "--dev", str(OWNER), "--json"))
    assert again == {"account": 0, "share": 0, "reclaimed": 0, "bonds_wei": 0}
    shown = await done(devnet, manifest, "status", "--owner", address(OWNER))
    assert "2 of 2 accounts" in shown
    assert "not registered" in shown


async def test_another_contract_is_no_exit(w3, manifest):
    """The command line refuses an address that holds something else, or nothing."""
    for name in ("vault", "token"):
        with pytest.raises(ExitRefused, match="no Exit contract"):
            await ExitContracts.open(w3, manifest.addresses[name])
    with pytest.raises(ExitRefused, match="no Exit contract"):
        await ExitContracts.open(w3, address(SEQUENCER))
    await ExitContracts.open(w3, manifest.addresses["exit"])
