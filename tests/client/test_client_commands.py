"""`evermark agent` and `evermark queue` against a served exchange."""

import asyncio
import json
import os
import sys

from gateway_world import AGENT, MAKER, GatewayWorld

from evermark.client import EvermarkClient
from evermark.protocol.orders import Side

AGENT_ADDRESS = "0x" + AGENT.address.hex()


async def evermark(world: GatewayWorld, *arguments: str, key: str) -> tuple[int, str, str]:
    """A command with a private key from the environment: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "evermark.cli.main", *arguments, "--url", world.url, "--key-env", "KEY"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", "KEY": key},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


MAKERS_KEY, TAKERS_KEY = ("0x" + number.to_bytes(32, "big").hex() for number in (11, 12))


async def test_an_owner_approves_and_revokes_a_session_key(
    world: GatewayWorld, maker: EvermarkClient
) -> None:
    """The key may place orders until it is revoked; what is no address is refused in one line."""
    code, out, err = await evermark(
        world, "agent", "approve", AGENT_ADDRESS, "--days", "2", "--json", key=MAKERS_KEY
    )
    assert code == 0, err
    receipt = json.loads(out)
    assert receipt["agent"] == AGENT_ADDRESS
    assert 0 < receipt["expiry"] - world.now_s <= 2 * 86_400 + 60
    state = world.core.state
    account = state.account_ids[MAKER.address, 0]
    assert state.agents[account, AGENT.address] == (receipt["expiry"], 0)
    code, out, err = await evermark(world, "agent", "revoke", AGENT_ADDRESS, key=MAKERS_KEY)
    assert code == 0, err
    assert "revoked" in out
    assert state.agents.get((account, AGENT.address), (0, 0))[0] == 0
    code, _, err = await evermark(world, "agent", "approve", "0x12", key=MAKERS_KEY)
    assert (code, err) == (1, "evermark: agent: '0x12' is no address\n")


async def test_positions_show_their_place_in_the_queue(
    world: GatewayWorld, maker: EvermarkClient, taker: EvermarkClient
) -> None:
    """Client and command tell the same; without a position there is nothing to show."""
    assert await taker.deleveraging() == []
    mark = world.core.state.markets[0].mark
    await maker.place_limit("BTC-PERP", Side.SELL, size_lots=1_000, price_ticks=mark)
    await taker.place_limit("BTC-PERP", Side.BUY, size_lots=1_000, price_ticks=mark)
    (place,) = await taker.deleveraging()
    assert (place.market, place.place, place.of, place.lights) == ("BTC-PERP", 1, 1, 5)
    code, out, err = await evermark(world, "queue", "--json", key=TAKERS_KEY)
    assert code == 0, err
    assert [row["market"] for row in json.loads(out)] == ["BTC-PERP"]
