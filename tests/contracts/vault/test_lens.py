"""The views of the vault, which its lens answers at the vault's own address."""

import json

import boa
import pytest
from builders import Exchange, Party, Refused, Side, send
from eth_abi import decode, encode
from eth_hash.auto import keccak

from evermark.chain.artifacts import load_artifact
from evermark.protocol.signing import domain_separator

LAST = 2**32 - 1  # of account ids
# A view with its arguments, the word that it decodes, and the bits of it that are each field's.
WORDS = [
    (
        ("account", LAST),
        LAST,
        {
            "collateral": (0, 96),
            "taker_sequence": (96, 144),
            "min_sequence": (144, 192),
            "open_positions": (192, 200),
        },
    ),
    (
        ("account", LAST),
        1 << 40 | LAST,
        {"owner": (0, 160), "sub_account": (160, 176), "action_sequence": (176, 224)},
    ),
    (
        ("position", LAST, 63),
        1 << 46 | LAST << 6 | 63,
        {"size": (0, 64), "entry_cumulative": (64, 192), "entry_mark": (192, 224)},
    ),
    (
        ("slot", LAST, 65_534),
        1 << 47 | LAST << 15 | 32_767,
        {"sequence": (0, 48), "filled": (48, 110), "triggered": (110, 111)},
    ),
    (
        ("slot", LAST, 65_535),
        1 << 47 | LAST << 15 | 32_767,
        {"sequence": (128, 176), "filled": (176, 238), "triggered": (238, 239)},
    ),
    (
        ("agent", LAST, "0x" + "ff" * 20),
        1 << 255 | LAST << 160 | 2**160 - 1,
        {"expiry": (0, 64), "transfer_cap": (64, 256)},
    ),
    (
        ("market_state", 63),
        2**39 + 256 + 63,
        {"cumulative_funding": (0, 128), "open_interest": (128, 192), "last_funding_hour": (192, 224)},
    ),
    (("claim", 2**40 - 1), 1 << 41 | 2**40 - 1, {"owner": (0, 160), "amount": (160, 256)}),
    (("claim", 2**40 - 1), 3 << 40 | 2**40 - 1, {"due": (0, 256)}),
    (
        ("totals",),
        2**39 + 512,
        {"batch_id": (0, 48), "inbox_head": (48, 111), "accounts": (112, 144), "claims": (144, 184)},
    ),
    (("totals",), 2**39 + 513, {"funding_pool": (0, 128), "dust": (128, 256)}),
    (("totals",), 2**39 + 514, {"credited": (0, 256)}),
]
SIGNED = {"collateral", "size", "entry_cumulative", "cumulative_funding", "funding_pool"}


def call(exchange: Exchange, signature: str, *arguments: int) -> bytes:
    """Calls the vault with a selector that its own code may not know."""
    types = signature[signature.index("(") + 1 : -1].split(",") if arguments else []
    data = keccak(signature.encode())[:4] + encode(types, arguments)
    return bytes(send(exchange, data).output)


def test_the_vault_answers_at_its_own_address(exchange: Exchange, maker: Party, taker: Party) -> None:
    """An account, its position and its slot, as stored; the words that they decode are the vault's."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000, 600_000)
    batch.settle()
    vault = exchange.vault
    assert decode(["uint256"], call(exchange, "market_count()")) == (len(exchange.markets),)
    assert vault.account(maker.account).open_positions == 1
    assert vault.position(maker.account, 0).size == -vault.position(taker.account, 0).size != 0
    assert (
        vault.account(maker.account).collateral
        == decode(
            ["(address,uint256,int256,uint256,uint256,uint256,uint256)"],
            call(exchange, "account(uint256)", maker.account),
        )[0][2]
    )
    assert vault.totals().credited == vault.word(2**39 + 514)


def test_ids_that_no_account_has(exchange: Exchange) -> None:
    """Unknown and overlong ids decode to nothing, whatever table such a key lies in."""
    vault = exchange.vault
    for account_id in (77, 2**39, 2**40 + 3, 2**200):
        assert vault.account(account_id).collateral == 0
        assert vault.position(account_id, 0).size == 0
        assert vault.slot(account_id, 1).sequence == 0
        assert vault.agent(account_id, exchange.sequencer).expiry == 0
    assert vault.account_of("0x" + "00" * 19 + "03", 0) == 0


def test_so_small_an_address_owns_nothing(exchange: Exchange) -> None:
    """Owners are named in the same table as the words of a running batch, which ends at 2^67: what is below is no owner's."""
    with boa.env.anchor():
        for owner, account in ((5 << 64, 0), (2**67 - 1, 0), (2**67, 77)):
            exchange.vault.write(owner, 77, sender=exchange.clerk.address)
            assert exchange.vault.account_of(f"0x{owner:040x}", 0) == account


