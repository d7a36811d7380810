"""Funding hours: a quorum's median rates, once per hour, posted by anybody."""

import boa
import pytest
from contract_cases import FUNDING_KEEPERS, KEEPERS, MARKETS, START_S, flipped, funding_row, rows, signed

from evermark.protocol.oracle import median_rates
from evermark.protocol.signing import FundingReport

HOUR = START_S // 3600
END_S = (HOUR + 1) * 3600
MAX_RATE = 2**31 - 1
RATES = [(100, -5, 0), (300, -7, 1), (200, -6, -1)]


def reports_of(rates=RATES, hour=HOUR):
    return [
        FundingReport(hour=hour, rates_ppb=tuple(row), samples=bytes([k]) * 32) for k, row in enumerate(rates)
    ]


@pytest.fixture
def over(oracle, chain):
    """The oracle, with the hour just over."""
    chain.timestamp = END_S
    return oracle


def post(oracle, reports, keepers=FUNDING_KEEPERS):
    oracle.post_funding(rows(oracle, reports, keepers))


def test_an_hour_has_the_median_rates(over):
    """Lower median per market, as the Python side takes it; with the time of posting and an event."""
    assert over.funding_posted_at(HOUR) == 0
    with boa.reverts("oracle: hour not posted"):
        over.funding_rates(HOUR)
    post(over, reports_of())
    event = over.get_logs()[-1]
    assert tuple(over.funding_rates(HOUR)) == median_rates(reports_of(), MARKETS) == (200, -6, 0)
    assert over.funding_posted_at(HOUR) == END_S
    assert (event.hour, list(event.rates_ppb)) == (HOUR, [200, -6, 0])


@pytest.mark.safety("C04", "contract")
def test_an_hour_is_posted_once(over):
    """A second quorum changes nothing; a skipped hour is simply not there."""
    post(over, reports_of())
    with boa.reverts("oracle: hour already posted"):
        post(over, reports_of([(1, 1, 1)] * 3))
    boa.env.timestamp = END_S + 2 * 3600
    post(over, reports_of(hour=HOUR + 2))
    with boa.reverts("oracle: hour not posted"):
        over.funding_rates(HOUR + 1)
    post(over, reports_of(hour=HOUR + 1))
    assert tuple(over.funding_rates(HOUR)) == (200, -6, 0)


def test_an_hour_is_posted_when_it_is_over(oracle, chain):
    """Five seconds early are tolerated, six are not."""
    chain.timestamp = END_S - 6
    with boa.reverts("oracle: hour not over"):
        post(oracle, reports_of())
    chain.timestamp = END_S - 5
    post(oracle, reports_of())


def test_a_quorum_of_funding_keepers_signs(over):
    """Oracle keepers do not count, two are too few, and none counts twice."""
    with boa.reverts("oracle: below the quorum"):
        post(over, reports_of()[:2])
    with boa.reverts("oracle: unknown keeper"):
        post(over, reports_of(), KEEPERS)
    first, second, third = FUNDING_KEEPERS
    for keepers in ([first, first, second], [second, first, third]):
        with boa.reverts("oracle: signers not ascending"):
            post(over, reports_of(), keepers)
    post(over, reports_of())


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"hour": HOUR - 1}, "oracle: hours differ"),
        ({"rates_ppb": (1, 2, 3, 4)}, "oracle: too many markets"),
        ({"rates_ppb": (1, 2, MAX_RATE + 1)}, "oracle: rate out of range"),
        ({"rates_ppb": (1, 2, -MAX_RATE - 1)}, "oracle: rate out of range"),
    ],
)
@pytest.mark.safety("C03", "contract")
def test_one_bad_report_spoils_the_hour(over, change, reason):
    """Though its keeper signed it; extreme rates within the bound are taken."""
    given = rows(over, reports_of(), FUNDING_KEEPERS)
    facts = {"hour": HOUR, "rates_ppb": (1, 2, 3), "samples": bytes(32), **change}
    bad = FundingReport(**facts)
    with boa.reverts(reason):
        over.post_funding([*given[:2], funding_row(bad, signed(over, FUNDING_KEEPERS[2], bad))])
    post(over, reports_of([(MAX_RATE, -MAX_RATE, 0)] * 3))
    assert tuple(over.funding_rates(HOUR)) == (MAX_RATE, -MAX_RATE, 0)


@pytest.mark.safety("D03", "contract")
def test_every_signed_field_counts(over):
    """Changing a rate, the samples or the signature's form after signing breaks the report."""
    given = rows(over, reports_of(), FUNDING_KEEPERS)
    hour, rates, samples, r, s, v = given[0]
    high = flipped(signed(over, FUNDING_KEEPERS[0], reports_of()[0]))
    for wrong, reason in (
        ((hour, [rates[0] + 1, *rates[1:]], samples, r, s, v), "oracle: unknown keeper"),
        ((hour, rates, b"\x09" * 32, r, s, v), "oracle: unknown keeper"),
        ((hour, rates, samples, high.r, high.s, 27 + high.parity), "oracle: high s"),
    ):
        with boa.reverts(reason):
            over.post_funding([wrong, *given[1:]])
    over.post_funding(given)


def test_a_report_that_ends_early_says_zero(over):
    """A keeper that does not know the newest market yet: its rate there is zero, one of three; more than there are is refused."""
    post(over, reports_of([(100, -5), (300,), (200, -6, 9)]))
    assert tuple(over.funding_rates(HOUR)) == (200, -5, 0)
    boa.env.timestamp = END_S + 3600
    with boa.reverts("oracle: too many markets"):
        post(over, reports_of([(1, 2, 3), (1, 2, 3), (1, 2, 3, 4)], HOUR + 1))
