"""Out of a dead exchange on a real chain, by the command line alone: freeze, count, take, paid."""

import asyncio
import json
import os
import sys

import pytest
from chain_cases import SEQUENCER, address, price_reports

from evermark.chain import ExchangeContracts, TransactionSender
from evermark.chain.exit import ExitContracts, ExitRefused
from evermark.chain.governor import GovernorContract
from evermark.chain.overdue import OverdueWork
from evermark.chain.rpc import rpc
from evermark.cli.units import format_ether
from evermark.devnet import dev_key
from evermark.protocol.oracle import pack_price
from evermark.protocol.units import USDC

OWNER = 9
REDUCE_ONLY = 2


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


@pytest.mark.safety("E11", "contract")
async def test_anybody_executes_what_is_overdue(devnet, w3, manifest):
    """With keepers alive a stranger settles the inbox from contract state alone, and earns the bonds."""
    contracts, owner = ExchangeContracts(w3, manifest), TransactionSender(w3, dev_key(OWNER))
    stranger, door = (
        TransactionSender(w3, dev_key(8)),
        await ExitContracts.open(w3, manifest.addresses["exit"]),
    )
    work = OverdueWork(door)
    await contracts.mint(owner, owner.address, 100 * USDC)
    for sub_account in (0, 3):
        await contracts.deposit(owner, 20 * USDC, sub_account)
    await contracts.donate(owner, 5 * USDC)
    await contracts.deposit(owner, 7 * USDC, 3)
    assert await work.execute(stranger) == 0
    await pass_time(w3, 601)
    with pytest.raises(ExitRefused, match="no round yet"):
        await work.execute(stranger)
    await post_public_round(contracts, stranger)
    assert await work.execute(stranger) == 4
    assert [(await contracts.account(account)).collateral for account in (1, 3, 4)] == [
        5 * USDC,
        20 * USDC,
        27 * USDC,
    ]
    me = ("--dev", str(OWNER), "--sub-account", "3")
    assert "everything" in await done(devnet, manifest, "request", *me)
    code, _, err = await evermark(devnet, manifest, "request", "5", *me)
    assert code == 1
    assert "inbox: one of this kind is open" in err
    now_ms = (await w3.eth.get_block("latest"))["timestamp"] * 1000
    assert f"up to sequence {now_ms}" in await done(devnet, manifest, "void", *me)
    await pass_time(w3, 3_601)
    with pytest.raises(ExitRefused, match="s old, and executing needs one of the last 120 s"):
        await work.execute(stranger)
    await post_public_round(contracts, stranger)
    assert "2 entries" in await done(devnet, manifest, "execute", "--dev", "8")
    assert (await contracts.claim(1)).amount == 27 * USDC
    assert (await contracts.account(4)).min_sequence == now_ms
    assert await contracts.inbox_range() == (7, 7)
    bonds = sum([(await contracts.inbox_entry(entry)).bond for entry in range(1, 7)])
    assert await door.bonds(stranger.address) == bonds > 0
    assert "nothing is overdue" in await done(devnet, manifest, "execute", "--dev", "8")
    assert format_ether(bonds) in await done(devnet, manifest, "bonds", "--dev", "8")
    assert await door.bonds(stranger.address) == 0
    assert "nothing is owed" in await done(devnet, manifest, "bonds", "--dev", "8")


async def test_anybody_carries_out_an_overdue_pause(devnet, w3, manifest):
    """An entry of the governor's contract holds up nobody behind it, whoever runs the sequencer."""
    contracts, owner = ExchangeContracts(w3, manifest), TransactionSender(w3, dev_key(OWNER))
    guardian, stranger = TransactionSender(w3, dev_key(10)), TransactionSender(w3, dev_key(8))
    await GovernorContract(w3, manifest).pause(guardian, [0], REDUCE_ONLY, 3_600)
    await contracts.mint(owner, owner.address, 50 * USDC)
    await contracts.deposit(owner, 50 * USDC)
    await pass_time(w3, 601)
    await post_public_round(contracts, stranger)
    work = OverdueWork(await ExitContracts.open(w3, manifest.addresses["exit"]))
    assert await work.execute(stranger) == 2
    words = await contracts.vault.functions.market_words(0).call()
    assert words[0] >> 248 == REDUCE_ONLY
    assert (await contracts.account(3)).collateral == 50 * USDC


async def pass_time(w3, seconds):
    await rpc(w3, "evm_increaseTime", seconds)
    await rpc(w3, "evm_mine")


async def post_public_round(contracts, sender):
    """A round of this moment in the public lane, signed by the keepers."""
    now = (await contracts.w3.eth.get_block("latest"))["timestamp"]
    prices = tuple(pack_price(100_000, 100_000) for _ in contracts.manifest.markets)
    reports = price_reports(contracts.manifest.address("oracle"), [now] * 3, [prices] * 3)
    await sender.send(contracts.oracle.address, contracts.post_round_calldata(reports, public=True))


async def test_another_contract_is_no_exit(w3, manifest):
    """The command line refuses an address that holds something else, or nothing."""
    for name in ("vault", "token"):
        with pytest.raises(ExitRefused, match="no Exit contract"):
            await ExitContracts.open(w3, manifest.addresses[name])
    with pytest.raises(ExitRefused, match="no Exit contract"):
        await ExitContracts.open(w3, address(SEQUENCER))
    await ExitContracts.open(w3, manifest.addresses["exit"])
