"""Safety cases without an object in these contracts, each shown by the rule in its place; and a leaked agent's key."""

import re
from pathlib import Path

import boa
import pytest
from builders import USDC, Refused, refused, send
from hostile_ledger import look
from hostile_world import World, anchored, deployed

from evermark.protocol.orders import Side

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
ALWAYS_REVERTS = bytes.fromhex("60006000fd")
BURNS_ALL_GAS = bytes.fromhex("5b600056")


@pytest.fixture
def world():
    with anchored():
        yield World(deployed(), 1)


def a_trade(world: World):
    """Two honest traders at the mark, built but not sent."""
    batch = world.exchange.batch()
    batch.trade(world.honest[0], world.honest[1], Side.BUY, 100, world.exchange.last[0].mark_ticks)
    return batch


@pytest.mark.safety("C09", "contract")
def test_a_donation_buys_no_share_of_anything(world) -> None:
    """There are no shares: gifts by call go to the fund, gifts by transfer to nobody, and the next deposit counts in full."""
    exchange, before = world.exchange, world.now
    exchange.donate(7 * USDC)
    exchange.token.mint(exchange.vault.address, 1)
    exchange.deposit(2, 11 * USDC)
    after = look(exchange)
    for number, account in before.accounts.items():
        gained = {1: 7 * USDC, world.honest[1].account: 11 * USDC}.get(number, 0)
        assert after.accounts[number].collateral == account.collateral + gained


@pytest.mark.safety("D09", "contract")
@pytest.mark.safety("D11", "contract")
@pytest.mark.parametrize("code", [ALWAYS_REVERTS, BURNS_ALL_GAS])
def test_settlement_never_calls_an_owners_code(world, code) -> None:
    """Code at an owner's address, EIP-7702 or not, is never run: its key signs as before, and what the code does stops nobody."""
    for party in world.honest[:2]:
        boa.env.set_code(boa.util.abi.Address(party.signer.address), code)
    batch = a_trade(world)
    batch.withdraw(world.honest[1], 5 * USDC)
    batch.settle()
    claim = world.exchange.vault.totals().claims
    world.exchange.vault.pay(claim)
    assert world.exchange.token.balanceOf("0x" + world.honest[1].signer.address.hex()) == 5 * USDC


@pytest.mark.safety("E02", "contract")
def test_a_batch_that_runs_out_of_gas_leaves_no_trace(world) -> None:
    """Nothing is caught inside a batch, so a lack of gas cannot be taken for the failure of one item: all of it reverts."""
    data = a_trade(world).data()
    sender = world.exchange.sequencer
    used = 0
    with anchored():
        used = send(world.exchange, data).get_gas_used()
    for share in (20, 50, 80, 95):
        computation = boa.env.execute_code(
            to_address=world.exchange.vault.address, sender=sender, data=data, gas=used * share // 100
        )
        assert computation.is_error
        assert look(world.exchange) == world.now
    send(world.exchange, data)


@pytest.mark.safety("E19", "contract")
def test_an_order_expires_by_the_rounds_time_not_the_blocks(world) -> None:
    """A block's time may be off by seconds: it decides nothing about an order, whose expiry is held against the pinned round."""
    exchange = world.exchange
    for expiry, block_time, settles in ((0, 100, True), (0, -3, True), (-1, 0, False)):
        batch = exchange.batch()
        mark, when = exchange.last[0].mark_ticks, exchange.clock + expiry
        resting = batch.order(world.honest[0], Side.BUY, 10, mark, slot=1, expiry=when)
        batch.fill(resting, batch.order(world.honest[1], Side.SELL, 10, mark, expiry=when), 10)
        boa.env.timestamp = exchange.clock + block_time
        if settles:
            batch.settle()
        else:
            with refused("vault: order expired"):
                batch.settle()


@pytest.mark.safety("E20", "contract")
def test_no_contract_behaves_otherwise_on_a_test_chain() -> None:
    """The chain's id only enters EIP-712 domains; it is compared with nothing but the id at deployment."""
    uses = []
    for path in CONTRACTS.rglob("*.vy"):
        for line in path.read_text().splitlines():
            code = line.split("#")[0]
            assert "tx.origin" not in code
            assert not re.search(r"\b31337\b|is_contract|codesize", code), f"{path.name}: {line}"
            uses += [code.strip()] if re.search(r"chain\.id\s*[=!<>]", code) else []
    assert uses == ["if chain.id == CHAIN_ID:"]


@pytest.mark.safety("D12", "contract")
def test_a_leaked_agents_key_is_revoked_through_the_inbox(world) -> None:
    """Until the revocation is consumed the thief trades; afterwards its orders count for nothing."""
    exchange, victim, thief = world.exchange, world.honest[1], world.hostile[0]
    approval = exchange.batch()
    approval.approve(victim, thief.signer.address, exchange.clock + 3_600)
    approval.settle()
    exchange.round()

    def by_the_thief(slot: int):
        batch = exchange.batch()
        mark = exchange.last[0].mark_ticks
        resting = batch.order(world.honest[0], Side.SELL, 5, mark, slot=slot)
        batch.fill(resting, batch.order(victim, Side.BUY, 5, mark, by=thief.signer), 5)
        return batch

    by_the_thief(1).settle()
    owner, agent = "0x" + victim.signer.address.hex(), "0x" + thief.signer.address.hex()
    exchange.inbox.revoke_agent(0, agent, sender=owner)
    revocation = exchange.batch()
    revocation.inbox(victim.account)
    revocation.settle()
    with pytest.raises(Refused, match="not owner nor live agent"):
        by_the_thief(2).settle()
