"""One key's transactions: nonces, fees, replacement, lost answers, restarts, and reasons of reverts."""

import asyncio

import pytest
from chain_cases import FaultyNode, address
from eth_account import Account
from web3.exceptions import TransactionNotFound

from evermark.chain import TransactionRefused, TransactionReverted, TransactionSender, TransactionTimeout
from evermark.chain.artifacts import load_artifact
from evermark.chain.rpc import connect, rpc
from evermark.devnet import dev_key

TO = address(9)


async def mine_after(w3, seconds):
    await asyncio.sleep(seconds)
    await rpc(w3, "evm_mine")


async def mine_when(w3, devnet, pending):
    """A block as soon as a transaction for which `pending` holds waits for one, however long a slow machine takes."""
    while True:
        if any(pending(transaction) for transaction in list(devnet._methods.evm.pool.values())):
            return await rpc(w3, "evm_mine")
        await asyncio.sleep(0.01)


async def both_under_way(sender):
    """The nonces 0 and 1 are taken."""
    while True:
        if sender._under_way == {0, 1}:
            return
        await asyncio.sleep(0.01)


async def test_transactions_follow_each_other(w3):
    """Calls made together are mined with ascending nonces, none lost."""
    sender = TransactionSender(w3, dev_key(0))
    receipts = await asyncio.gather(*(sender.send(TO, value=1) for _ in range(5)))
    assert all(receipt["status"] == 1 for receipt in receipts)
    assert sorted(receipt["blockNumber"] for receipt in receipts) == [1, 2, 3, 4, 5]
    assert await w3.eth.get_transaction_count(sender.address) == 5


@pytest.mark.safety("E07", "sequencer")
async def test_calls_made_together_wait_together(slow_devnet):
    """Each has its nonce before the first is mined, in the order of the calls; one block may take them all."""
    async with connect(slow_devnet.url) as w3:
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=30.0)
        sending = [asyncio.create_task(sender.send(TO, value=value, gas=21_000)) for value in (5, 6, 7)]
        await mine_when(w3, slow_devnet, lambda waiting: waiting.value == 7)
        receipts = await asyncio.gather(*sending)
        mined = [await w3.eth.get_transaction(receipt["transactionHash"]) for receipt in receipts]
        assert [(one["nonce"], one["value"]) for one in mined] == [(0, 5), (1, 6), (2, 7)]


async def test_the_next_call_takes_the_nonce_of_one_that_failed(slow_devnet, monkeypatch):
    """Otherwise those behind it would wait for ever."""
    async with connect(slow_devnet.url) as w3:
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=30.0)
        first = asyncio.create_task(sender.send(TO, value=5, gas=21_000))
        second = asyncio.create_task(sender.send(TO, value=6, gas=21_000))
        await both_under_way(sender)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        third = asyncio.create_task(sender.send(TO, value=7, gas=21_000))
        await both_under_way(sender)
        await rpc(w3, "evm_mine")
        receipts = await asyncio.gather(second, third)
        mined = [await w3.eth.get_transaction(receipt["transactionHash"]) for receipt in receipts]
        assert mined[0]["nonce"] == 1
        assert await w3.eth.get_transaction_count(sender.address) == 2


async def test_a_revert_has_its_reason(w3):
    """Found by the estimate nothing is sent; with a fixed gas limit it is mined and the reason looked up."""
    sender, poor = TransactionSender(w3, dev_key(0)), TransactionSender(w3, dev_key(1))
    artifact = load_artifact("token")
    receipt = await sender.send(None, artifact.creation_code())
    token = w3.eth.contract(address=receipt["contractAddress"], abi=artifact.abi)
    data = token.encode_abi("transfer", args=[sender.address, 1])
    with pytest.raises(TransactionReverted) as caught:
        await poor.send(token.address, data)
    assert (caught.value.reason, caught.value.receipt) == ("usdc: balance too low", None)
    assert await w3.eth.get_transaction_count(poor.address) == 0
    with pytest.raises(TransactionReverted, match="usdc: balance too low") as caught:
        await poor.send(token.address, data, gas=200_000)
    assert caught.value.receipt["status"] == 0
    with pytest.raises(TransactionReverted, match="out of gas"):
        await sender.send(None, artifact.creation_code(), gas=100_000)
    assert (await poor.send(TO, value=1))["status"] == 1


