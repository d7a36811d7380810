"""Deployment: once, checked, and the same on the embedded chain and on anvil."""

import msgspec
import pytest
from chain_cases import ROLES, address

from evermark.chain import DeployRefused, ManifestRefused, Parameters, check_deployed, deploy, load_manifest
from evermark.chain.artifacts import CONTRACTS, load_artifact
from evermark.chain.rpc import connect
from evermark.chain.vault import ExchangeContracts
from evermark.devnet import Devnet, DevnetConfig, dev_key
from evermark.protocol.markets import load_markets


async def check_exchange(url, manifest):
    """The contracts know each other, their roles and their markets."""
    async with connect(url) as w3:
        contracts = ExchangeContracts(w3, manifest)
        assert await contracts.inbox.functions.VAULT().call() == manifest.addresses["vault"]
        assert await contracts.inbox.functions.TOKEN().call() == manifest.addresses["token"]
        assert (await contracts.oracle.functions.sequencer().call()).lower() == ROLES.sequencer
        for keeper in manifest.roles.oracle_keepers:
            assert await contracts.oracle.functions.is_oracle_keeper(keeper).call()
            assert not await contracts.oracle.functions.is_funding_keeper(keeper).call()
        assert await contracts.vault.functions.market_count().call() == len(load_markets())
        assert (await contracts.totals()).batch_id == 0


async def test_a_deployment_is_whole_and_done_once(devnet, tmp_path):
    """Contracts refer to each other; the second run changes neither the chain nor the manifest."""
    path = tmp_path / "manifest.json"
    manifest = await deploy(devnet.url, dev_key(0), ROLES, path)
    await check_exchange(devnet.url, manifest)
    written = path.read_bytes()
    async with connect(devnet.url) as w3:
        head = await w3.eth.block_number
        assert await deploy(devnet.url, dev_key(0), ROLES, path) == manifest
        assert await w3.eth.block_number == head
    assert path.read_bytes() == written
    assert load_manifest(path) == manifest == await check_deployed(devnet.url, path)
    assert manifest.genesis_block == 0
    assert manifest.markets == load_markets()


@pytest.mark.anvil
async def test_a_deployment_works_on_anvil(anvil_url, tmp_path):
    """The same on a real node."""
    path = tmp_path / "manifest.json"
    manifest = await deploy(anvil_url, dev_key(0), ROLES, path)
    await check_exchange(anvil_url, manifest)
    assert await deploy(anvil_url, dev_key(0), ROLES, path) == manifest


async def test_a_token_that_exists_is_used(devnet, tmp_path):
    """With `token`, no test token is made."""
    first = await deploy(devnet.url, dev_key(0), ROLES, tmp_path / "first.json")
    token = first.addresses["token"]
    second = await deploy(devnet.url, dev_key(0), ROLES, tmp_path / "second.json", token=token)
    assert second.addresses["token"] == token
    assert second.addresses["vault"] != first.addresses["vault"]


async def test_a_manifest_of_another_chain_is_refused(devnet, tmp_path):
    """Addresses without contracts, or another chain id, are named; so is a node that does not answer."""
    path = tmp_path / "manifest.json"
    manifest = await deploy(devnet.url, dev_key(0), ROLES, path)
    empty = Devnet(DevnetConfig(port=0))
    await empty.start()
    try:
        with pytest.raises(DeployRefused, match="no token at"):
            await deploy(empty.url, dev_key(0), ROLES, path)
        msgspec.structs.replace(manifest, chain_id=1).save(path)
        with pytest.raises(DeployRefused, match="manifest is of chain 1, the node of 31337"):
            await check_deployed(empty.url, path)
    finally:
        await empty.stop()
    with pytest.raises(DeployRefused, match="deploy: "):
        await check_deployed(empty.url, path)


async def test_a_deployment_with_other_facts_is_refused(devnet, tmp_path):
    """The manifest's roles, parameters and markets must be the ones asked for."""
    path = tmp_path / "manifest.json"
    manifest = await deploy(devnet.url, dev_key(0), ROLES, path)
    roles = msgspec.structs.replace(ROLES, sequencer=address(9))
    with pytest.raises(DeployRefused, match="other roles"):
        await deploy(devnet.url, dev_key(0), roles, path)
    slower = Parameters(round_seconds=5, oracle_quorum=3, funding_quorum=3)
    with pytest.raises(DeployRefused, match="other parameters"):
        await deploy(devnet.url, dev_key(0), ROLES, path, parameters=slower)
    with pytest.raises(DeployRefused, match="other markets"):
        await deploy(devnet.url, dev_key(0), ROLES, path, markets=load_markets()[:1])
    swapped = {**manifest.addresses, "oracle": manifest.addresses["inbox"]}
    msgspec.structs.replace(manifest, addresses=swapped).save(path)
    with pytest.raises(DeployRefused, match=r"the oracle at .* is not this version's"):
        await check_deployed(devnet.url, path)


async def test_the_contracts_reasons_are_told(devnet, tmp_path):
    """What a constructor refuses reaches the operator in the contract's own words; no manifest is left."""
    even = Parameters(round_seconds=3, oracle_quorum=2, funding_quorum=3)
    with pytest.raises(DeployRefused, match="oracle: bad quorum"):
        await deploy(devnet.url, dev_key(0), ROLES, tmp_path / "manifest.json", parameters=even)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content, reason",
    [("{", "manifest: "), ("{}", "manifest: "), (None, "does not read: No such file")],
)
def test_a_damaged_manifest_is_refused(tmp_path, content, reason):
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ManifestRefused, match=reason):
        load_manifest(path)


@pytest.mark.parametrize("name", CONTRACTS)
def test_artifacts_know_their_own_code(name):
    """Code is recognised with immutables behind it, and not when a byte differs or is missing."""
    artifact = load_artifact(name)
    created = bytes.fromhex(artifact.bytecode[2:])
    starts = [i for i in range(len(created)) if artifact.is_runtime(created[i:])]
    runtime = created[starts[0] : starts[0] + artifact.runtime_size]
    assert artifact.is_runtime(runtime + bytes(96))
    assert not artifact.is_runtime(runtime[:-1])
    assert not artifact.is_runtime(bytes([runtime[0] ^ 1]) + runtime[1:])
    assert artifact.runtime_size <= 24_576
