"""Whatever is sent, the answer is a refusal with a known code: never a 5xx, never an unexpected error."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gateway_world import MAKER, NO_LIMITS, TAKER, Caller, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evermark.protocol.reject import RejectCode
from sequencer.gateway.services import GatewaySettings

CODES = {int(code) for code in RejectCode}
POSTS = (
    "/v1/orders",
    "/v1/order-batches",
    "/v1/cancels",
    "/v1/agents",
    "/v1/withdrawals",
    "/v1/transfers",
    "/v1/oracle/prices",
    "/v1/oracle/funding",
    "/v1/liquidations",
)
PER_EXAMPLE = 40

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**270), max_value=2**270),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["0x" + "00" * 20, "0x" + "ff" * 65, "BTC-PERP", "buy", "GTC", "-0", "1e9", "٣", "\x00", str(2**60)]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def mutated(body: dict[str, Any], draw: Any) -> dict[str, Any]:
    """A valid body with one field replaced, removed or added, at either level."""
    inner = next(name for name in body if name not in ("signature", "chain_id"))
    body = json.loads(json.dumps(body))
    target = body[inner] if draw(st.booleans()) else body
    name = draw(st.sampled_from(sorted(target)) | st.text(max_size=8))
    if draw(st.integers(0, 5)) == 0:
        target.pop(name, None)
    else:
        target[name] = draw(values)
    return body


@pytest.mark.safety("H02", "api")
async def test_no_body_causes_an_error(tmp_path: Path) -> None:
    """Random JSON, mutated valid bodies and random bytes to every POST route and to the WebSocket."""
    async with running(tmp_path, GatewaySettings(limits=NO_LIMITS)) as world:
        await world.fund(MAKER, TAKER)
        caller = Caller(world)
        bodies = [
            world.body(world.order(MAKER), MAKER),
            world.body(world.cancel(MAKER), MAKER),
            world.body(world.withdrawal(MAKER), MAKER),
            world.body(world.approval(MAKER), MAKER),
            world.report_body(world.price_report(), MAKER),
        ]
        payloads: list[tuple[str, bytes]] = []

        @settings(max_examples=400, suppress_health_check=list(HealthCheck), database=None)
        @given(data=st.data())
        def collect(data: Any) -> None:
            path = data.draw(st.sampled_from(POSTS))
            kind = data.draw(st.integers(0, 3))
            if kind == 0:
                raw = data.draw(st.binary(max_size=200))
            elif kind == 1:
                raw = json.dumps(data.draw(values)).encode()
            else:
                raw = json.dumps(mutated(data.draw(st.sampled_from(bodies)), data.draw)).encode()
            payloads.append((path, raw))

        collect()
        for at in range(0, len(payloads), PER_EXAMPLE):
            await asyncio.gather(*(check(caller, path, raw) for path, raw in payloads[at : at + PER_EXAMPLE]))
        async with caller.socket() as socket:
            for _, raw in payloads:
                await socket.send_bytes(raw)
                answer = await asyncio.wait_for(socket.receive_json(), 5)
                assert "error" not in answer or answer["error"]["code"] in CODES, raw
        assert world.unexpected == 0
        await caller.close()


async def check(caller: Caller, path: str, raw: bytes) -> None:
    answer = await caller.post(path, data=raw)
    assert answer.status < 500, (path, raw, answer.body)
    if answer.status >= 400:
        assert answer.body["error"]["code"] in CODES, (path, raw)
        assert answer.body["error"]["name"] == RejectCode(answer.body["error"]["code"]).name
