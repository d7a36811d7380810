"""Funding reports found again in the transaction that posted them."""

import pytest
from web3 import Web3

from evermark.chain.artifacts import load_artifact
from evermark.chain.postings import reports_that_make, reports_within, same_rates
from evermark.devnet import dev_key
from evermark.protocol.oracle import SignedFundingReport, median_rates
from evermark.protocol.signing import FundingReport, Signer, digest, domain_separator

HOUR = 488_925
DOMAIN = domain_separator(31337, b"\x22" * 20, "Evermark Oracle")


def report(index, rates, hour=HOUR):
    signer = Signer(dev_key(index))
    made = FundingReport(hour=hour, rates_ppb=tuple(rates), samples=bytes([index]) * 32)
    return SignedFundingReport(made, signer.address, signer.sign(digest(DOMAIN, made)))


@pytest.fixture(scope="module")
def five():
    """Five keepers' reports of two markets; the last knows one only. Ascending by signer."""
    made = [report(index, (index * 100, -index * 1_000)) for index in range(1, 5)]
    return tuple(sorted((*made, report(5, (500,))), key=lambda one: one.signer))


def posting(reports):
    oracle = Web3().eth.contract(abi=load_artifact("oracle").abi)
    rows = [
        (
            one.report.hour,
            list(one.report.rates_ppb),
            one.report.samples,
            one.signature.r,
            one.signature.s,
            27 + one.signature.parity,
        )
        for one in reports
    ]
    return bytes.fromhex(oracle.encode_abi("post_funding", args=[rows])[2:])


def test_reports_are_found_wherever_the_call_stands(five):
    """Plain, behind another contract's selector and words, and at an odd offset."""
    for before in (b"", b"\x12\x34\x56\x78" + bytes(64), b"odd"):
        assert tuple(reports_within(before + posting(five) + b"more", HOUR, DOMAIN)) == five


def test_nothing_is_found_where_nothing_is(five):
    """Another hour, input that a contract has to decode first, input that ends early, and the hour's number alone."""
    data = posting(five)
    assert not list(reports_within(data, HOUR + 1, DOMAIN))
    assert not list(reports_within(bytes(255 - byte for byte in data), HOUR, DOMAIN))
    assert len(list(reports_within(data[:-40], HOUR, DOMAIN))) == 4
    assert not list(reports_within(HOUR.to_bytes(32, "big"), HOUR, DOMAIN))


def test_a_changed_report_is_somebody_elses(five):
    """One bit of a rate: another signer recovers, if any."""
    data = bytearray(posting(five[:1]))
    at = bytes(data).index(five[0].report.rates_ppb[0].to_bytes(32, "big"))
    data[at + 31] ^= 1
    assert all(one.signer != five[0].signer for one in reports_within(bytes(data), HOUR, DOMAIN))


def test_the_reports_that_make_the_rates_are_chosen(five):
    """Among more than were posted: any quorum with these medians, the largest; one report a signer; none below the quorum."""
    by_rate = sorted(five, key=lambda one: one.report.rates_ppb[0])
    assert reports_that_make((300, -2_000), five, 3) == five
    chosen = reports_that_make((400, -3_000), by_rate[2:], 3)
    assert chosen == tuple(sorted(by_rate[2:], key=lambda one: one.signer))
    some = reports_that_make((200, -2_000), five, 3)
    assert median_rates([one.report for one in some], 2) == (200, -2_000)
    assert [one.signer for one in some] == sorted({one.signer for one in some})
    assert 3 <= len(some) < 5
    assert reports_that_make((100, -1_000), five, 3) == ()
    twice = [report(1, (9, 9)), report(1, (9, 8)), report(2, (9, 9))]
    assert reports_that_make((9, 9), twice, 3) == ()
    assert reports_that_make((500,), [five[0]], 2) == ()


def test_rates_are_compared_where_they_count(five):
    """In the given markets alone; one that the chain or a report did not know has a rate of 0 there."""
    assert same_rates((300, -2_000), five, (0,))
    assert not same_rates((301, -2_000), five, (0,))
    assert same_rates((300, -2_000), five, (0, 1))
    assert not same_rates((300, -2_001), five, (0, 1))
    assert same_rates((1,), [report(1, (1,))], (0, 1))
    assert not same_rates((1,), [report(1, (1, 2))], (0, 1))
    assert same_rates((), five, ())
