"""Signature scheme 1: one agent signature over the Merkle root of many orders, each of which proves its place under it."""

from dataclasses import replace
from types import SimpleNamespace

import boa
import pytest
from builders import SELECTOR, Builder, Exchange, Party, Row, refused, send, signer
from msgspec import NODEFAULT, structs

from evermark.protocol import batch as codec
from evermark.protocol import merkle, signing
from evermark.protocol.orders import Order, OrderBatch, Side, TimeInForce, Trigger

PRICE = 600_000
AGENT, OTHER = signer(77), signer(78)
ORDER_DEFAULTS = {
    field.name: field.default for field in structs.fields(Order) if field.default is not NODEFAULT
} | {"time_in_force": TimeInForce.GTC}


@pytest.fixture
def agent(exchange: Exchange, maker: Party, taker: Party) -> signing.Signer:
    """A session key of both traders."""
    batch = exchange.batch()
    for party in (maker, taker):
        batch.approve(party, AGENT.address, exchange.clock + 1_000)
    batch.settle()
    return AGENT


def asks(batch, party: Party, count: int) -> list[Row]:
    return [batch.order(party, Side.SELL, 10 + at, PRICE + at, slot=1 + at) for at in range(count)]


def take(batch, party: Party, rows: list[Row]) -> Row:
    """One order that fills them all."""
    taking = batch.order(party, Side.BUY, sum(row.order.size for row in rows), PRICE + 100)
    for row in rows:
        batch.fill(row, taking, row.order.size)
    return taking


def taken_together(
    exchange: Exchange, maker: Party, taker: Party, agent: signing.Signer, count: int
) -> Builder:
    """A batch whose first rows are asks that share a signature; one order takes them all."""
    batch = exchange.batch()
    rows = asks(batch, maker, count)
    batch.sign_together(rows, agent)
    take(batch, taker, rows)
    return batch


@pytest.mark.parametrize("count", [1, 2, 3, 20, 64])
def test_orders_of_one_signature_fill(
    exchange: Exchange, maker: Party, taker: Party, agent, count: int
) -> None:
    """Trees of every shape; rows of one root share one signature in the batch."""
    batch = exchange.batch()
    rows = asks(batch, maker, count)
    batch.sign_together(rows, agent)
    taking = take(batch, taker, rows)
    batch.settle()
    assert exchange.vault.position(taker.account, 0).size == taking.order.size
    assert exchange.vault.slot(maker.account, count).filled == 9 + count


def test_two_roots_and_plain_orders_side_by_side(
    exchange: Exchange, maker: Party, taker: Party, agent
) -> None:
    """Each root brings its signature, whatever stands between its rows; orders with triggers have their extension behind it, and
    what the batch's tables hold before its rows is passed over, fee classes as well."""
    batch = exchange.batch()
    batch.fee_classes = ((100, 400), (90, 300), (80, 200))
    rows = asks(batch, maker, 7)
    rows.append(
        batch.order(maker, Side.SELL, 5, PRICE, slot=9, trigger=Trigger.MARK_BELOW, trigger_price=PRICE)
    )
    batch.sign_together([rows[0], rows[2], rows[5], rows[7]], agent)
    batch.sign_together([rows[1], rows[4]], agent)
    batch.bits.append(rows[7])
    taking = take(batch, taker, rows)
    batch.sign_together([taking], agent)
    batch.settle()
    assert exchange.vault.position(maker.account, 0).size == -taking.order.size
    assert exchange.vault.slot(maker.account, 9).triggered


