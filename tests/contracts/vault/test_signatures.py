"""Who signed: the owner or a live agent, for this chain and this vault, every field of the order, once per key."""

from dataclasses import replace

import boa
import pytest
from builders import USDC, Exchange, Party, refused, send, signer

from evermark.protocol import signing
from evermark.protocol.orders import Cancel, Order, Side, Signature, TimeInForce, Trigger

PRICE = 600_000
DAY_S = 86_400


def resign(exchange: Exchange, row, separator: bytes | None = None, by=None, **changes):
    """The row with a signature over something else than its order."""
    from msgspec.structs import replace as changed

    message = changed(row.order, **changes)
    row.signature = (by or row.signer).sign(signing.digest(separator or exchange.separator, message))


def trade_with(exchange: Exchange, maker: Party, taker: Party, spoil, **more):
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1, **more)
    batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), 10)
    spoil(resting)
    batch.settle()


def test_the_domain_is_this_vaults(exchange: Exchange) -> None:
    """The separator is Python's for chain id and address."""
    chain_id = boa.env.evm.patch.chain_id
    vault = bytes.fromhex(exchange.vault.address[2:])
    assert bytes(exchange.vault.domain_separator()) == signing.domain_separator(chain_id, vault)


@pytest.mark.safety("F02", "contract")
def test_a_verifier_only_looks(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The vault calls it statically: one that writes anything while a batch runs is refused."""
    for writes, decorator in (("self.asked += 1", ""), ("pass", "@view")):
        batch = exchange.batch()
        resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1)
        batch.sign_together([resting], maker.signer)
        batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), 10)
        data = batch.data()
        source = f"""
asked: uint256
{decorator}
@external
def settle() -> uint256:
    {writes}
    return 1
"""
        boa.loads(source, override_address=exchange.verifier.address)
        if decorator:
            send(exchange, data)
            return
        with refused(""):
            send(exchange, data)


@pytest.mark.safety("F05", "contract")
def test_an_agent_is_no_owner_of_the_sub_account_with_its_principals_number(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Accounts and agents stand in tables that do not meet: its own deposit there opens an account, and it stays an agent."""
    agent = signer(30)
    batch = exchange.batch()
    batch.approve(taker, agent.address, exchange.clock + DAY_S)
    batch.settle()
    known = exchange.vault.totals().accounts
    assert exchange.deposit(30, 20 * USDC, sub_account=taker.account).account == known + 1
    assert exchange.vault.account(known + 1).collateral == 20 * USDC
    exchange.round()
    trade_with(exchange, taker, maker, lambda row: None, by=agent)


@pytest.mark.safety("D01", "contract")
def test_another_chain_or_contract_is_another_domain(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A signature for another chain id, vault or protocol name settles nothing."""
    chain_id, vault = boa.env.evm.patch.chain_id, bytes.fromhex(exchange.vault.address[2:])
    for separator in (
        signing.domain_separator(chain_id + 1, vault),
        signing.domain_separator(chain_id, bytes(20)),
        signing.domain_separator(chain_id, vault, "Evermark Oracle"),
    ):
        with refused("vault: not owner nor live agent"):
            trade_with(exchange, maker, taker, lambda row, s=separator: resign(exchange, row, s))


@pytest.mark.safety("D01", "contract")
def test_the_domain_follows_a_fork_of_the_chain() -> None:
    """When the chain id changes under the contract, old signatures are void and new ones count."""
    with boa.swap_env(boa.Env()):  # py-evm, whose chain id may change
        exchange = Exchange()
        exchange.round({0: PRICE})
        maker, taker = (exchange.deposit(number, 100_000 * USDC) for number in (1, 2))
        boa.env.evm.patch.chain_id += 1
        with refused("vault: not owner nor live agent"):
            trade_with(exchange, maker, taker, lambda row: None)
        vault = bytes.fromhex(exchange.vault.address[2:])
        exchange.separator = signing.domain_separator(boa.env.evm.patch.chain_id, vault)
        assert bytes(exchange.vault.domain_separator()) == exchange.separator
        trade_with(exchange, maker, taker, lambda row: None)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": b"\x11" * 20},
        {"sub_account": 1},
        {"market": "ETH-PERP"},
        {"side": Side.BUY},
        {"size": 9},
        {"limit_price": PRICE - 1},
        {"max_fee_ppm": 999},
        {"slot": 2},
        {"sequence": 5},
        {"expiry": 2_000_000_000},
        {"time_in_force": TimeInForce.GTD},
        {"post_only": True},
        {"reduce_only": True},
        {"amend": True},
        {"builder": b"\x22" * 20},
        {"max_builder_fee_ppm": 1},
        {"trigger": Trigger.LAST_ABOVE},
        {"trigger_price": 1},
        {"trailing_offset": 1},
        {"display_size": 1},
        {"twap_interval": 1},
        {"bracket_link": 1},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.safety("D10", "contract")
def test_every_field_is_signed(exchange: Exchange, maker: Party, taker: Party, change: dict) -> None:
    """An order that differs from the signed one in any field does not settle."""
    with refused("vault: not owner nor live agent"):
        trade_with(exchange, maker, taker, lambda row: resign(exchange, row, **change))


def test_every_optional_field_reaches_the_digest(
    exchange: Exchange, maker: Party, taker: Party, keeper: Party
) -> None:
    """An order with all optional fields set settles under the digest that Python computes."""
    fields = {
        "builder": keeper.signer.address,
        "max_builder_fee_ppm": 65_535,
        "trigger": Trigger.LAST_BELOW,
        "trigger_price": 2**32 - 1,
        "trailing_offset": 2**32 - 2,
        "display_size": 2**64 - 1,
        "twap_interval": 2**32 - 3,
        "bracket_link": 65_534,
        "time_in_force": TimeInForce.GTD,
        "amend": True,
    }
    trade_with(exchange, maker, taker, lambda row: None, **fields)


@pytest.mark.safety("D02", "contract")
def test_a_signature_is_for_one_type(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A cancel's signature is no order's."""
    cancel = Cancel(
        owner=maker.signer.address, sub_account=0, all_slots=False, slot=1, sequence=1, deadline=2**40
    )

    def spoil(row) -> None:
        row.signature = maker.signer.sign(signing.digest(exchange.separator, cancel))

    with refused("vault: not owner nor live agent"):
        trade_with(exchange, maker, taker, spoil)


@pytest.mark.safety("D03", "contract")
def test_the_other_half_of_s_is_refused(exchange: Exchange, maker: Party, taker: Party) -> None:
    """(r, n - s, flipped v) recovers the same key, and is no signature here."""

    def spoil(row) -> None:
        old = row.signature
        row.signature = Signature(old.r, signing.SECP256K1_N - old.s, 1 - old.parity)

    with refused("vault: high s"):
        trade_with(exchange, maker, taker, spoil)


@pytest.mark.parametrize(
    "signature", [Signature(0, 1, 0), Signature(1, 0, 0), Signature(signing.SECP256K1_N, 1, 1)]
)
@pytest.mark.safety("D04", "contract")
def test_a_signature_without_signer_is_refused(
    exchange: Exchange, maker: Party, taker: Party, signature: Signature
) -> None:
    """Where recovery fails there is no zero address that owns anything."""

    def spoil(row) -> None:
        row.signature = signature

    with refused("vault: no signer"):
        trade_with(exchange, maker, taker, spoil)


def test_sub_accounts_are_apart(exchange: Exchange, maker: Party, taker: Party) -> None:
    """One owner's order for sub-account 7 trades that account and no other."""
    isolated = exchange.deposit(1, 10_000_000_000, sub_account=7)
    batch = exchange.batch()
    batch.trade(isolated, taker, Side.BUY, 10, PRICE)
    batch.settle()
    assert exchange.vault.position(isolated.account, 0).size == -10
    assert exchange.vault.position(maker.account, 0).size == 0
    batch = exchange.batch()
    confused = replace(isolated, account=maker.account)
    batch.trade(confused, taker, Side.BUY, 10, PRICE)
    with refused("vault: not owner nor live agent"):
        batch.settle()


@pytest.mark.safety("D12", "contract")
@pytest.mark.safety("D11", "contract")
def test_an_agent_trades_until_it_expires(exchange: Exchange, maker: Party, taker: Party) -> None:
    """An approved key signs orders of that account only, until its expiry or its revocation."""
    agent = signer(77)
    batch = exchange.batch()
    batch.approve(maker, agent.address, exchange.clock + 100, transfer_cap=55)
    batch.settle()
    granted = exchange.vault.agent(maker.account, "0x" + agent.address.hex())
    assert granted == (exchange.clock + 100, 55)
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1, by=agent)
    batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), 10)
    batch.settle()
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=2)
    batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE, by=agent), 10)
    with refused("vault: not owner nor live agent"):
        batch.settle()
    exchange.round(seconds=100)
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=3, by=agent)
    batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), 10)
    batch.settle()
    exchange.round(seconds=1 + 9)
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=4, by=agent)
    batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), 10)
    with refused("vault: not owner nor live agent"):
        batch.settle()


def test_golden_digests(exchange: Exchange) -> None:
    """The order type string and its hash are written down here once more, as a third source."""
    text = (
        "Order(address owner,uint16 subAccount,string market,string side,uint64 size,uint32 limitPrice,"
        "uint32 maxFeePpm,address builder,uint32 maxBuilderFeePpm,uint16 slot,uint48 sequence,uint64 expiry,"
        "bool amend,bool reduceOnly,string timeInForce,bool postOnly,string trigger,uint32 triggerPrice,"
        "uint32 trailingOffset,uint64 displaySize,uint32 twapInterval,uint16 bracketLink)"
    )
    assert signing.type_string(Order.__name__) == text
    assert (
        signing.TYPE_HASH["Order"].hex() == "baf3b3bba6d338df61a3709af04c5b2a0cc2527f771667f0f56298873cbb351a"
    )
