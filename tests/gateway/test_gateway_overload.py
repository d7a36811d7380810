"""More orders than signatures can be checked: early refusals with a code, and cancels before the crowd."""

import asyncio
import threading

import pytest
from gateway_world import MAKER, TAKER, GatewayWorld, key

from evermark.protocol.reject import RejectCode
from evermark.protocol.signing import digest, domain_separator
from sequencer.gateway.checking import Recovered
from sequencer.gateway.refusal import Refusal
from sequencer.gateway.verify import CHUNK, SignatureThreads

SEPARATOR = domain_separator(1, bytes(20))
ROOM = 3 * CHUNK


class Crowd:
    """One thread that stands still until it may go on, behind a crowd of orders of account 3."""

    def __init__(self, world: GatewayWorld) -> None:
        self.world = world
        self.may_go_on = threading.Event()
        self.threads = SignatureThreads(1, self._look_up, ROOM)
        self.answered: list[str] = []

    def _look_up(self, hashes: object) -> dict[bytes, bytes]:
        self.may_go_on.wait(60)
        return {}

    async def order(self, slot: int) -> Recovered:
        order = self.world.order(MAKER, slot=slot)
        recovered = await self.threads.recover(order, SEPARATOR, MAKER.sign(digest(SEPARATOR, order)), 3)
        self.answered.append(f"order {slot}")
        return recovered

    async def cancel(self, account: int) -> Recovered:
        cancel = self.world.cancel(TAKER if account == 4 else MAKER)
        signature = key(9).sign(digest(SEPARATOR, cancel))
        recovered = await self.threads.recover(cancel, SEPARATOR, signature, account, urgent=True)
        self.answered.append(f"cancel of {account}")
        return recovered


@pytest.mark.safety("G21", "sequencer")
@pytest.mark.safety("B22", "sequencer")
async def test_a_crowd_is_refused_early_and_cancels_pass_it(world: GatewayWorld) -> None:
    """Beyond the lane's room orders are refused at once with both numbers. Another's cancel passes all that no thread has yet;
    one's own stays behind its orders, and neither is ever refused."""
    crowd = Crowd(world)
    waiting = [asyncio.ensure_future(crowd.order(slot)) for slot in range(1, ROOM + 1)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        await crowd.order(ROOM + 1)
    assert refused.value.reject.code is RejectCode.OVERLOADED
    assert refused.value.reject.details == {"waiting": ROOM, "limit": ROOM, "retry_after_ms": 500}
    assert refused.value.http_status == 503
    own, other = asyncio.ensure_future(crowd.cancel(3)), asyncio.ensure_future(crowd.cancel(4))
    await asyncio.sleep(0)
    crowd.may_go_on.set()
    answers = await asyncio.gather(*waiting)
    assert {answer.signer for answer in answers} == {MAKER.address}
    assert (await own).signer == (await other).signer == key(9).address
    assert crowd.answered[CHUNK] == "cancel of 4"
    assert crowd.answered[-1] == "cancel of 3"
    assert (await crowd.order(1)).signer == MAKER.address
    await crowd.threads.close()