async def test_a_key_without_funds_is_refused(w3):
    """The node's reason is told, and the same sender works once it is funded."""
    key = b"\x07" * 32
    sender = TransactionSender(w3, key)
    with pytest.raises(TransactionRefused, match="insufficient funds"):
        await sender.send(TO, value=1, gas=21_000)
    await TransactionSender(w3, dev_key(0)).send(sender.address, value=10**18)
    assert (await sender.send(TO, value=1, gas=21_000))["status"] == 1


@pytest.mark.safety("A13", "keeper")
@pytest.mark.safety("E07", "sequencer")
async def test_a_stuck_transaction_is_outbid_on_its_own_nonce(slow_devnet):
    """Not mined in time, it is replaced with a fee at least 10 % higher; one of them is mined, once. Keepers' prices and
    liquidations go to the chain by this sender."""
    async with connect(slow_devnet.url) as w3:
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=0.2)
        started = (await w3.eth.get_block("latest"))["baseFeePerGas"] * 2 + await w3.eth.max_priority_fee
        outbid = mine_when(w3, slow_devnet, lambda waiting: waiting.max_fee_per_gas * 10 >= started * 11)
        receipt, _ = await asyncio.gather(sender.send(TO, value=1, gas=21_000), outbid)
        block = await w3.eth.get_block("latest")
        assert block["transactions"] == [receipt["transactionHash"]]
        mined = await w3.eth.get_transaction(receipt["transactionHash"])
        assert mined["nonce"] == 0
        assert mined["maxFeePerGas"] * 10 >= started * 11
        await rpc(w3, "evm_mine")
        assert await w3.eth.get_transaction_count(sender.address) == 1


@pytest.mark.safety("A13", "keeper")
async def test_a_transaction_that_is_never_mined_times_out(slow_devnet, monkeypatch):
    """After the last raise the caller is told; the nonce stays the same for the next attempt."""
    async with connect(slow_devnet.url) as w3:
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=0.05)
        with monkeypatch.context() as few_raises:
            few_raises.setattr("evermark.chain.transactions.MAX_BUMPS", 3)
            with pytest.raises(TransactionTimeout, match="nonce 0"):
                await sender.send(TO, value=1, gas=21_000)
        replaced = mine_when(w3, slow_devnet, lambda waiting: waiting.value == 2)
        receipt, _ = await asyncio.gather(sender.send(TO, value=2, gas=21_000), replaced)
        assert receipt["status"] == 1
        assert await w3.eth.get_transaction_count(sender.address) == 1


async def leave_pending(w3, nonce, max_fee_wei):
    """What a process that died had sent."""
    transaction = {
        "type": 2,
        "chainId": 31337,
        "nonce": nonce,
        "to": Account.from_key(dev_key(8)).address,
        "value": 7,
        "gas": 21_000,
        "maxFeePerGas": max_fee_wei,
        "maxPriorityFeePerGas": max_fee_wei,
    }
    signed = Account.from_key(dev_key(0)).sign_transaction(transaction)
    return await w3.eth.send_raw_transaction(signed.raw_transaction)


@pytest.mark.safety("E07", "sequencer")
async def test_a_restart_lets_the_pending_transaction_finish(slow_devnet):
    """The new process waits for the old one's transaction and goes on with the next nonce."""
    async with connect(slow_devnet.url) as w3:
        old = await leave_pending(w3, 0, 5 * 10**9)
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=5.0)
        sending = asyncio.create_task(sender.send(TO, value=1, gas=21_000))
        await mine_after(w3, 0.2)
        await mine_after(w3, 0.7)
        receipt = await sending
        assert (await w3.eth.get_transaction_receipt(old))["blockNumber"] == 1
        assert (await w3.eth.get_transaction(receipt["transactionHash"]))["nonce"] == 1


async def test_a_restart_outbids_a_transaction_that_is_stuck(slow_devnet):
    """A predecessor whose fee no block takes is replaced on its own nonce after the timeout."""
    async with connect(slow_devnet.url) as w3:
        await leave_pending(w3, 0, 10**6)
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=0.3)
        replaced = mine_when(w3, slow_devnet, lambda waiting: waiting.value == 1)
        receipt, _ = await asyncio.gather(sender.send(TO, value=1, gas=21_000), replaced)
        assert (await w3.eth.get_transaction(receipt["transactionHash"]))["nonce"] == 0


