"""PoT.Finalize for ``open`` orders: winner, rewards, slashes and the receipt of each (PoT 2.4).

`outcome_of` is a function of the order's row alone. Its guarantee, asserted for every order:
the receipts, credits positive and debits negative, sum to ``reward + deposit``, so that nothing is
minted, lost or stranded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aggregator.ledger.state import Entry, Outcome, Receipt, Slash
from aggregator.ledger.tasks.disputes import Answer, Round, agreeing_jurors, decide, is_irretrievable
from aggregator.ledger.tasks.open_records import OpenTask, disputed_mids
from protocol.crypto import keccak256
from protocol.rewards import apportion, bps_of, reward_shares, slash_shares
from protocol.roles import Role
from protocol.transactions import INVALID_SCORE, IRRETRIEVABLE_SCORE


def verdict_on(entry: Entry, subject: bytes) -> Answer | None:
    """The verdict that stands on a model, or under the data root on the test set; none without a quorum."""
    dispute = entry.task.decided.get(subject)
    return decide(dispute, entry.parameters) if dispute is not None else None


def accepted_answers(entry: Entry) -> dict[bytes, Answer]:
    """Per MID the answer that counts: the verdict's, or the one all validators gave.

    Where a report found no quorum and the validators agreed, their answer stands: else a report that nobody
    judges would throw a model out.
    """
    task: OpenTask = entry.task
    disputed = disputed_mids(task)
    accepted = {}
    for mid in task.revealed_mids():
        answer = verdict_on(entry, mid)
        if answer is None and mid not in disputed:
            answer = next(iter(task.answers(mid).values()), None)
        if answer is not None:
            accepted[mid] = answer
    return accepted


@dataclass(slots=True)
class _Books:
    """Collects an order's receipts and slashes."""

    entry: Entry
    treasury: bytes
    receipts: list[Receipt] = field(default_factory=list)
    slashes: list[Slash] = field(default_factory=list)

    def pay(self, account: bytes, role: str, reason: str, amount_wei: int, *refs: bytes) -> None:
        if amount_wei:
            self.receipts.append(
                Receipt(
                    account=account,
                    oid=self.entry.oid,
                    role=role,
                    reason=reason,
                    amount_wei=amount_wei,
                    refs=refs,
                )
            )

    def pay_shares(
        self, weights: Sequence[tuple[bytes, int]], role: str, reason: str, total_wei: int, *refs: bytes
    ) -> None:
        shares = apportion(total_wei, [weight for _, weight in weights]) if total_wei else ()
        for (account, _), share in zip(weights, shares, strict=bool(total_wei)):
            self.pay(account, role, reason, share, *refs)

    def slash(
        self,
        account: bytes,
        role: Role,
        reason: str,
        amount_wei: int,
        *refs: bytes,
        accuser: tuple[bytes, str] | None = None,
        jurors: Sequence[tuple[bytes, int]] = (),
    ) -> None:
        if not amount_wei:
            return
        self.slashes.append(Slash(account=account, role=role, amount_wei=amount_wei))
        self.pay(account, role.name.lower(), reason, -amount_wei, *refs)
        shares = slash_shares(
            amount_wei, self.entry.parameters, accuser=accuser is not None, jurors=bool(jurors)
        )
        if accuser is not None:
            self.pay(accuser[0], accuser[1], f"share of a slash: {reason}", shares.accuser, *refs)
        self.pay_shares(jurors, "juror", f"share of a slash: {reason}", shares.jurors, *refs)
        self.pay(self.treasury, "treasury", f"share of a slash: {reason}", shares.treasury, *refs)