@pytest.mark.safety("D01", "contract")
@pytest.mark.parametrize(
    "fields",
    [
        *({"time_in_force": tif} for tif in (TimeInForce.GTC, TimeInForce.GTD)),
        *({"trigger": trigger, "trigger_price": PRICE} for trigger in Trigger if trigger),
        *({name: True} for name in ("amend", "reduce_only", "post_only")),
        {"display_size": 3},
        {"twap_interval": 60},
        {"trailing_offset": 9},
        {"bracket_link": 7},
        {"builder": bytes(19) + b"\x01"},
    ],
    ids=lambda fields: "-".join(str(part) for item in fields.items() for part in item)[:40],
)
def test_every_field_of_an_order_is_part_of_its_leaf(
    exchange: Exchange, maker: Party, taker: Party, agent, fields: dict
) -> None:
    """As the contract rebuilds it from the row: with the signed value it fills, with any other it is another order."""
    opening = exchange.batch()
    opening.trade(taker, maker, Side.BUY, 10, PRICE)
    opening.settle()
    other = {name: ORDER_DEFAULTS[name] for name in fields}
    if other == fields:
        other = {"time_in_force": TimeInForce.GTD}
    for changes in (other, fields):
        batch = exchange.batch()
        row = batch.order(maker, Side.SELL, 10, PRICE, slot=3, **fields)
        batch.sign_together([row], agent)
        row.order = structs.replace(row.order, **changes)
        if row.order.trigger in (Trigger.MARK_ABOVE, Trigger.MARK_BELOW):
            batch.bits.append(row)
        batch.fill(row, batch.order(taker, Side.BUY, 10, PRICE), 10)
        if changes is other:
            with refused("vault: not a live agent"):
                batch.settle()
        else:
            batch.settle()
    assert exchange.vault.position(maker.account, 0).size == 0


@pytest.mark.parametrize("time_in_force", [TimeInForce.IOC, TimeInForce.FOK])
def test_an_order_that_never_rests_comes_in_a_batch_too(
    exchange: Exchange, maker: Party, taker: Party, agent, time_in_force: TimeInForce
) -> None:
    """As a taker, under its own word; under the other one it is not the order that was signed."""
    for signed in (TimeInForce.IOC, TimeInForce.FOK):
        batch = exchange.batch()
        taking = batch.order(taker, Side.BUY, 10, PRICE, time_in_force=signed)
        batch.sign_together([taking], agent)
        taking.order = structs.replace(taking.order, time_in_force=time_in_force)
        batch.fill(batch.order(maker, Side.SELL, 10, PRICE, slot=1), taking, 10)
        if signed is time_in_force:
            batch.settle()
        else:
            with refused("vault: not a live agent"):
                batch.settle()


def caller_of(verifier: str) -> SimpleNamespace:
    """In place of an exchange: a vault whose words are zero, which has the verifier look at whatever it is sent."""
    source = f"""
@external
def settle() -> uint256:
    return convert(raw_call({verifier}, msg.data, max_outsize=32, is_static_call=True), uint256)

@external
def clerk_task() -> (uint256, address, address):
    return 0, self, self

@external
def word(key: uint256) -> uint256:
    return 0
"""
    return SimpleNamespace(vault=boa.loads(source), sequencer=boa.env.generate_address())


def test_a_row_of_a_batch_names_a_pair_and_a_trigger_that_exist(
    exchange: Exchange, maker: Party, taker: Party, agent
) -> None:
    """A pair beyond the table, and the trigger codes 5 to 7, are refused; the pair by the verifier too, whoever calls it."""
    batch = taken_together(exchange, maker, taker, agent, 1)
    built = batch.build()
    data = bytearray(SELECTOR + codec.encode_batch(built))
    flags_at = row_end(bytes(data), built) - 23 - codec.byte_width(built.orders[0].order.size)
    pairs = len(built.pairs)
    for pair in (pairs, 65_535):
        bad = data[: flags_at + 2] + pair.to_bytes(2, "big") + data[flags_at + 4 :]
        for asked in (exchange, caller_of(exchange.verifier.address)):
            with refused("vault: no such pair"):
                send(asked, bytes(bad))
    flags = int.from_bytes(data[flags_at : flags_at + 2], "big")
    for code in (5, 6, 7):
        bad = data[:flags_at] + (flags | code << 7).to_bytes(2, "big") + data[flags_at + 2 :]
        with refused("vault: unknown trigger"):
            send(exchange, bytes(bad))
    send(exchange, bytes(data))


@pytest.mark.parametrize("verified", [0, 1, 2, 3, 2**255])
def test_the_verifier_answers_for_every_row(
    exchange: Exchange, maker: Party, taker: Party, agent, verified: int
) -> None:
    """The vault takes its word when it names all rows that are not the vault's own to verify, and no other number."""
    batch = taken_together(exchange, maker, taker, agent, 2)
    data = batch.data()
    source = f"""
@view
@external
def settle() -> uint256:
    return {verified}
"""
    boa.loads(source, override_address=exchange.verifier.address)
    if verified == 2:
        send(exchange, data)
        return
    with refused("vault: rows not verified"):
        send(exchange, data)


