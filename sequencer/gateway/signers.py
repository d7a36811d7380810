"""Who may sign what: the owner, or a live agent for orders, cancels and transfers. Names what is wrong with a
signature.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from evermark.protocol.orders import ApproveAgent, Cancel, Order, Signature, Transfer, Withdraw
from evermark.protocol.reject import RejectCode
from evermark.protocol.signing import FundingReport, Liquidate, Message, PriceReport, domain_separator
from sequencer.engine.state import Account
from sequencer.gateway import parse, wire
from sequencer.gateway.checking import Question, Recovered, RecoveredOrders
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
        self._explaining: set[asyncio.Future[Refusal]] = set()
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
        if self._may_sign(account, recovered.signer, agents):
            return recovered
        raise await self._why_not(message, signature, account, recovered, agents)

    def ask_order(
        self,
        order: Order,
        signature: Signature,
        request: wire.Signed,
        account: Account,
        answered: Callable[[Recovered | BaseException], None],
    ) -> None:
        """What `trader` does for an order, without a task: `answered` gets what it returns or raises. Raises Refusal for what
        needs no signature, and then `answered` is not called."""
        self._require_domain(request, self._services.facts.vault)

        question = Question(self._vault, signature.to_bytes(), (order,))
        judge = _Judging(self, order, signature, account, answered)
        self._threads.ask(question, account.account_id, judge)

    def judge(self, judging: "_Judging", outcome: Recovered | BaseException) -> None:
        """The signature is checked."""
        account, answered = judging.account, judging.answered
        if isinstance(outcome, BaseException) or self._may_sign(account, outcome.signer, True):
            answered(outcome)
            return

        def explained(explaining: "asyncio.Future[Refusal]") -> None:
            self._explaining.discard(explaining)
            if not explaining.cancelled():
                answered(explaining.exception() or explaining.result())

        why_not = self._why_not(judging.order, judging.signature, account, outcome, True)
        explaining = asyncio.ensure_future(why_not)
        self._explaining.add(explaining)
        explaining.add_done_callback(explained)

    @property
    def overload(self) -> Refusal | None:
        """Why no order's signature is checked at the moment; None when there is room."""
        return self._threads.overload

    def ask_orders(
        self,
        orders: Sequence[Order],
        signature: Signature,
        request: wire.Signed,
        account: Account,
        answered: Callable[[RecoveredOrders | BaseException], None],
    ) -> None:
        """The same for a live agent's signature of an `OrderBatch`. An owner's is refused: nobody sees what such a root stands
        for, so an owner's key must never sign one."""
        self._require_domain(request, self._services.facts.vault)

        def judge(outcome: RecoveredOrders | BaseException) -> None:
            if not isinstance(outcome, BaseException) and not self._may_sign_batch(account, outcome.signer):
                outcome = self._refuse_batch(account, outcome)
            answered(outcome)

        question = Question(self._vault, signature.to_bytes(), tuple(orders), True)
        self._threads.ask(question, account.account_id, judge)

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

    def _may_sign(self, account: Account, signer: bytes | None, agents: bool) -> bool:
        if signer == account.owner:
            return True
        return agents and signer is not None and self._is_agent(account, signer)

    def _may_sign_batch(self, account: Account, signer: bytes | None) -> bool:
        return signer is not None and signer != account.owner and self._is_agent(account, signer)

    def _refuse_batch(self, account: Account, recovered: RecoveredOrders) -> Refusal:
        signer = recovered.signer
        known = signer == account.owner or (account.account_id, signer) in self._services.state.agents
        code = RejectCode.NOT_AUTHORISED if known else RejectCode.BAD_SIGNATURE
        message = "an order batch is signed by a live agent of the account, never by its owner"
        return refuse(code, message, "signature", **evidence(recovered), owner="0x" + account.owner.hex())

    async def _why_not(
        self, message: Message, signature: Signature, account: Account, recovered: Recovered, agents: bool
    ) -> Refusal:
        vault, owner = self._services.facts.vault, frozenset({account.owner})
        chain = await self._threads.chain_signed_for(message, vault, VAULT_DOMAIN, signature, owner)
        if chain is not None:
            return self._wrong_chain(chain, recovered)
        return self._refuse(account, recovered, agents)

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


class _Judging(msgspec.Struct, frozen=True, gc=False):
    """An order whose signature is being checked. See `placing` for why it is no closure."""

    signers: Signers
    order: Order
    signature: Signature
    account: Account
    answered: Callable[[Recovered | BaseException], None]

    def __call__(self, outcome: Recovered | BaseException) -> None:
        self.signers.judge(self, outcome)


def evidence(recovered: Recovered | RecoveredOrders) -> dict[str, int | str]:
    """What a client needs to find its mistake: the digest checked here and the address that it gives."""
    signer = recovered.signer
    return {
        "digest": "0x" + recovered.digest.hex(),
        "recovered": "" if signer is None else "0x" + signer.hex(),
    }
