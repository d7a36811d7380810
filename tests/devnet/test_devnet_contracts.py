"""Contracts on the devnet: reverts with their reasons, logs, filters, estimates, state of the past."""

import pytest
from devnet_cases import error, result
from web3.exceptions import ContractLogicError

from evermark.chain.artifacts import load_artifact
from evermark.chain.transactions import TransactionReverted, TransactionSender
from evermark.devnet import dev_key


@pytest.fixture
async def token(w3):
    """The test token, deployed by account 0."""
    artifact = load_artifact("token")
    receipt = await TransactionSender(w3, dev_key(0)).send(None, artifact.creation_code())
    return w3.eth.contract(address=receipt["contractAddress"], abi=artifact.abi)


@pytest.fixture
def owner(w3):
    return TransactionSender(w3, dev_key(0))


async def mint(token, owner, to, amount):
    return await owner.send(token.address, token.encode_abi("mint", args=[to, amount]))


async def test_a_call_tells_why_it_reverts(devnet, token, receiver):
    """Error code 3, the decoded reason in the message and the revert data, as public nodes answer."""
    call = token.functions.transfer(receiver.address, 5)
    with pytest.raises(ContractLogicError) as caught:
        await call.call({"from": receiver.address})
    reason = caught.value.message.removeprefix("execution reverted: ")
    data = call._encode_transaction_data()
    answer = await error(devnet.url, "eth_call", {"to": token.address, "data": data}, "latest")
    assert answer["code"] == 3
    assert answer["message"] == f"execution reverted: {reason}"
    assert answer["data"].startswith("0x08c379a0")
    assert reason.startswith("usdc: ")


async def test_a_reverted_transaction_has_a_receipt(w3, token, owner, receiver):
    """It is mined with status 0, uses gas, and the sender learns the reason."""
    data = token.encode_abi("transfer", args=[receiver.address, 5])
    with pytest.raises(TransactionReverted, match="usdc: ") as caught:
        await owner.send(token.address, data, gas=100_000)
    receipt = caught.value.receipt
    assert receipt["status"] == 0
    assert receipt["logs"] == []
    assert 21_000 < receipt["gasUsed"] < 100_000


async def test_estimates_suffice_and_refuse(w3, token, owner, receiver):
    """An estimate is enough gas and not wildly more; of a call that reverts there is none."""
    call = token.functions.mint(receiver.address, 10)
    estimate = await call.estimate_gas({"from": owner.address})
    receipt = await owner.send(
        token.address, token.encode_abi("mint", args=[receiver.address, 10]), gas=estimate
    )
    assert receipt["gasUsed"] <= estimate <= 2 * receipt["gasUsed"]
    with pytest.raises(ContractLogicError, match="usdc: "):
        await token.functions.transfer(owner.address, 11).estimate_gas({"from": receiver.address})


async def test_logs_are_found_by_every_key(w3, token, owner, sender, receiver):
    """By range, address, topics in each position, alternatives of a topic, and block hash."""
    first = await mint(token, owner, sender.address, 1)
    second = await mint(token, owner, receiver.address, 2)
    event = token.events.Transfer
    assert [log["args"]["amount"] for log in await event.get_logs(from_block=0)] == [1, 2]
    to_receiver = {"receiver": receiver.address}
    assert len(await event.get_logs(from_block=0, argument_filters=to_receiver)) == 1
    either = {"receiver": [receiver.address, sender.address]}
    assert len(await event.get_logs(from_block=0, argument_filters=either)) == 2
    assert len(await event.get_logs(block_hash=second["blockHash"])) == 1
    assert await event.get_logs(from_block=first["blockNumber"] - 1, to_block=first["blockNumber"] - 1) == []
    assert await w3.eth.get_logs({"fromBlock": 0, "address": owner.address}) == []
    assert await w3.eth.get_logs({"fromBlock": 0, "topics": [None, None, None, "0x" + "00" * 32]}) == []
    assert await w3.eth.get_logs({"fromBlock": 999}) == []
    assert second["logs"][0]["logIndex"] == 0


async def test_filters_give_what_is_new(w3, token, owner, receiver):
    """A log filter and a block filter give each change once; an uninstalled filter is gone."""
    logs = await token.events.Transfer.create_filter(from_block="latest")
    blocks = await w3.eth.filter("latest")
    assert await logs.get_new_entries() == []
    receipt = await mint(token, owner, receiver.address, 3)
    assert [log["args"]["amount"] for log in await logs.get_new_entries()] == [3]
    assert await logs.get_new_entries() == []
    assert await blocks.get_new_entries() == [receipt["blockHash"]]
    assert await w3.eth.uninstall_filter(logs.filter_id)
    assert not await w3.eth.uninstall_filter(logs.filter_id)


async def test_the_past_can_be_read(w3, token, owner, receiver):
    """Calls, balances and storage as of an earlier block."""
    block = await w3.eth.block_number
    await mint(token, owner, receiver.address, 3)
    balance = token.functions.balanceOf(receiver.address)
    assert await balance.call(block_identifier=block) == 0
    assert await balance.call() == 3
    assert await w3.eth.get_code(token.address, block - 1) == b""
    assert len(await w3.eth.get_code(token.address)) >= load_artifact("token").runtime_size


async def test_a_contract_above_the_size_limit_is_not_created(devnet, owner):
    """EIP-170 holds on a devnet too."""
    initcode = bytes.fromhex("61600160006000396160016000f3")  # returns 24,577 bytes
    assert (
        "24576" in (await error(devnet.url, "eth_call", {"data": "0x" + initcode.hex()}, "latest"))["message"]
    )
    assert await result(devnet.url, "eth_getTransactionCount", owner.address, "latest") == "0x0"
