"""Hostile keepers: with f of 2f+1 keys and a friendly poster, no price, rate or time leaves the range of the honest ones."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, ClassVar

import boa
from builders import deployer
from hostile_machines import SEEDS
from hostile_world import anchored
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from evermark.protocol import signing
from evermark.protocol.markets import MAX_JUMP_PPM

ROUND_S, MARKETS, QUORUM = 10, 3, 3
START_S = 1_800_000_000
KEEPERS = sorted(
    (signing.Signer((500 + i).to_bytes(32, "big")) for i in range(5)), key=lambda key: key.address
)
HOSTILE_KEEPER, HONEST_KEEPERS = KEEPERS[2], KEEPERS[:2] + KEEPERS[3:]
STRANGER = signing.Signer(b"\x66" * 32)
GOVERNOR, NOBODY = "0x" + "77" * 20, "0x" + "00" * 20
FUNDING_CAP_PPB = 40_000_000


class HostileKeepers(RuleBasedStateMachine):
    """Five keepers, a quorum of three, one of them hostile and choosing which honest reports it posts with its own."""

    anchor: Any = None
    tally: ClassVar[Counter[str]] = Counter()

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        compiled = deployer("PriceOracle")
        self.anchor = anchored()
        self.anchor.__enter__()
        boa.env.timestamp = START_S
        self.random = random.Random(seed)
        self.sequencer = boa.env.generate_address("sequencer")
        addresses = ["0x" + key.address.hex() for key in KEEPERS]
        self.oracle = compiled.deploy(
            ROUND_S,
            QUORUM,
            [MAX_JUMP_PPM] * MARKETS,
            addresses,
            QUORUM,
            addresses,
            self.sequencer,
            GOVERNOR,
            NOBODY,
        )
        self.separator = bytes(self.oracle.domain_separator())
        self.prices = [600_000, 250_000, 15_000]
        self.lanes: dict[int, dict[str, Any]] = {
            0: {"round": 0, "words": None},
            1: {"round": 0, "words": None},
        }
        self.reports: list[Any] = []
        self.hours: dict[int, list[int]] = {}

    def teardown(self) -> None:
        if self.anchor is not None:
            self.anchor.__exit__(None, None, None)
            self.tally["games"] += 1

    # --------------------------------------------------------------------------------------------------------------- prices

    def honest_reports(self, count: int) -> list[Any]:
        """Reports of some honest keepers: near each other, one of them perhaps without a market."""
        timestamp = int(boa.env.timestamp)
        found = []
        for key in self.random.sample(HONEST_KEEPERS, count):
            prices = tuple(
                0 if self.random.random() < 0.05 else self.packed(price + self.random.randint(-50, 50))
                for price in self.prices
            )
            at = timestamp - self.random.randint(0, timestamp % ROUND_S)  # all of one round
            found.append(
                self.signed(key, signing.PriceReport(round=at // ROUND_S, timestamp=at, prices=prices))
            )
        return found

    @staticmethod
    def packed(price: int) -> int:
        return price << 32 | price

    def signed(self, key: signing.Signer, report: Any) -> tuple[signing.Signer, Any, signing.Signature]:
        return key, report, key.sign(signing.digest(self.separator, report))

    def entry(self, signed: Any) -> tuple[Any, ...]:
        _, report, signature = signed
        return (*report_values(report), signature.r, signature.s, 27 + signature.parity)

    def hostile_report(self, honest: list[Any]) -> Any:
        """Anything at all, validly signed: extreme, zero, of another round or time."""
        pick, like = self.random, honest[0][1]
        lawful = (0, 1 << 32 | 1, self.packed(2**32 - 1), self.packed(7), 2**32 - 1 << 32 | 1)
        prices = tuple(
            pick.choice(lawful if pick.random() < 0.9 else (1 << 70, 5, 5 << 32))
            for _ in range(MARKETS + (pick.random() < 0.05))
        )
        last = like.round * ROUND_S + ROUND_S - 1
        timestamp = pick.choice(
            (like.timestamp, like.round * ROUND_S, last, last if pick.random() < 0.5 else 2**40)
        )
        number = like.round if pick.random() < 0.9 else pick.choice((like.round + 1, 0))
        return self.signed(
            HOSTILE_KEEPER, signing.PriceReport(round=number, timestamp=timestamp, prices=prices)
        )

    @rule(seed=SEEDS, public=st.booleans(), tampered=st.booleans())
    def posts_a_round(self, seed: int, public: bool, tampered: bool) -> None:
        """Two to four honest reports with the hostile one; tampered with, or not."""
        self.tally["steps"] += 1
        self.random.seed(seed)
        boa.env.timestamp = int(boa.env.timestamp) + self.random.randint(0, 3 * ROUND_S)
        honest = self.honest_reports(self.random.randint(2, 4))
        self.reports += honest
        chosen = sorted([*honest, self.hostile_report(honest)], key=lambda signed: signed[0].address)
        if tampered:
            chosen = self.tamper(chosen)
        self.post(int(public), chosen)

    def tamper(self, chosen: list[Any]) -> list[Any]:
        """Repeats, omits, reorders, mixes in strangers, old reports and foreign signatures."""
        pick = self.random
        kind = pick.randrange(6)
        if kind == 0:
            return [*chosen, chosen[-1]]
        if kind == 1:
            return chosen[: QUORUM - 1]
        if kind == 2:
            return list(reversed(chosen))
        if kind == 3:
            report = chosen[0][1]
            extra = self.signed(STRANGER, report)
            return sorted([*chosen[1:], extra], key=lambda signed: signed[0].address)
        if kind == 4:
            return sorted([*chosen[1:], pick.choice(self.reports)], key=lambda signed: signed[0].address)
        key, report, _ = chosen[0]
        return [(key, report, chosen[-1][2]), *chosen[1:]]

    def post(self, lane: int, chosen: list[Any]) -> None:
        rows = [self.entry(signed) for signed in chosen]
        try:
            if lane:
                self.oracle.post_round_public(rows, sender=boa.env.generate_address())
            else:
                self.oracle.post_round(rows, sender=self.sequencer)
        except (boa.BoaError, OverflowError):
            self.tally["refused"] += 1
            return
        self.tally["settled"] += 1
        self.check_round(lane, chosen)

    def check_round(self, lane: int, chosen: list[Any]) -> None:
        """Every value of the posted round lies between the honest ones, or between them and what was accepted before."""
        keys = [key.address for key, _, _ in chosen]
        assert len(set(keys)) == len(keys) >= QUORUM, "a quorum of distinct keepers"
        assert all(key in KEEPERS for key, _, _ in chosen), "only registered keepers"
        number = self.oracle.last_round(lane)
        assert number > self.lanes[lane]["round"], "rounds rise"
        words, old = self.oracle.round_words(lane, number), self.lanes[lane]["words"]
        honest = [report for key, report, _ in chosen if key is not HOSTILE_KEEPER]
        times = [report.timestamp for report in honest]
        assert min(times) <= words[0] >> 40 <= max(times), "the time is an honest one's"
        assert words[0] >> 40 <= boa.env.timestamp + 5, "no round of the future"
        for market in range(MARKETS):
            half = words[market // 2 + 1] >> 128 * (market % 2)
            before = old[market // 2 + 1] >> 128 * (market % 2) if old else 0
            given = [report.prices[market] for report in honest if report.prices[market]]
            if half >> 64 & (2**40 - 1) != words[0] >> 40:
                assert half & (2**104 - 1) == before & (2**104 - 1), (
                    "a price without a quorum stays as it was"
                )
                continue
            for offset in (0, 32):
                value, last = half >> offset & (2**32 - 1), before >> offset & (2**32 - 1)
                bounds = [price >> 32 if offset == 0 else price & (2**32 - 1) for price in given]
                bounds += [last] if last else []
                assert min(bounds) <= value <= max(bounds), "the hostile keeper moved a price"
        self.lanes[lane] = {"round": number, "words": words}

    # -------------------------------------------------------------------------------------------------------------- funding

    @rule(seed=SEEDS, tampered=st.booleans())
    def posts_funding(self, seed: int, tampered: bool) -> None:
        """The hour's rates: two honest reports and the hostile one, perhaps tampered with."""
        self.tally["steps"] += 1
        self.random.seed(seed)
        hour = int(boa.env.timestamp) // 3_600 - self.random.choice((0, 1, 1, 1, 2))
        honest = [self.funding(key, hour, 20_000) for key in self.random.sample(HONEST_KEEPERS, 2)]
        hostile = self.funding(HOSTILE_KEEPER, hour + self.random.choice((0, 0, 0, 1)), 50_000_000)
        chosen = sorted([*honest, hostile], key=lambda signed: signed[0].address)
        if tampered:
            chosen = [[*chosen, chosen[-1]], chosen[:2], chosen[::-1]][self.random.randrange(3)]
        try:
            self.oracle.post_funding([self.entry(signed) for signed in chosen])
        except boa.BoaError:
            return
        assert hour not in self.hours, "an hour is posted once"
        assert hour * 3_600 + 3_600 <= boa.env.timestamp + 5, "an hour that is over"
        rates = self.oracle.funding_rates(hour)
        for market, rate in enumerate(rates):
            given = [report.rates_ppb[market] for _, report, _ in honest]
            assert min(given) <= rate <= max(given), "the hostile keeper moved a rate"
        self.hours[hour] = rates

    def funding(self, key: signing.Signer, hour: int, largest: int) -> Any:
        rates = tuple(self.random.randint(-largest, largest) for _ in range(MARKETS))
        return self.signed(key, signing.FundingReport(hour=hour, rates_ppb=rates, samples=bytes(32)))

    @rule(hours=st.integers(min_value=1, max_value=3))
    def time_passes(self, hours: int) -> None:
        boa.env.timestamp = int(boa.env.timestamp) + hours * 1_801

    @rule()
    def posted_hours_stay(self) -> None:
        for hour, rates in self.hours.items():
            assert self.oracle.funding_rates(hour) == rates, "a posted hour changed"


def report_values(report: Any) -> tuple[Any, ...]:
    """A report's fields in the order of the contract's struct."""
    if isinstance(report, signing.PriceReport):
        return (report.round, report.timestamp, report.prices)
    return (report.hour, report.rates_ppb, report.samples)
