"""The batch as a whole: its header, its tables, its bytes. Nothing settles twice, late, aliased, cut or lengthened."""

import boa
import pytest
from boa.util.abi import Address
from builders import SELECTOR, USDC, Exchange, Party, Refused, deployer, events, refused, send, signer
from eth_hash.auto import keccak
from msgspec import structs

from evermark.protocol import batch as codec
from evermark.protocol.orders import Side

PRICE = 600_000


def a_trade(exchange: Exchange, maker: Party, taker: Party, **header: object):
    batch = exchange.batch(**header)
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    return batch


def test_a_batch_announces_itself(exchange: Exchange, maker: Party, taker: Party) -> None:
    """BatchSettled carries the round, the journal's head and the hash of the calldata behind the selector."""
    data = a_trade(exchange, maker, taker).data()
    (event,) = events(exchange, send(exchange, data), "BatchSettled")
    assert event.batch_id == exchange.vault.totals().batch_id
    assert event.round == exchange.pinned.round
    assert (event.journal_sequence, event.journal_hash) == (7, b"\x07" * 32)
    assert event.batch_hash == keccak(data[4:])


def test_a_large_batch_has_its_hash_too(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Beyond 2 KB another buffer hashes the same bytes."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 1_000, PRICE, slot=1)
    for _ in range(30):
        batch.fill(resting, batch.order(taker, Side.BUY, 5, PRICE), 5)
    data = batch.data()
    assert len(data) > 2_500
    (event,) = events(exchange, send(exchange, data), "BatchSettled")
    assert event.batch_hash == keccak(data[4:])


@pytest.mark.safety("F02", "contract")
def test_only_the_sequencer_settles(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The same bytes are refused from anybody else."""
    data = a_trade(exchange, maker, taker).data()
    with refused("vault: not only overdue work"):
        send(exchange, data, sender=boa.env.generate_address())
    send(exchange, data)


@pytest.mark.safety("E03", "contract")
def test_a_batch_settles_once_and_in_order(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A replayed id, a skipped id and an old id are refused."""
    data = a_trade(exchange, maker, taker).data()
    send(exchange, data)
    with refused("vault: batch id not next"):
        send(exchange, data)
    last = exchange.vault.totals().batch_id
    for batch_id in (last, last + 2):
        with refused("vault: batch id not next"):
            a_trade(exchange, maker, taker, batch_id=batch_id).settle()


@pytest.mark.safety("A11", "contract")
def test_prices_are_the_pinned_rounds(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A round that was never posted, and a hash of other prices, are refused."""
    with pytest.raises(Refused):
        a_trade(exchange, maker, taker, round=exchange.pinned.round + 1).settle()
    with refused("vault: prices hash differs"):
        a_trade(exchange, maker, taker, prices_hash=bytes(32)).settle()


@pytest.mark.safety("A01", "contract")
@pytest.mark.safety("E18", "contract")
def test_a_batch_is_at_most_two_minutes_old(exchange: Exchange, maker: Party, taker: Party) -> None:
    """120 seconds after its round a batch settles, 121 seconds after it does not without a newer round."""
    boa.env.timestamp = exchange.clock + 121
    with refused("vault: no recent round"):
        a_trade(exchange, maker, taker).settle()
    boa.env.timestamp = exchange.clock + 120
    a_trade(exchange, maker, taker).settle()


def tables(exchange: Exchange, maker: Party, taker: Party, **changes: object) -> bytes:
    return a_trade(exchange, maker, taker, **changes).data()


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"markets": (0, 0)}, "vault: markets not ascending"),
        ({"markets": (1, 0)}, "vault: markets not ascending"),
        ({"markets": (0, 4)}, "vault: no such market"),
        ({"markets": (0, 200)}, "vault: no such market"),
        ({"markets": (1,)}, "vault: market not in table"),
        ({"accounts": (3, 3)}, "vault: accounts not ascending"),
        ({"accounts": (4, 3)}, "vault: accounts not ascending"),
        ({"accounts": (0, 3)}, "vault: accounts not ascending"),
        ({"pairs": ((0, 0), (0, 0))}, "vault: pairs not ascending"),
        ({"pairs": ((1, 0), (0, 0))}, "vault: pairs not ascending"),
        ({"pairs": ((0, 0), (2, 0))}, "vault: no such account index"),
        ({"pairs": ((0, 0), (1, 3))}, "vault: market not in table"),
        ({"fee_classes": ()}, "vault: no such fee class"),
    ],
)
def test_tables_ascend_strictly(
    exchange: Exchange, maker: Party, taker: Party, changes: dict, reason: str
) -> None:
    """No table entry can stand twice or name what is not there, so nothing aliases."""
    with refused(reason):
        send(exchange, tables(exchange, maker, taker, **changes))


@pytest.mark.safety("D05", "contract")
def test_a_row_cannot_stand_twice(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The same order under two rows would fill twice: rows ascend strictly by account, slot and sequence."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1)
    alias = batch.again(resting)
    taking = batch.order(taker, Side.BUY, 20, PRICE)
    batch.fill(resting, taking, 10)
    batch.fill(alias, taking, 10)
    with refused("vault: rows not ascending"):
        batch.settle()


@pytest.mark.parametrize("first, second", [(2, 0), (0, 2), (65_535, 0)])
def test_fills_name_rows_that_exist(
    exchange: Exchange, maker: Party, taker: Party, first: int, second: int
) -> None:
    """A row index beyond the table is refused."""
    batch = a_trade(exchange, maker, taker, fills=(codec.Fill(codec.FILL_ORDERS, first, second, 10),))
    with refused("vault: no such order row"):
        batch.settle()


def test_rows_name_pairs_that_exist(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A row whose pair is beyond the table is refused."""
    batch = a_trade(exchange, maker, taker, pairs=((0, 0),))
    with refused("vault: no such pair"):
        batch.settle()


@pytest.mark.parametrize("kind", [8, 15])
def test_reserved_fill_kinds_are_refused(exchange: Exchange, maker: Party, taker: Party, kind: int) -> None:
    """Kinds without a rule."""
    batch = a_trade(exchange, maker, taker, fills=(codec.Fill(kind, 0, 1, 10),))
    with refused("vault: fill kind reserved"):
        batch.settle()


def test_reserved_sections_and_schemes_are_refused(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Unknown actions, resolutions and other signature schemes are tags without a rule yet."""
    empty = exchange.batch()
    data = empty.data()
    unknown = data[:-7] + b"\0\x01\x09" + bytes(60) + b"\0" * 5
    with refused("vault: action reserved"):
        exchange_with_account(exchange, unknown, maker)
    resolution = data[:-5] + b"\x01\x03" + bytes(4) + bytes(4)
    with refused("vault: funding tag reserved"):
        send(exchange, resolution)
    built = a_trade(exchange, maker, taker).build()
    row = structs.replace(built.orders[0], path=())
    evidence = codec.encode_batch(structs.replace(built, orders=(row, *built.orders[1:])))
    at = evidence.index(b"\x00\x42\x00") - 24  # length 66, no sides: one order under a root
    for scheme in (2, 3):
        reserved = evidence[:at] + bytes([evidence[at] & 0x3F | scheme << 6]) + evidence[at + 1 :]
        with refused("vault: scheme reserved"):
            send(exchange, SELECTOR + reserved)


def exchange_with_account(exchange: Exchange, transfer: bytes, maker: Party) -> None:
    """Adds an account to an empty batch, so that action tags can be reached."""
    at = 4 + 81 + 1 + 4 + 1
    send(exchange, transfer[:at] + b"\0\x01" + maker.account.to_bytes(4, "big") + transfer[at + 2 :])


@pytest.mark.safety("E01", "contract")
def test_a_batch_is_all_or_nothing(exchange: Exchange, maker: Party, taker: Party) -> None:
    """One bad fill after good ones: nothing of the batch has happened."""
    before = exchange.vault.account(taker.account), exchange.vault.totals()
    batch = a_trade(exchange, maker, taker)
    batch.fill(batch.rows[0], batch.rows[1], 1)
    with refused("vault: order overfilled"):
        batch.settle()
    assert (exchange.vault.account(taker.account), exchange.vault.totals()) == before


def test_every_truncation_is_refused(exchange: Exchange, maker: Party, taker: Party) -> None:
    """No prefix of a valid batch settles."""
    data = a_trade(exchange, maker, taker).data()
    for length in range(4, len(data)):
        with pytest.raises(Refused):
            send(exchange, data[:length])


@pytest.mark.parametrize("tail", [b"\0", b"\0\0", b"\xff" * 32])
def test_trailing_bytes_are_refused(exchange: Exchange, maker: Party, taker: Party, tail: bytes) -> None:
    """The whole input is consumed exactly."""
    with refused("vault: trailing bytes"):
        send(exchange, a_trade(exchange, maker, taker).data() + tail)


@pytest.mark.safety("F02", "contract")
def test_no_single_byte_changes_what_was_signed(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A batch with any one byte changed is refused, or means the same to everybody but in what the sequencer may choose:
    journal head, fee rates within the signed maximum, fill size within the signed one."""
    exchange.deposit(6, 1_000 * USDC)
    exchange.round()
    data = a_trade(exchange, maker, taker).data()
    others = [1, 5, 6]
    for at in range(4, len(data)):
        for bit in (0x01, 0x40):
            changed = bytearray(data)
            changed[at] ^= bit
            with boa.env.anchor():
                before = [exchange.vault.account(account) for account in others]
                try:
                    send(exchange, bytes(changed))
                except Refused:
                    continue
                assert [exchange.vault.account(account) for account in others] == before
                size = exchange.vault.position(taker.account, 0).size
                assert 0 < size <= 10
                assert exchange.vault.position(maker.account, 0).size == -size
                paid = 100_000 * USDC - exchange.vault.account(taker.account).collateral
                assert paid <= size * PRICE + -(-size * PRICE * 1_000 // 10**6)
                exchange.check_invariants()


def test_an_empty_batch_settles(exchange: Exchange) -> None:
    """No operation is an operation: ids go on."""
    before = exchange.vault.totals()
    exchange.batch().settle()
    assert exchange.vault.totals() == before._replace(batch_id=before.batch_id + 1)


def test_unknown_accounts_cannot_trade(exchange: Exchange, maker: Party) -> None:
    """An id that nobody registered has no owner and no orders; neither has a reserved account."""
    for account in (1, 2, 77):
        batch = exchange.batch()
        stranger = Party(signer(50), account)
        batch.trade(maker, stranger, Side.BUY, 10, PRICE)
        with refused("vault: unknown account"):
            batch.settle()


def test_the_selector_alone_is_no_batch(exchange: Exchange) -> None:
    """Four bytes are refused."""
    with pytest.raises(Refused):
        send(exchange, SELECTOR)


def test_a_batch_has_a_largest_size(exchange: Exchange) -> None:
    """Above 32,768 bytes nothing is even looked at."""
    data = exchange.batch().data()
    with refused("vault: batch too large"):
        send(exchange, data + bytes(32_769 - len(data)))
    with refused("vault: trailing bytes"):
        send(exchange, data + bytes(32_768 - len(data)))


def test_nothing_hides_behind_the_rows(exchange: Exchange, maker: Party, taker: Party) -> None:
    """They end where the batch says that they do, and a byte between them and section 1 is refused."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    data = batch.data()
    at = 4 + 81 + 5 + 2 + 2 + 2 * 4 + 2 + 2 * 3
    length = int.from_bytes(data[at : at + 2], "big")
    assert data[at + 2 : at + 4] == b"\0\2"
    end = at + 4 + length
    with refused("vault: trailing bytes"):
        send(exchange, data[:at] + (length + 1).to_bytes(2, "big") + data[at + 2 : end] + b"\0" + data[end:])
    send(exchange, data)


def test_a_batch_names_512_accounts_at_most(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Whether they are there or not; all of them may be asked for, the last one too."""
    for count in (513, 512):
        exchange.inbox.deposit(USDC, 0, sender=exchange.fund_wallet(maker.signer, USDC))
        batch = exchange.batch()
        batch.accounts = set(range(1, count + 1))
        batch.inbox(maker.account)
        batch.trade(maker, taker, Side.BUY, 10, PRICE)
        if count == 512:
            batch.settle()
        else:
            with refused(""):
                batch.settle()


def test_unknown_triggers_are_refused(exchange: Exchange, maker: Party) -> None:
    """Trigger codes 5 to 7 have no word to sign."""
    batch = exchange.batch()
    batch.order(maker, Side.SELL, 10, PRICE, slot=1)
    data = bytearray(batch.data())
    flags_at = 4 + 81 + 5 + 2 + 6 + 5 + 4
    assert data[flags_at - 2 : flags_at] == b"\0\1"
    for code in (5, 6, 7):
        changed = bytearray(data)
        changed[flags_at : flags_at + 2] = (
            int.from_bytes(data[flags_at : flags_at + 2], "big") | code << 7
        ).to_bytes(2, "big")
        with refused("vault: unknown trigger"):
            send(exchange, bytes(changed))


@pytest.mark.safety("F02", "contract")
def test_two_batches_in_one_transaction(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The second batch reads nothing that the first left in the running tables: it settles as it would alone, and names
    nothing by the first one's tables."""
    first = a_trade(exchange, maker, taker).data()
    last = exchange.vault.totals().batch_id
    second = exchange.batch(batch_id=last + 2)
    second.trade(taker, exchange.parties[5], Side.BUY, 7, PRICE)
    borrowed = exchange.batch(batch_id=last + 2, markets=())
    borrowed.trade(maker, taker, Side.BUY, 7, PRICE)
    twice = deployer("Twice").deploy(exchange.vault.address, override_address=exchange.sequencer)
    with boa.reverts("vault: market not in table"):
        twice.settle(first, borrowed.data())
    twice.settle(first, second.data())
    assert exchange.vault.totals().batch_id == last + 2
    assert exchange.vault.position(taker.account, 0).size == 10 - 7
    assert exchange.vault.position(5, 0).size == 7


def test_the_fee_account_is_never_negative(exchange: Exchange) -> None:
    """Nor above 72 bits, whichever of the vault's contracts writes it: its word says what was paid, and the counters stay."""
    before = exchange.vault.totals()
    word = exchange.vault.word(2) >> 96 << 96
    for collateral in (2**96 - 1, 2**72, 2**95):
        with boa.reverts("vault: collateral out of range"):
            exchange.vault.write(2, word | collateral, sender=exchange.backstop.address)
    with boa.env.anchor():
        for collateral in (2**72 - 1, 0):
            exchange.vault.write(2, word | collateral, sender=exchange.backstop.address)
            assert exchange.vault.account(2).collateral == collateral
            assert exchange.vault.totals() == before


def test_a_short_address_lies_among_no_other_words(exchange: Exchange) -> None:
    """Nobody owns one, but if somebody did: its account is found by it, and nothing else is."""
    for owner in (2**48, 2**63 + 7, 2**64 - 1, 2**67):
        address = Address(owner.to_bytes(20, "big"))
        exchange.token.mint(address, 50 * USDC)
        exchange.token.approve(exchange.inbox.address, 50 * USDC, sender=address)
        exchange.inbox.deposit(50 * USDC, 0, sender=address)
        assert exchange.vault.word(owner) == 0
        account = exchange.vault.totals().accounts + 1
        batch = exchange.batch()
        batch.inbox(account)
        batch.settle()
        assert exchange.vault.word(owner) == account
        assert exchange.vault.account(account).collateral == 50 * USDC