def outcome_of(entry: Entry, members: Sequence[bytes], treasury: bytes) -> Outcome:
    """What the order pays, to whom and why. ``members`` are the aggregators who share the tax."""
    books = _Books(entry, treasury)
    _slash_missed_reveals(books)
    _slash_wrong_answers(books)
    _slash_irretrievable(books)
    _slash_wrong_reports(books)
    _slash_lost_appeals(books)
    winner, mid, score, reason = _pay_rewards(books, members)
    escrow = entry.order.reward + entry.order.deposit
    paid = sum(receipt.amount_wei for receipt in books.receipts)
    assert paid == escrow, f"order 0x{entry.oid.hex()} came in with {escrow} wei and pays {paid}"
    return Outcome(
        winner=winner,
        mid=mid,
        score=score,
        reason=reason,
        receipts=tuple(books.receipts),
        slashes=tuple(books.slashes),
    )


def _slash_missed_reveals(books: _Books) -> None:
    task: OpenTask = books.entry.task
    parameters = books.entry.parameters
    missed_bps = parameters["missed_reveal_bps"]
    for provider, claim in sorted(task.claims.items()):
        if claim.mid is None:
            amount = bps_of(parameters["claim_stake_wei"], missed_bps)
            books.slash(provider, Role.PROVIDER, "claim never revealed", amount, claim.commitment)
    for (_, validator), record in sorted(task.validations.items()):
        if record.answer is None:
            amount = bps_of(record.v_stake_wei, missed_bps)
            books.slash(validator, Role.VALIDATOR, "validation never revealed", amount, record.vid)
    for vid, challenge in sorted(task.challenges.items()):
        if challenge.answer is None:
            amount = bps_of(challenge.c_stake_wei, missed_bps)
            books.slash(challenge.challenger, Role.VERIFIER, "challenge never revealed", amount, vid)


def _slash_wrong_answers(books: _Books) -> None:
    """Only where a verdict stood: a quorum of uninvolved stake named the right answer."""
    task: OpenTask = books.entry.task
    parameters = books.entry.parameters
    for mid, dispute in sorted(task.decided.items()):
        right = decide(dispute, parameters)
        if right is None or is_irretrievable(right):
            # A model that went offline says nothing of those who scored it while it was there.
            continue
        jurors = agreeing_jurors(dispute, right)
        for (of, validator), record in sorted(task.validations.items()):
            if of != mid or record.answer is None:
                continue
            challenge = task.challenges.get(record.vid)
            if record.answer != right:
                accuser = None
                if challenge is not None and challenge.answer == right:
                    accuser = (challenge.challenger, "challenger")
                amount = bps_of(record.v_stake_wei, parameters["slash_bps"])
                books.slash(
                    validator,
                    Role.VALIDATOR,
                    "wrong score",
                    amount,
                    record.vid,
                    accuser=accuser,
                    jurors=jurors,
                )
            if challenge is not None and challenge.answer not in (None, right):
                wronged = (validator, "validator") if record.answer == right else None
                amount = bps_of(challenge.c_stake_wei, parameters["slash_bps"])
                books.slash(
                    challenge.challenger,
                    Role.VERIFIER,
                    "wrong challenge",
                    amount,
                    record.vid,
                    accuser=wronged,
                    jurors=jurors,
                )


def _slash_irretrievable(books: _Books) -> None:
    """The claim stake of each provider whose model a quorum of uninvolved stake could not fetch."""
    entry = books.entry
    task: OpenTask = entry.task
    amount = bps_of(entry.parameters["claim_stake_wei"], entry.parameters["irretrievable_bps"])
    for provider, claim in sorted(task.claims.items()):
        verdict = verdict_on(entry, claim.mid) if claim.mid is not None else None
        if claim.mid is None or verdict is None or not is_irretrievable(verdict):
            continue
        report = task.reports.get(claim.mid)
        books.slash(
            provider,
            Role.PROVIDER,
            "model irretrievable",
            amount,
            claim.mid,
            *((report.id,) if report is not None else ()),
            accuser=(report.reporter, "reporter") if report is not None else None,
            jurors=agreeing_jurors(task.decided[claim.mid], verdict),
        )


