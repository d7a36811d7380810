"""Processes that check signatures answer as the threads do, and nothing is lost with one that ends."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gateway_world import MAKER, NO_LIMITS, STRANGER, TAKER, Caller, GatewayWorld, running

from evermark.protocol.merkle import merkle_root
from evermark.protocol.orders import OrderBatch, Signature
from evermark.protocol.signing import digest, domain_separator, struct_hash
from sequencer.gateway import processes
from sequencer.gateway.checking import Question
from sequencer.gateway.services import GatewaySettings
from sequencer.gateway.verify import CHUNK, SignatureThreads

SEPARATOR = domain_separator(1, bytes(20))
NOBODYS = Signature(5, 1, 0)  # no point of the curve has this r


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[GatewayWorld]:
    """An exchange whose orders a process checks."""
    settings = GatewaySettings(limits=NO_LIMITS, signature_processes=1)
    async with running(tmp_path, settings) as world:
        await world.fund(MAKER, TAKER)
        yield world


@pytest.fixture
async def checkers(world: GatewayWorld) -> AsyncIterator[tuple[SignatureThreads, SignatureThreads]]:
    """Threads alone, and threads with a process."""
    store = world.core.history.store
    both = [SignatureThreads(1, store.answered, 10 * CHUNK) for _ in range(2)]
    await both[1].start_processes(1, store.path)
    yield both[0], both[1]
    for one in both:
        await one.close()


async def test_a_process_answers_as_a_thread_does(
    world: GatewayWorld, caller: Caller, checkers: tuple[SignatureThreads, SignatureThreads]
) -> None:
    """An order, one that was answered before, a stranger's signature, one of nobody, a cancel behind an order, and a batch."""
    new, old, foreign = (world.order(MAKER, slot=slot) for slot in (1, 2, 3))
    assert (await caller.place(old, MAKER)).status == 200
    await world.core.history.settled()
    await world.core.history.store.read(lambda connection: None)  # what was counted is stored
    cancel, batch = world.cancel(MAKER), [new, foreign]
    root = merkle_root([struct_hash(order) for order in batch])
    signed_root = TAKER.sign(digest(SEPARATOR, OrderBatch(root=root)))
    answers = []
    for one in checkers:
        asked = [
            one.recover(new, SEPARATOR, MAKER.sign(digest(SEPARATOR, new)), 3),
            one.recover(old, SEPARATOR, MAKER.sign(digest(SEPARATOR, old)), 3),
            one.recover(foreign, SEPARATOR, STRANGER.sign(digest(SEPARATOR, foreign)), 3),
            one.recover(new, SEPARATOR, NOBODYS, 3),
            one.recover(cancel, SEPARATOR, MAKER.sign(digest(SEPARATOR, cancel)), 3, urgent=True),
            one.answer_to(Question(SEPARATOR, signed_root.to_bytes(), tuple(batch), True), 3),
        ]
        answers.append(await asyncio.gather(*asked))
    by_thread, by_process = answers
    assert by_process == by_thread
    assert [answer.signer for answer in by_process] == [
        MAKER.address,
        MAKER.address,
        STRANGER.address,
        None,
        MAKER.address,
        TAKER.address,
    ]
    assert [answer.known for answer in by_process[:4]] == [False, True, False, False]


async def test_an_exchange_that_checks_by_process_takes_and_refuses_orders(served: GatewayWorld) -> None:
    """A signed order rests and gets its first answer again when it is repeated; a stranger's is refused."""
    caller = Caller(served)
    try:
        order = served.order(MAKER, slot=1)
        placed = await caller.place(order, MAKER)
        assert (placed.status, placed.body["status"]) == (200, "open")
        assert (await caller.place(order, MAKER)).body == placed.body
        refused = await caller.place(served.order(MAKER, slot=2), STRANGER)
        assert refused.error == "BAD_SIGNATURE"
    finally:
        await caller.close()


@pytest.mark.parametrize(
    "before", [True, False], ids=["killed before it is asked", "killed with a crowd waiting"]
)
async def test_what_a_killed_process_was_asked_the_threads_check(
    world: GatewayWorld, checkers: tuple[SignatureThreads, SignatureThreads], before: bool
) -> None:
    """Every order of a crowd is answered, in order, whenever the process ends; and those after it."""
    _, checker = checkers
    (pid,) = checker.process_ids
    if before:
        os.kill(pid, signal.SIGKILL)
    answered: list[int] = []

    async def ask(slot: int) -> None:
        order = world.order(MAKER, slot=slot)
        recovered = await checker.recover(order, SEPARATOR, MAKER.sign(digest(SEPARATOR, order)), 3)
        assert recovered.signer == MAKER.address
        answered.append(slot)

    crowd = [asyncio.ensure_future(ask(slot)) for slot in range(1, 4 * CHUNK + 1)]
    await asyncio.sleep(0)
    if not before:
        os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.gather(*crowd), 60)
    assert answered == list(range(1, 4 * CHUNK + 1))
    await ask(4 * CHUNK + 1)
    assert checker.process_ids == []


async def test_a_process_that_answers_nothing_is_killed(
    world: GatewayWorld,
    checkers: tuple[SignatureThreads, SignatureThreads],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The threads check what it was asked, and everything after."""
    _, checker = checkers
    (pid,) = checker.process_ids
    order = world.order(MAKER)
    signature = MAKER.sign(digest(SEPARATOR, order))
    assert (await checker.recover(order, SEPARATOR, signature, 3)).signer == MAKER.address
    assert checker.process_ids == [pid]
    monkeypatch.setattr(processes, "ANSWER_S", 0.1)
    os.kill(pid, signal.SIGSTOP)
    answers = await asyncio.gather(
        *(checker.recover(order, SEPARATOR, signature, 3) for _ in range(2 * CHUNK))
    )
    assert {answer.signer for answer in answers} == {MAKER.address}
    assert checker.process_ids == []


async def test_a_machine_without_room_for_a_process_goes_on_with_threads(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange starts whether the process does or not."""

    async def refuse(*_: object, **__: object) -> asyncio.subprocess.Process:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    store, order = world.core.history.store, world.order(MAKER)
    threads = SignatureThreads(1, store.answered, CHUNK)
    await threads.start_processes(1, store.path)
    assert threads.process_ids == []
    recovered = await threads.recover(order, SEPARATOR, MAKER.sign(digest(SEPARATOR, order)), 3)
    assert recovered.signer == MAKER.address
    await threads.close()


@pytest.mark.parametrize(
    ("configured", "cores", "expected"), [(None, 1, 0), (None, 2, 1), (None, 16, 1), (0, 16, 0), (3, 1, 3)]
)
def test_how_many_processes_suit_a_machine(
    monkeypatch: pytest.MonkeyPatch, configured: int | None, cores: int, expected: int
) -> None:
    """One where there is a second core, unless the operator says otherwise."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert processes.processes_for(configured) == expected
