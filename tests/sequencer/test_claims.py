"""The payer of claims against a model of the vault's claims: each is paid once, when it is due, whoever sits there then."""

import pytest

from sequencer.settlement.chain import Receipt
from sequencer.settlement.claims import LOOK_BACK, ClaimPayer
from sequencer.settlement.errors import Refused, Unreachable


class Claims:
    """Amounts and due times by claim id; the token refuses those of `refused`."""

    def __init__(self) -> None:
        self.amounts: dict[int, int] = {}
        self.dues: dict[int, int] = {}
        self.refused: set[int] = set()
        self.now_s = 0
        self.asked = 0
        self.away = False

    async def claim_count(self) -> int:
        return len(self.amounts)

    async def open_claim(self, claim_id: int) -> tuple[int, int]:
        self.asked += 1
        return self.amounts[claim_id], self.dues.get(claim_id, 0)

    async def block_time(self) -> int:
        return self.now_s

    async def pay(self, claim_id: int) -> Receipt:
        if self.away:
            raise Unreachable("no node")
        if claim_id in self.refused or self.now_s < self.dues.get(claim_id, 0):
            raise Refused("vault: token refused")
        assert self.amounts[claim_id], "paid twice"
        self.amounts[claim_id] = 0
        return Receipt(1, 1)


def payer(claims: Claims, delayed: list[tuple[int, int]] | None = None) -> ClaimPayer:
    return ClaimPayer(claims, lambda: delayed or [])  # type: ignore[arg-type]


async def test_claims_are_paid_once() -> None:
    """New claims are paid; a refused one stays and does not hold up the next."""
    claims = Claims()
    claims.amounts, claims.refused = {1: 10, 2: 20, 3: 30}, {2}
    line = payer(claims)
    assert await line.step() == 2
    assert claims.amounts == {1: 0, 2: 20, 3: 0}
    claims.amounts[4] = 40
    assert await line.step() == 1
    assert claims.amounts == {1: 0, 2: 20, 3: 0, 4: 0}


@pytest.mark.safety("B18", "contract")
async def test_a_delayed_claim_is_paid_when_it_is_due() -> None:
    """Not a second before, whatever else is paid meanwhile, and the earliest first."""
    claims = Claims()
    claims.amounts, claims.dues, claims.now_s = {1: 10, 2: 20, 3: 30}, {1: 500, 2: 400}, 399
    line = payer(claims)
    assert await line.step() == 1
    assert claims.amounts == {1: 10, 2: 20, 3: 0}
    claims.now_s = 400
    assert await line.step() == 1
    assert claims.amounts == {1: 10, 2: 0, 3: 0}
    claims.now_s = 10_000
    assert await line.step() == 1
    assert claims.amounts == {1: 0, 2: 0, 3: 0}


async def test_after_a_restart_old_delayed_claims_are_known_from_the_engine() -> None:
    """They may lie further back than the claims that are looked at again; one that is paid meanwhile is not paid again."""
    claims = Claims()
    claims.amounts = {1: 10, 2: 20} | dict.fromkeys(range(3, LOOK_BACK + 10), 0)
    claims.dues = {1: 500, 2: 600}
    line = payer(claims, [(500, 1), (600, 2)])
    assert await line.step() == 0
    claims.now_s = 500
    assert await line.step() == 1
    claims.amounts[2], claims.now_s = 0, 600  # somebody else paid it
    assert await line.step() == 0
    assert claims.amounts[1] == 0


async def test_a_node_that_is_away_costs_no_claim() -> None:
    """Neither a new claim nor one that has become due is forgotten."""
    claims = Claims()
    claims.amounts, claims.dues = {1: 10, 2: 20}, {1: 500}
    line = payer(claims)
    claims.away = True
    with pytest.raises(Unreachable):
        await line.step()
    claims.away = False
    assert await line.step() == 1
    claims.away, claims.now_s = True, 500
    with pytest.raises(Unreachable):
        await line.step()
    claims.away = False
    assert await line.step() == 1
    assert not any(claims.amounts.values())