def _slash_wrong_reports(books: _Books) -> None:
    """Where the jury fetched what was reported, and it was there in time too: most validators scored it."""
    entry = books.entry
    task: OpenTask = entry.task
    for subject, report in sorted(task.reports.items()):
        verdict = verdict_on(entry, subject)
        if verdict is None or is_irretrievable(verdict) or not _was_there(entry, subject):
            continue
        jurors = agreeing_jurors(task.decided[subject], verdict)
        books.slash(
            report.reporter, report.role, "wrong report", report.stake_wei, subject, report.id, jurors=jurors
        )


def _was_there(entry: Entry, subject: bytes) -> bool:
    """Whether the order shows that a model, or the test set, could be fetched before the verdict.

    Of a model, more than half of the validators who scored anything must have scored it: else a provider
    that answers nobody but an accomplice, and comes back for the verdict, would make honest reporters pay.
    A test set was there if anything was scored with it.
    """
    opened = [key for key, record in entry.task.validations.items() if record.answer is not None]
    if subject == entry.order.data_root:
        return bool(opened)
    of_it = {validator for mid, validator in opened if mid == subject}
    return 2 * len(of_it) > len({validator for _, validator in opened})


def _slash_lost_appeals(books: _Books) -> None:
    """The bond of each appeal after which the same verdict stands; jurors share it who confirmed it."""
    entry = books.entry
    task: OpenTask = entry.task
    for subject, appeal in sorted(task.appeals.items()):
        verdict = verdict_on(entry, subject)
        if verdict != appeal.against:
            continue
        dispute = task.decided[subject]
        confirmed = dispute.round is Round.APPEAL
        books.slash(
            appeal.appellant,
            appeal.role,
            "appeal without effect",
            appeal.bond_wei,
            subject,
            appeal.id,
            jurors=agreeing_jurors(dispute, appeal.against) if confirmed else (),
        )


def _pay_rewards(
    books: _Books, members: Sequence[bytes]
) -> tuple[bytes | None, bytes | None, int | None, str]:
    """Pay the escrow out; returns winner, MID, score and the order's one-line result."""
    entry = books.entry
    task: OpenTask = entry.task
    revealed = {provider: claim for provider, claim in sorted(task.claims.items()) if claim.mid is not None}
    if task.cancelled:
        return _refund(books, "cancelled by the client")
    if not task.claims:
        return _refund(books, "nobody claimed")
    if not revealed:
        return _refund(books, "no claim was revealed")
    if task.test_links is None:
        deposit = entry.order.deposit
        return _console(books, tuple(revealed), deposit, result="the client withheld the test set")
    accepted = accepted_answers(entry)
    verdict = verdict_on(entry, entry.order.data_root)
    if verdict is not None and is_irretrievable(verdict):
        lost = {mid for mid, answer in accepted.items() if is_irretrievable(answer)}
        kept = tuple(provider for provider, claim in revealed.items() if claim.mid not in lost)
        return _console_without_test_set(books, kept, verdict)
    scored = {
        provider: accepted[claim.mid]
        for provider, claim in revealed.items()
        if claim.mid in accepted and accepted[claim.mid][0] not in (INVALID_SCORE, IRRETRIEVABLE_SCORE)
    }
    ranked = rank_claims(task, scored, entry.order.baseline)
    if not ranked:
        unscored = tuple(provider for provider, claim in revealed.items() if claim.mid not in accepted)
        result = "no model was scored" if not scored else "no model beat the baseline"
        return _console(books, unscored, 0, result=result)
    return _pay_winner(books, ranked, scored, members)


def rank_claims(task: OpenTask, scored: Mapping[bytes, Answer], baseline: int) -> tuple[bytes, ...]:
    """Providers that beat the baseline, best first.

    Highest score; then the smaller model file; then the lowest ``keccak256(provider, MID)``.
    """

    def rank(provider: bytes) -> tuple[int, int, bytes]:
        claim = task.claims[provider]
        assert claim.mid is not None
        return (-scored[provider][0], claim.size_bytes, keccak256(provider + claim.mid))

    return tuple(sorted((p for p in scored if scored[p][0] > baseline), key=rank))


