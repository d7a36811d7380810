"""The operator lets a halted account go while the exchange runs: by the port that is this machine's alone, and as a record."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from small_core import MAKER, SmallCore

from evermark.cli.errors import CliError
from evermark.cli.release import _release
from evermark.protocol.orders import Side
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.commands import HaltAccount
from sequencer.engine.events import CommandRejected
from sequencer.journal import decode_command
from sequencer.outside import Release, create_outside
from sequencer.release import release_account


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[SmallCore]:
    async with SmallCore(tmp_path) as made:
        await made.fund()
        await made.submit(HaltAccount(account=3, halted=True, reason="vault: signature"))
        yield made


async def order_refused(small: SmallCore) -> RejectCode | None:
    order = small.world.sign_order(MAKER, 3, Side.BUY, 300, 1_000_000, slot=70)
    refused = [one.reject.code for one in await small.submit(order) if isinstance(one, CommandRejected)]
    return refused[0] if refused else None


async def test_the_account_trades_again_and_the_journal_says_why(small: SmallCore) -> None:
    """Before, it may only cancel. A second release, like one of somebody who was not halted, is refused and not journaled."""
    pipeline = small.core.pipeline
    assert await order_refused(small) is RejectCode.ACCOUNT_HALTED
    assert await release_account(pipeline, 3, "ticket 77") is None
    last = decode_command(small.core.reader.record(pipeline.sequence).payload, pipeline.sequence)
    assert last == HaltAccount(account=3, halted=False, reason="ticket 77")
    assert await order_refused(small) is None
    sequence = pipeline.sequence
    for account in (3, 4, 999):
        refusal = await release_account(pipeline, account, "again")
        assert isinstance(refusal, Reject)
        assert refusal.code is RejectCode.UNKNOWN_ACCOUNT
    assert pipeline.sequence == sequence


async def test_the_port_takes_json_from_this_machine_alone(small: SmallCore) -> None:
    """Success beside every refusal: another type, another host name, no id, no reason, a process that does not lead."""
    leads = True

    async def release(account: int, reason: str) -> Reject | None:
        return await release_account(small.core.pipeline, account, reason)

    def current() -> Release | None:
        return release if leads else None

    async with TestClient(TestServer(create_outside(lambda: "standby", list, current))) as client:

        async def ask(number: str = "3", **request: object) -> tuple[int, dict[str, object]]:
            answer = await client.post(f"/accounts/{number}/release", **request)
            return answer.status, await answer.json()

        good = {"json": {"reason": "understood"}}
        assert (await ask(data=b'{"reason":"understood"}'))[0] == 403
        assert (await ask(**good, headers={"Host": "evil.example"}))[0] == 403
        assert (await ask("0x3", **good))[0] == 400
        assert (await ask(json={"reason": "  "}))[0] == 400
        assert (await ask(json={"reason": "x" * 201}))[0] == 400
        assert (await ask(json={}))[0] == 400
        leads = False
        assert await ask(**good) == (503, {"error": "this process does not lead: it is standby"})
        leads = True
        assert await ask("4", **good) == (409, {"error": "no halted account"})
        assert small.core.state.halted == {3: False}
        assert await ask(**good) == (200, {"released": 3})
        assert small.core.state.halted == {}


async def test_the_command_line_asks_that_port(small: SmallCore) -> None:
    """One line where nobody answers or the sequencer refuses."""

    async def release(account: int, reason: str) -> Reject | None:
        return await release_account(small.core.pipeline, account, reason)

    server = TestServer(create_outside(lambda: "leader", list, lambda: release))
    await server.start_server()
    port = server.port
    assert port is not None
    with pytest.raises(CliError, match="account 4 is not let go: no halted account"):
        await _release(4, "understood", port)
    await _release(3, "understood", port)
    assert small.core.state.halted == {}
    await server.close()
    with pytest.raises(CliError, match="no sequencer answers"):
        await _release(3, "understood", port)