@pytest.mark.safety("E07", "sequencer")
async def test_what_is_in_flight_is_outbid_by_nothing(slow_devnet):
    """The transactions of a process that died: the first is replaced, the one behind it may be mined meanwhile. With nothing in
    sight a nonce is used up all the same: another node may hold what this one has forgotten."""
    async with connect(slow_devnet.url) as w3:
        stuck = [await leave_pending(w3, nonce, 2 * 10**9) for nonce in (0, 1)]
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=0.3)
        for used_up in (2, 3):
            clearing = asyncio.ensure_future(sender.clear())
            while not clearing.done():
                mined = await w3.eth.get_transaction_count(sender.address)
                pool = {nonce: one for (_, nonce), one in slow_devnet._methods.evm.pool.items()}
                if mined in pool and pool[mined].value == 0:
                    await rpc(w3, "evm_mine")
                await asyncio.sleep(0.01)
            assert await clearing == used_up
            assert await w3.eth.get_transaction_count(sender.address) == used_up
            assert slow_devnet._methods.evm.pool == {}
        with pytest.raises(TransactionNotFound):
            await w3.eth.get_transaction_receipt(stuck[0])


@pytest.mark.safety("E07", "sequencer")
async def test_an_underpriced_replacement_is_raised_until_it_is_taken(slow_devnet):
    """A predecessor with a high fee is outbid step by step, without waiting in between."""
    async with connect(slow_devnet.url) as w3:
        await leave_pending(w3, 0, 6 * 10**9)
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=0.3)
        replaced = mine_when(w3, slow_devnet, lambda waiting: waiting.value == 1)
        receipt, _ = await asyncio.gather(sender.send(TO, value=1, gas=21_000), replaced)
        mined = await w3.eth.get_transaction(receipt["transactionHash"])
        assert mined["nonce"] == 0
        assert mined["maxFeePerGas"] * 10 >= 66 * 10**9


@pytest.mark.safety("E07", "sequencer")
async def test_a_lost_answer_is_no_second_transaction(devnet):
    """The node took the transaction but its answer was lost: the receipt is found, nothing is sent twice."""
    async with FaultyNode(devnet.url) as node, connect(node.url) as w3:

        async def lose_answers(method, forward):
            if method == "eth_sendRawTransaction":
                await forward()
                return FaultyNode.LOSE
            return None

        node.fault = lose_answers
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=2.0)
        assert (await sender.send(TO, value=1))["status"] == 1
        assert await w3.eth.get_transaction_count(sender.address) == 1
        assert node.seen.count("eth_sendRawTransaction") == 1


async def test_already_known_counts_as_sent(devnet):
    """A relay that repeats a request answers "already known"; that is success."""
    async with FaultyNode(devnet.url) as node, connect(node.url) as w3:

        async def repeat(method, forward):
            return (await forward(), await forward())[1] if method == "eth_sendRawTransaction" else None

        node.fault = repeat
        sender = TransactionSender(w3, dev_key(0))
        assert (await sender.send(TO, value=1))["status"] == 1
        assert await w3.eth.get_transaction_count(sender.address) == 1


@pytest.mark.anvil
async def test_the_same_on_anvil(anvil_url):
    """Sending, a revert's reason and outbidding on a real node."""
    async with connect(anvil_url) as w3:
        sender = TransactionSender(w3, dev_key(0), receipt_timeout_s=0.3)
        artifact = load_artifact("token")
        receipt = await sender.send(None, artifact.creation_code())
        token = w3.eth.contract(address=receipt["contractAddress"], abi=artifact.abi)
        data = token.encode_abi("transfer", args=[sender.address, 1])
        with pytest.raises(TransactionReverted, match="usdc: balance too low"):
            await TransactionSender(w3, dev_key(1)).send(token.address, data, gas=200_000)
        await rpc(w3, "evm_setAutomine", False)
        receipt, _ = await asyncio.gather(sender.send(TO, value=1, gas=21_000), mine_after(w3, 1.0))
        assert receipt["status"] == 1
        assert await w3.eth.get_transaction_count(sender.address) == 2
