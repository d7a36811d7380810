"""Accepting, mining, refusing and replacing transactions."""

import pytest
from devnet_cases import error, result, transfer
from web3.exceptions import Web3RPCError

from evermark.devnet import Devnet, DevnetConfig


async def test_transfer_is_mined_at_once(w3, sender, receiver):
    """A transfer moves its value, and block, receipt and transaction agree about it."""
    before = await w3.eth.get_balance(receiver.address)
    sent = await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 0, value=5))
    receipt = await w3.eth.wait_for_transaction_receipt(sent)
    assert (receipt["status"], receipt["gasUsed"], receipt["blockNumber"]) == (1, 21_000, 1)
    assert await w3.eth.get_balance(receiver.address) == before + 5
    block = await w3.eth.get_block(1, full_transactions=True)
    transaction = await w3.eth.get_transaction(sent)
    assert block["transactions"][0]["hash"] == transaction["hash"] == sent
    assert block["hash"] == receipt["blockHash"] == transaction["blockHash"]
    assert await w3.eth.get_block(block["hash"]) == await w3.eth.get_block("latest")


async def test_legacy_transaction_is_mined(w3, sender, receiver):
    """Wallets that know no EIP-1559 still work; without a chain id they are refused."""
    legacy = {"to": receiver.address, "value": 1, "gas": 21_000, "gasPrice": 10**10, "nonce": 0}
    signed = sender.sign_transaction({**legacy, "chainId": 31337})
    receipt = await w3.eth.wait_for_transaction_receipt(
        await w3.eth.send_raw_transaction(signed.raw_transaction)
    )
    assert receipt["type"] == 0
    assert receipt["effectiveGasPrice"] == 10**10
    unprotected = sender.sign_transaction({**legacy, "nonce": 1})
    with pytest.raises(Web3RPCError, match="replay-protected"):
        await w3.eth.send_raw_transaction(unprotected.raw_transaction)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"nonce": 0, "value": 2}, "nonce too low"),
        ({"chainId": 1}, "invalid chain id: 1"),
        ({"value": 10**30}, "insufficient funds"),
        ({"gas": 20_000}, "intrinsic gas too low"),
        ({"gas": 2**24 + 1}, "gas limit too high"),
    ],
)
async def test_what_no_block_can_hold_is_refused(w3, sender, receiver, fields, reason):
    """The reason is in the answer, and the right transaction goes through afterwards."""
    await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 0))
    with pytest.raises(Web3RPCError, match=reason):
        await w3.eth.send_raw_transaction(transfer(sender, receiver.address, **{"nonce": 1, **fields}))
    await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 1))
    assert await w3.eth.get_transaction_count(sender.address) == 2


@pytest.mark.parametrize("raw", ["0x", "0x02", "0xc0", "0x03aabb", "0x09ff", "0x" + "ff" * 40])
async def test_garbage_is_no_transaction(devnet, raw):
    """Undecodable bytes are refused with an error, not a crash."""
    assert (await error(devnet.url, "eth_sendRawTransaction", raw))["code"] == -32000


async def test_same_transaction_is_known(w3, sender, receiver):
    """Sending twice answers "already known"."""
    raw = transfer(sender, receiver.address, 0)
    await w3.eth.send_raw_transaction(raw)
    with pytest.raises(Web3RPCError, match="already known"):
        await w3.eth.send_raw_transaction(raw)


async def test_later_nonce_waits_for_the_gap(w3, sender, receiver):
    """A nonce ahead of its turn waits; once the gap is filled, both are mined."""
    early = await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 1))
    assert await w3.eth.block_number == 0
    assert (await w3.eth.get_transaction(early)).get("blockNumber") is None
    await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 0))
    assert (await w3.eth.get_transaction_receipt(early))["blockNumber"] == 1
    assert await w3.eth.get_transaction_count(sender.address) == 2


async def test_replacement_needs_a_tenth_more(w3, sender, receiver):
    """A waiting transaction is replaced by one that pays at least 10 % more, and by no other."""
    first = await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 1, fee_gwei=30))
    with pytest.raises(Web3RPCError, match="replacement transaction underpriced"):
        await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 1, value=2, fee_gwei=32))
    second = await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 1, value=2, fee_gwei=33))
    await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 0))
    assert (await w3.eth.get_transaction_receipt(second))["status"] == 1
    assert first not in (await w3.eth.get_block(1))["transactions"]


async def test_fee_below_the_base_fee_waits(w3, sender, receiver):
    """A transaction that pays less than the base fee stays in the pool until it is replaced."""
    await w3.eth.send_raw_transaction(
        transfer(sender, receiver.address, 0, maxFeePerGas=10, maxPriorityFeePerGas=1)
    )
    assert await w3.eth.block_number == 0
    assert await w3.eth.get_transaction_count(sender.address, "pending") == 1
    await w3.eth.send_raw_transaction(transfer(sender, receiver.address, 0))
    assert await w3.eth.get_transaction_count(sender.address) == 1


async def test_interval_mining_gathers_transactions(sender, receiver):
    """With a block time, transactions wait for the next block and share it."""
    devnet = Devnet(DevnetConfig(port=0, block_time_s=3600.0))
    await devnet.start()
    try:
        for nonce in range(3):
            raw = "0x" + transfer(sender, receiver.address, nonce).hex()
            await result(devnet.url, "eth_sendRawTransaction", raw)
        assert await result(devnet.url, "eth_blockNumber") == "0x0"
        await result(devnet.url, "evm_mine")
        assert len((await result(devnet.url, "eth_getBlockByNumber", "0x1", False))["transactions"]) == 3
    finally:
        await devnet.stop()