def test_fills_of_a_batch_order_continue_later(exchange: Exchange, maker: Party, taker: Party, agent) -> None:
    """Replay protection is the slot's, as for every order: in sum never more than its size."""
    batch = exchange.batch()
    rows = asks(batch, maker, 3)
    batch.sign_together(rows, agent)
    batch.fill(rows[2], batch.order(taker, Side.BUY, 5, PRICE + 2), 5)
    batch.rows = [row for row in batch.rows if row not in rows[:2]]
    batch.settle()
    for size, passes in ((8, False), (7, True)):
        batch = exchange.batch()
        batch.fill(batch.again(rows[2]), batch.order(taker, Side.BUY, size, PRICE + 2), size)
        if passes:
            batch.settle()
        else:
            with refused("vault: order overfilled"):
                batch.settle()


@pytest.mark.safety("D12", "contract")
@pytest.mark.safety("F02", "contract")
def test_only_a_live_agent_signs_blindly(exchange: Exchange, maker: Party, taker: Party, agent) -> None:
    """The owner's own signature of a root is refused, even of one that approved itself; a stranger's and an expired key's too."""

    def settle(by: signing.Signer) -> None:
        batch = exchange.batch()
        rows = asks(batch, maker, 2)
        batch.sign_together(rows, by)
        take(batch, taker, rows)
        batch.settle()

    with refused("vault: owner signed blindly"):
        settle(maker.signer)
    batch = exchange.batch()
    batch.approve(maker, maker.signer.address, exchange.clock + 1_000)
    batch.settle()
    with refused("vault: owner signed blindly"):
        settle(maker.signer)
    with refused("vault: not a live agent"):
        settle(OTHER)
    settle(agent)
    exchange.round(seconds=1_010)
    with refused("vault: not a live agent"):
        settle(agent)


@pytest.mark.safety("D02", "contract")
@pytest.mark.safety("F02", "contract")
def test_nothing_but_a_leaf_is_an_order(exchange: Exchange, maker: Party, taker: Party, agent) -> None:
    """An order that the root does not hold, another's path, a changed order, an untagged tree: each leads to another root."""
    batch = taken_together(exchange, maker, taker, agent, 4)
    rows = batch.rows[:4]
    good = rows[1].path
    assert good is not None
    elsewhere = "vault: not a live agent"
    for path in (
        rows[2].path,
        good[:-1],
        (*good, (True, bytes(32))),
        ((not good[0][0], good[0][1]), *good[1:]),
    ):
        alone = exchange.batch()
        row = replace(rows[1], path=path, index=-1)
        alone.rows = [row]
        alone.fill(row, alone.order(taker, Side.BUY, 1, PRICE + 9), 1)
        with refused(elsewhere):
            alone.settle()
    changed = exchange.batch()
    row = replace(rows[1], order=structs.replace(rows[1].order, size=10**6), index=-1)
    changed.rows = [row]
    changed.fill(row, changed.order(taker, Side.BUY, 1, PRICE + 9), 1)
    with refused(elsewhere):
        changed.settle()
    # With an inner node in place of a leaf the tags differ, so its hash is no order's.
    hashes = [signing.struct_hash(row.order) for row in rows]
    left = merkle.merkle_root(hashes[:2])
    assert merkle.merkle_root([left, merkle.merkle_root(hashes[2:])]) != merkle.merkle_root(hashes)


def test_a_root_is_signed_for_this_vault(exchange: Exchange, maker: Party, taker: Party, agent) -> None:
    """Under another domain the signature is nobody's."""
    batch = exchange.batch()
    rows = asks(batch, maker, 2)
    batch.sign_together(rows, agent)
    root, _ = merkle.merkle_paths([signing.struct_hash(row.order) for row in rows])
    foreign = agent.sign(signing.digest(signing.domain_separator(1, b"\x07" * 20), OrderBatch(root=root)))
    for row in rows:
        row.signature = foreign
    take(batch, taker, rows)
    with refused("vault: not a live agent"):
        batch.settle()