@pytest.mark.parametrize("view, key, fields", WORDS)
def test_a_field_is_read_from_its_own_bits(exchange: Exchange, view, key: int, fields: dict) -> None:
    """Of the last account, market, slot and claim that can be: a field's first bit and its last are its own, the sign's where it
    has one; what no field has is told by none."""
    nothing = dict.fromkeys(fields, 0)
    unused = (1 << 256) - 1 - sum((1 << end) - (1 << first) for first, end in fields.values())
    cases = [(unused, nothing)]
    for name, (first, end) in fields.items():
        top = 1 << end - 1 - first
        cases += [(1 << first, nothing | {name: 1}), (1 << end - 1, nothing | {name: top})]
        if name in SIGNED:
            cases[-1] = (1 << end - 1, nothing | {name: -top})
        elif top == 1:
            del cases[-1]
    for word, expected in cases:
        with boa.env.anchor():
            exchange.vault.write(key, word, sender=exchange.clerk.address)
            answer = getattr(exchange.vault, view[0])(*view[1:])
            told = {name: getattr(answer, name) for name in fields}
            if "owner" in told:
                told["owner"] = int(str(told["owner"]), 16)
            assert told == expected, hex(word)


def test_the_last_market_is_counted_and_shown(exchange: Exchange) -> None:
    """There are as many markets as have a symbol, up to 64; a market's words are told in their order."""
    words = {number: 2**39 + 64 * number + 63 for number in (0, 1, 2, 4)}
    with boa.env.anchor():
        for number, key in words.items():
            exchange.vault.write(key, number + 100, sender=exchange.clerk.address)
        for market in range(len(exchange.markets), 64):
            assert exchange.vault.market_count() == market
            exchange.vault.write(2**39 + 192 + market, market + 1, sender=exchange.clerk.address)
        assert exchange.vault.market_count() == 64
        assert list(exchange.vault.market_words(63)) == [100, 101, 102, 64, 104]


def test_the_vaults_domain_is_told_field_by_field(exchange: Exchange) -> None:
    """EIP-5267: a wallet that asks the vault what it signs for gets the domain that signatures are checked under."""
    fields = decode(
        ["bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]"],
        call(exchange, "eip712Domain()"),
    )
    chain_id = boa.env.evm.patch.chain_id
    address = str(exchange.vault.address)
    assert fields == (b"\x0f", "Evermark", "1", chain_id, address.lower(), bytes(32), ())
    told = domain_separator(chain_id, bytes.fromhex(address[2:]))
    assert call(exchange, "domain_separator()") == told


def test_what_neither_knows_reverts(exchange: Exchange) -> None:
    """An unknown selector, an empty call, and ether sent along are refused."""
    for data in (keccak(b"upgrade()")[:4], b"", b"\x01"):
        with pytest.raises(Refused):
            send(exchange, data)
    boa.env.set_balance(exchange.sequencer, 1)
    paid = boa.env.execute_code(
        to_address=exchange.vault.address,
        sender=exchange.sequencer,
        data=keccak(b"market_count()")[:4],
        value=1,
    )
    assert paid.is_error


def test_the_lens_alone_has_nothing_to_show(exchange: Exchange) -> None:
    """Asked by anybody but a vault it has no words to read."""
    lens = boa.loads_abi(json.dumps(load_artifact("lens").abi)).at(exchange.lens.address)
    with pytest.raises(boa.BoaError):
        lens.totals()
