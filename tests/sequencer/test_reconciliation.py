"""Reconciliation: equal sums pass, any difference holds withdrawals and names itself, and ends when cured."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from small_core import TAKER, SmallCore

from evermark.protocol.units import USDC
from sequencer.engine.commands import BatchConfirmed
from sequencer.engine.events import CommandRejected
from sequencer.settlement.reconciliation import Reconciliation, Sums, VaultSums

Change = Callable[[VaultSums], VaultSums]


class Vault:
    """Tells what it is told to."""

    def __init__(self) -> None:
        self.sums: VaultSums

    async def vault_sums(self) -> VaultSums:
        return self.sums


def other(**changes: int) -> Change:
    def change(vault: VaultSums) -> VaultSums:
        values = {name: getattr(vault.sums, name) + by for name, by in changes.items()}
        return msgspec.structs.replace(vault, sums=msgspec.structs.replace(vault.sums, **values))

    return change


def other_market(vault: VaultSums) -> VaultSums:
    first, *rest = vault.sums.markets
    markets = (msgspec.structs.replace(first, open_interest=first.open_interest + 1), *rest)
    return msgspec.structs.replace(vault, sums=msgspec.structs.replace(vault.sums, markets=markets))


@pytest.mark.safety("G27", "sequencer")
@pytest.mark.parametrize(
    "change, complaint",
    [
        (other(owed=-1), "owed: engine"),
        (other(funding_pool=1), "funding_pool: engine"),
        (other(dust=1), "dust: engine"),
        (other(accounts=1), "accounts: engine 4, vault 5"),
        (other(inbox_consumed=-1), "inbox_consumed: engine 2, vault 1"),
        (other(claims=1), "claims: engine"),
        (other_market, "market 0: engine"),
        (lambda vault: msgspec.structs.replace(vault, uncovered=1), "the vault lacks 1 tokens"),
    ],
)
async def test_difference_holds_withdrawals(tmp_path: Path, change: Change, complaint: str) -> None:
    """As long as it lasts: nothing of a withdrawal is journaled; the rest of the exchange goes on."""
    async with SmallCore(tmp_path) as small:
        vault, core, world = Vault(), small.core, small.world
        watch = Reconciliation(vault, core.pipeline)
        await small.fund()
        await small.trade(40)
        batch, sums = list(watch._batches.items())[-1]
        equal = VaultSums(batch, sums, 0)

        async def withdraw() -> str:
            sequence = core.state.accounts[4].action_sequence + 1
            events = await small.submit(world.withdraw(TAKER, 4, USDC, sequence))
            return next((one.reject.message for one in events if isinstance(one, CommandRejected)), "")

        vault.sums = equal
        assert await watch.step()
        assert watch.alarm == ""
        vault.sums = change(equal)
        assert await watch.step()
        assert complaint in watch.alarm
        assert "reconciled" in await withdraw()
        await small.trade(5, seed=9)
        vault.sums = equal
        assert await watch.step()
        assert watch.alarm == ""
        world.now_s += 3
        await small.submit(world.round())
        assert await withdraw() == ""


@pytest.mark.safety("G27", "sequencer")
async def test_unknown_batch_is_not_compared(tmp_path: Path) -> None:
    """A batch that was sealed before the start has no sums here; the next one is compared."""
    async with SmallCore(tmp_path) as small:
        vault = Vault()
        watch = Reconciliation(vault, small.core.pipeline)
        vault.sums = VaultSums(7, Sums(0, 0, 0, 0, 0, 0, ()), 5)
        assert await watch.step() is False
        assert watch.alarm == ""


async def test_a_batch_that_may_be_somebody_elses_is_not_compared(tmp_path: Path) -> None:
    """A stranger's batch under the id of one that was sealed here is no difference, but a reversal that is to come; what
    settlement has confirmed as this journal's is compared."""
    async with SmallCore(tmp_path) as small:
        vault, core = Vault(), small.core
        watch = Reconciliation(vault, core.pipeline)
        await small.fund()
        small.world.now_s += 3
        await small.submit(small.world.round())
        assert core.state.sealed_batch > core.state.confirmed_batch
        batch = core.state.sealed_batch
        sums = watch._batches[batch]
        vault.sums = VaultSums(
            batch, msgspec.structs.replace(sums, inbox_consumed=sums.inbox_consumed + 2), 0
        )
        assert not await watch.step()
        assert watch.alarm == ""
        for batch_id in range(core.state.confirmed_batch + 1, batch + 1):
            await small.submit(BatchConfirmed(batch_id=batch_id, block_number=7))
        assert await watch.step()
        assert "inbox_consumed" in watch.alarm