@pytest.mark.safety("D03", "contract")
@pytest.mark.safety("D04", "contract")
def test_malleable_and_empty_signatures_are_refused(
    exchange: Exchange, maker: Party, taker: Party, agent
) -> None:
    """High s, and a signature from which no key recovers."""
    batch = taken_together(exchange, maker, taker, agent, 2)
    rows = batch.rows[:2]
    good = rows[0].signature
    high = signing.Signature(good.r, signing.SECP256K1_N - good.s, 1 - good.parity)
    for signature, reason in ((high, "vault: high s"), (signing.Signature(0, 1, 0), "vault: no signer")):
        for row in rows:
            row.signature = signature
        with refused(reason):
            batch.settle()


def row_end(data: bytes, batch: codec.Batch) -> int:
    """Where the evidence of the first row begins in `data`, which encodes `batch`."""
    head = 4 + 81 + 1 + 4 * len(batch.fee_classes) + 1 + len(batch.markets) + 2 + 4 * len(batch.accounts)
    return head + 2 + 3 * len(batch.pairs) + 4 + 23 + codec.byte_width(batch.orders[0].order.size)


def resized(data: bytes, at: int, change: int) -> bytes:
    """The batch with another number of bytes in its rows; it stands at `at`."""
    return data[:at] + (int.from_bytes(data[at : at + 2], "big") + change).to_bytes(2, "big") + data[at + 2 :]


def test_malformed_evidence_is_refused(exchange: Exchange, maker: Party, taker: Party, agent) -> None:
    """Lengths that fit no path, an unknown kind, sides beyond the path, a first row that points before itself, and reserved
    schemes."""
    batch = taken_together(exchange, maker, taker, agent, 2)
    built = batch.build()
    data = SELECTOR + codec.encode_batch(built)
    at = row_end(data, built)
    assert data[at : at + 2] == (2 + 32 + 64).to_bytes(2, "big")
    for offset, value in ((3, b"\x03"), (2, b"\x02"), (2, b"\xff")):
        bad = data[: at + offset] + value + data[at + offset + 1 :]
        with refused("vault: malformed evidence"):
            send(exchange, bad)
    shorter = data[:at] + (2 + 31 + 64).to_bytes(2, "big") + data[at + 2 : at + 4] + data[at + 5 :]
    flags_at = at - 23 - codec.byte_width(built.orders[0].order.size)
    with refused("vault: malformed evidence"):
        send(exchange, resized(shorter, flags_at - 4, -1))
    pointing = (
        data[:at]
        + (2 + 32).to_bytes(2, "big")
        + data[at + 2 : at + 3]
        + b"\x02"
        + data[at + 4 : at + 36]
        + data[at + 100 :]
    )
    with refused("vault: another root"):
        send(exchange, resized(pointing, flags_at - 4, -64))
    with refused("vault: trailing bytes"):
        end = flags_at + int.from_bytes(data[flags_at - 4 : flags_at - 2], "big")
        send(exchange, resized(data[:end] + bytes(3) + data[end:], flags_at - 4, 3))
    for scheme in (2, 3):
        flags = int.from_bytes(data[flags_at : flags_at + 2], "big") & 0x3FFF | scheme << 14
        with refused("vault: scheme reserved"):
            send(exchange, data[:flags_at] + flags.to_bytes(2, "big") + data[flags_at + 2 :])


@pytest.mark.parametrize("siblings", [9, 31, 512])
def test_a_path_has_eight_siblings_at_most(
    exchange: Exchange, maker: Party, taker: Party, agent, siblings: int
) -> None:
    """As many as there are bits for their sides, for 256 orders: a longer one runs into the bound of the verifier's loop."""
    batch = taken_together(exchange, maker, taker, agent, 2)
    built = batch.build()
    data = SELECTOR + codec.encode_batch(built)
    at = row_end(data, built)
    longer = data[:at] + (2 + 32 * siblings + 64).to_bytes(2, "big") + data[at + 2 : at + 4]
    longer += bytes(32 * (siblings - 1)) + data[at + 4 :]
    size_at = at - 23 - codec.byte_width(built.orders[0].order.size) - 4
    with refused(""):
        send(exchange, resized(longer, size_at, 32 * (siblings - 1)))
    batch = exchange.batch()
    rows = [batch.order(maker, Side.SELL, 1, PRICE, slot=slot) for slot in range(1, 257)]
    batch.sign_together(rows, agent)
    batch.rows = rows[255:]
    assert len(rows[255].path or ()) == 8
    take(batch, taker, rows[255:])
    batch.settle()
