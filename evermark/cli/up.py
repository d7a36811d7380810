"""`evermark up`: a whole exchange on this machine, until Ctrl-C or for a given time."""

import asyncio
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from evermark.cli import output
from evermark.cli.errors import CliError
from evermark.cli.exchange import Exchange
from evermark.cli.finish import finish
from evermark.cli.gateway import Gateway
from evermark.cli.overview import Observer
from evermark.cli.plan import SIM_SEED, UpPlan, choose_port, choose_prices, choose_speed, choose_start, resume
from evermark.cli.rundir import RunDirectory, RunFacts
from evermark.cli.screen import plain_line, render
from evermark.cli.supervisor import Supervisor

SCREEN_S = 1.0
LINE_S = 5.0
LAST_SETTLE_S = 20.0


def up(
    prices: Annotated[str, typer.Option(help="sim, live, tape or tape:DIR.")] = "",
    speed: Annotated[float, typer.Option(help="Chain seconds in a wall second.")] = 0.0,
    start: Annotated[str, typer.Option(help="Chain time of the first block, ISO 8601.")] = "",
    state: Annotated[str, typer.Option(help="Keep the exchange in this directory; go on with it.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Gateway; 0: any free port.")] = 8645,
    chain_port: Annotated[int, typer.Option(min=0, max=65535, help="Chain; 0: any free port.")] = 8545,
    actors: Annotated[bool, typer.Option(help="Run a market maker, takers and others.")] = True,
    synthetic: Annotated[bool, typer.Option(help="Add made-up venues where few are recorded.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of simulated prices and of the traders.")] = SIM_SEED,
    seconds: Annotated[float, typer.Option("--for", min=0, help="End after wall seconds.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="With --for: a JSON line at the end.")] = False,
    min_fills: Annotated[int, typer.Option(min=0, help="With --for: fail with fewer settled fills.")] = 0,
) -> None:
    """Run a whole exchange: chain, contracts, sequencer, keepers and traders.

    With --for it ends by itself: the traders stop, everything matched settles, the journal is verified
    against the chain, and the exit code says whether all of that held. Ctrl-C ends the time early.
    """
    if not seconds and (as_json or min_fills):
        raise CliError("--json and --min-fills belong to --for SECONDS")
    kind, tapes = choose_prices(prices)
    if kind == "live":
        asyncio.run(check_live())
    plan = UpPlan(
        prices=kind,
        tapes=tapes,
        speed=choose_speed(kind, speed),
        start_s=choose_start(kind, start),
        seed=seed,
        state=Path(state) if state else None,
        gateway_port=choose_port(port, "--port"),
        chain_port=choose_port(chain_port, "--chain-port"),
        actors=actors,
        synthetic=synthetic,
        seconds=seconds,
        as_json=as_json,
        min_fills=min_fills,
    )
    run = RunDirectory.open(plan.state)
    facts = run.load()
    asyncio.run(_up(plan if facts is None else resume(plan, facts, start), run, facts))


async def _up(plan: UpPlan, run: RunDirectory, facts: RunFacts | None) -> None:
    shown = sys.stdout.isatty() and not plan.as_json
    supervisor = Supervisor(run, (lambda text: None) if shown else output.say)
    output.say(f"run directory {run.path}")
    async with Gateway(plan.gateway_url) as gateway:
        exchange = Exchange(plan, run, supervisor, gateway)
        signals = Signals(supervisor)
        try:
            if not await _unless(signals.stop, exchange.bring_up(facts)):
                return
            output.say(f"the exchange is up at {plan.gateway_url}, its chain at {plan.rpc_url}")
            observer = Observer(gateway, plan.rpc_url, run.path / "status")
            await (_show if shown else _tell)(observer, supervisor, plan, signals.stop)
            end = finish(exchange, plan) if plan.seconds else settle_soon(exchange)
            if not await _unless(signals.hurry, end) and plan.seconds:
                raise CliError("interrupted: neither settled nor verified")
        finally:
            output.say("stopping")
            await exchange.take_down()
    output.say(f"stopped; logs and keys are in {run.path}")


async def settle_soon(exchange: Exchange) -> None:
    """Before an ordinary stop: give the chain a moment for what was matched; a next start would go on."""
    output.say("traders stop, the last batch settles; Ctrl-C again does not wait for it")
    try:
        await exchange.settle(LAST_SETTLE_S)
    except CliError as error:
        output.say(str(error))


async def check_live() -> None:
    """Ask the live venues before anything else starts, so that no network is known within seconds."""
    from evermark.protocol.markets import load_markets
    from keeper.config import PricesConfig
    from keeper.run import make_source
    from keeper.sources.quotes import SourceUnavailable

    source = make_source(PricesConfig(kind="live"), load_markets())
    try:
        await source.start()
    except SourceUnavailable as error:
        raise CliError(f"--prices live: {error}") from None
    finally:
        await source.close()


class Signals:
    """Ctrl-C and SIGTERM: the first ends the run in order, the second hurries, the third kills."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        self._supervisor = supervisor
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._heard)

    def _heard(self) -> None:
        if self.hurry.is_set():
            for child in self._supervisor.children.values():
                child.kill()
        elif self.stop.is_set():
            self.hurry.set()
        self.stop.set()


async def _unless(stopped: asyncio.Event, work: Awaitable[None]) -> bool:
    """Do `work` to its end, or drop it when told to stop; True when it was done."""
    doing, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not doing.done():
        doing.cancel()
        return False
    doing.result()
    return True


async def _show(observer: Observer, supervisor: Supervisor, plan: UpPlan, stopped: asyncio.Event) -> None:
    """The live screen until stopped or the time is over."""
    with Live(console=output.stdout, screen=True, auto_refresh=False) as live:
        async for _ in _ticks(stopped, plan.seconds, SCREEN_S):
            look = await observer.look()
            screen = render(look, supervisor.children, list(supervisor.notices), plan, supervisor.run)
            live.update(screen, refresh=True)


async def _tell(observer: Observer, supervisor: Supervisor, plan: UpPlan, stopped: asyncio.Event) -> None:
    """A plain line every few seconds until stopped or the time is over."""
    async for _ in _ticks(stopped, plan.seconds, LINE_S):
        output.say(plain_line(await observer.look()))


async def _ticks(stopped: asyncio.Event, seconds: float, every_s: float):  # type: ignore[no-untyped-def]
    """Yields every so often until stopped, or until `seconds` are over (0: for ever)."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds if seconds else float("inf")
    while not stopped.is_set() and loop.time() < end:
        yield
        try:
            await asyncio.wait_for(stopped.wait(), min(every_s, max(0.0, end - loop.time())))
        except TimeoutError:
            continue