def _refund(books: _Books, result: str) -> tuple[None, None, None, str]:
    order = books.entry.order
    books.pay(order.client, "client", f"refund: {result}", order.reward + order.deposit)
    return None, None, None, result


def _console_without_test_set(
    books: _Books, providers: Sequence[bytes], verdict: Answer
) -> tuple[None, None, None, str]:
    """As if it had been withheld; but who reported it and who judged have their share of the deposit."""
    entry = books.entry
    task: OpenTask = entry.task
    result = "the test set could not be fetched"
    if not providers:
        return _refund(books, result)
    subject, report = entry.order.data_root, task.reports[entry.order.data_root]
    jurors = agreeing_jurors(task.decided[subject], verdict)
    shares = slash_shares(entry.order.deposit, entry.parameters, accuser=True, jurors=True)
    reason = f"share of the deposit: {result}"
    books.pay(report.reporter, "reporter", reason, shares.accuser, subject, report.id)
    books.pay_shares(jurors, "juror", reason, shares.jurors, subject, report.id)
    return _console(books, providers, shares.treasury, shares.accuser + shares.jurors, result=result)


def _console(
    books: _Books, providers: Sequence[bytes], forfeited_wei: int, shared_wei: int = 0, *, result: str
) -> tuple[None, None, None, str]:
    """Refund the client less a consolation; what it forfeits of its deposit goes to the consoled as well,
    and ``shared_wei`` of it is paid already."""
    entry = books.entry
    order, task = entry.order, entry.task
    if not providers:
        return _refund(books, result)
    consolation = bps_of(order.reward, entry.parameters["consolation_bps"])
    weights = [(provider, 1) for provider in providers]
    mids = tuple(task.claims[provider].mid for provider in providers)
    books.pay_shares(weights, "provider", f"consolation: {result}", consolation, *mids)
    books.pay_shares(weights, "provider", f"forfeited deposit: {result}", forfeited_wei, *mids)
    refund = order.reward - consolation + order.deposit - forfeited_wei - shared_wei
    books.pay(order.client, "client", f"refund: {result}", refund)
    return None, None, None, result


def _pay_winner(
    books: _Books, ranked: Sequence[bytes], scored: Mapping[bytes, Answer], members: Sequence[bytes]
) -> tuple[bytes, bytes, int, str]:
    entry = books.entry
    order = entry.order
    task: OpenTask = entry.task
    winner, consoled = ranked[0], ranked[1:]
    mid = task.claims[winner].mid
    assert mid is not None
    shares = reward_shares(order.reward, entry.parameters, consoled=len(consoled))
    books.pay(winner, "provider", "best model", shares.winner, mid)
    right = [
        (validator, record)
        for (of, validator), record in sorted(task.validations.items())
        if of == mid and record.answer == scored[winner]
    ]
    if right:
        weights = [(validator, record.v_stake_wei) for validator, record in right]
        vids = tuple(record.vid for _, record in right)
        books.pay_shares(weights, "validator", "validated the best model", shares.validators, mid, *vids)
    else:
        # A verdict overturned every validation: the jurors did the validators' work.
        jurors = agreeing_jurors(task.decided[mid], scored[winner])
        books.pay_shares(jurors, "juror", "scored the best model", shares.validators, mid)
    books.pay_shares(
        [(p, 1) for p in consoled], "provider", "consolation: not the best", shares.consolation, mid
    )
    if members:
        books.pay_shares([(member, 1) for member in members], "aggregator", "tax", shares.tax)
    else:
        books.pay(books.treasury, "treasury", "tax without a committee", shares.tax)
    books.pay(order.client, "client", "deposit returned", order.deposit)
    return winner, mid, scored[winner][0], "won"
