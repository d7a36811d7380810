"""Who may sign what: the owner, or a live agent for orders, cancels and transfers. Names what is wrong with a
signature.
"""

from collections.abc import Sequence

from evermark.protocol.orders import ApproveAgent, Cancel, Order, Signature, Transfer, Withdraw
from evermark.protocol.reject import RejectCode
from evermark.protocol.signing import FundingReport, Liquidate, PriceReport, domain_separator
from sequencer.engine.state import Account
from sequencer.gateway import parse, wire
from sequencer.gateway.checking import Recovered, RecoveredOrders
from sequencer.gateway.refusal import Refusal, refuse
from sequencer.gateway.services import Services
from sequencer.gateway.verify import SignatureThreads

VAULT_DOMAIN = "Evermark"
ORACLE_DOMAIN = "Evermark Oracle"


class Signers:
    """Recovers and judges signers against the engine's accounts and agents."""

    def __init__(self, services: Services, threads: SignatureThreads) -> None:
        self._services = services
        self._threads = threads
        facts = services.facts
        self._vault = domain_separator(facts.chain_id, facts.vault, VAULT_DOMAIN)
        self._oracle = domain_separator(facts.chain_id, facts.oracle, ORACLE_DOMAIN)

    async def trader(
        self,
        message: Order | Cancel | Withdraw | Transfer | ApproveAgent,
        signature: Signature,
        request: wire.Signed,
        account: Account,
        *,
        agents: bool,
    ) -> Recovered:
        """The message's signer, who may act for `account`. Raises Refusal (WRONG_CHAIN, BAD_SIGNATURE,
        NOT_AUTHORISED) with digest and recovered address."""
        self._require_domain(request, self._services.facts.vault)
        recovered = await self._threads.recover(
            message, self._vault, signature, account.account_id, urgent=isinstance(message, Cancel)
        )
        if recovered.signer == account.owner:
            return recovered
        if agents and recovered.signer is not None and self._is_agent(account, recovered.signer):
            return recovered
        vault, owner = self._services.facts.vault, frozenset({account.owner})
        chain = await self._threads.chain_signed_for(message, vault, VAULT_DOMAIN, signature, owner)
        if chain is not None:
            raise self._wrong_chain(chain, recovered)
        raise self._refuse(account, recovered, agents)

    @property
    def overload(self) -> Refusal | None:
        """Why no order's signature is checked at the moment; None when there is room."""
        return self._threads.overload

    async def order_batch(
        self, orders: Sequence[Order], signature: Signature, request: wire.Signed, account: Account
    ) -> RecoveredOrders:
        """A live agent's signature of an `OrderBatch`. An owner's is refused: nobody sees what such a root stands for, so
        an owner's key must never sign one."""
        self._require_domain(request, self._services.facts.vault)
        recovered = await self._threads.recover_orders(orders, self._vault, signature, account.account_id)
        signer = recovered.signer
        if signer is not None and signer != account.owner and self._is_agent(account, signer):
            return recovered
        known = signer == account.owner or (account.account_id, signer) in self._services.state.agents
        code = RejectCode.NOT_AUTHORISED if known else RejectCode.BAD_SIGNATURE
        message = "an order batch is signed by a live agent of the account, never by its owner"
        raise refuse(code, message, "signature", **evidence(recovered), owner="0x" + account.owner.hex())

    async def keeper(
        self, message: PriceReport | FundingReport | Liquidate, signature: Signature, request: wire.Signed
    ) -> tuple[bytes, Recovered]:
        """The address that signed a keeper's message; whether it is registered is for others to say."""
        facts = self._services.facts
        is_trigger = isinstance(message, Liquidate)
        self._require_domain(request, facts.vault if is_trigger else facts.oracle)
        separator = self._vault if is_trigger else self._oracle
        recovered = await self._threads.recover(message, separator, signature, urgent=True)
        if recovered.signer is None:
            message_text = "no key recovers from the signature"
            raise refuse(RejectCode.BAD_SIGNATURE, message_text, "signature", **evidence(recovered))
        return recovered.signer, recovered

    def _is_agent(self, account: Account, signer: bytes) -> bool:
        approved = self._services.state.agents.get((account.account_id, signer))
        now = max(self._services.now_s(), self._services.state.now)
        return approved is not None and approved[0] >= now

    def _refuse(self, account: Account, recovered: Recovered, agents: bool) -> Refusal:
        state, signer = self._services.state, recovered.signer
        known = signer is not None and (
            (signer, 0) in state.account_ids or (account.account_id, signer) in state.agents
        )
        details = evidence(recovered) | {"owner": "0x" + account.owner.hex()}
        if known:
            who = "owner nor a live agent" if agents else "owner"
            message = f"the signer is not the account's {who}"
            return refuse(RejectCode.NOT_AUTHORISED, message, "signature", **details)
        message = "the signature is not the account's: another key, or other data than were signed"
        return refuse(RejectCode.BAD_SIGNATURE, message, "signature", **details)

    def _require_domain(self, request: wire.Signed, contract: bytes) -> None:
        facts = self._services.facts
        if request.chain_id is not None and request.chain_id != facts.chain_id:
            raise refuse(
                RejectCode.WRONG_CHAIN,
                "signed for another chain",
                "chain_id",
                chain_id=request.chain_id,
                expected=facts.chain_id,
            )
        named = request.verifying_contract
        if named is not None and parse.address(named) != contract:
            raise refuse(
                RejectCode.WRONG_CHAIN,
                "signed for another contract",
                "verifying_contract",
                verifying_contract=named,
                expected="0x" + contract.hex(),
            )

    def _wrong_chain(self, chain_id: int, recovered: Recovered) -> Refusal:
        details = evidence(recovered) | {"chain_id": chain_id, "expected": self._services.facts.chain_id}
        message = f"the signature is the owner's, but for chain {chain_id}"
        return refuse(RejectCode.WRONG_CHAIN, message, "signature", **details)


def evidence(recovered: Recovered | RecoveredOrders) -> dict[str, int | str]:
    """What a client needs to find its mistake: the digest checked here and the address that it gives."""
    signer = recovered.signer
    return {
        "digest": "0x" + recovered.digest.hex(),
        "recovered": "" if signer is None else "0x" + signer.hex(),
    }
