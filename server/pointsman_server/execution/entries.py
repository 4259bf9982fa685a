"""The ledger's entries of a call: one for each attempt, whatever became of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import orjson

from pointsman_server.domain.call import Attempt, AttemptOutcome, Call
from pointsman_server.domain.ledger import BudgetKey, Entry, EntryOutcome

_OUTCOMES = {
    AttemptOutcome.SUCCEEDED: EntryOutcome.SUCCEEDED,
    AttemptOutcome.FAILED: EntryOutcome.FAILED,
    AttemptOutcome.CANCELLED: EntryOutcome.CANCELLED,
}


def entries_of(
    call: Call, attempts: Sequence[Attempt], keys: Collection[BudgetKey], at: float, *, estimated: bool
) -> tuple[Entry, ...]:
    """The attempts as entries; `estimated` says whether the last one's counts are ours.

    Those of an attempt that we hung up on always are: providers tell what they bill at the end.
    """
    labels_json, budgets_json = _labels_json(call), _budgets_json(keys)
    last = len(attempts)
    return tuple(
        Entry(
            request_id=call.request_id,
            attempt=number,
            at=at,
            tenant=call.tenant,
            deployment=attempt.deployment.id,
            provider=attempt.deployment.provider.label,
            model=attempt.deployment.model.id,
            outcome=_OUTCOMES[attempt.outcome],
            input_tokens=attempt.usage.input_tokens or 0,
            cached_input_tokens=attempt.usage.cached_input_tokens,
            cache_write_input_tokens=attempt.usage.cache_write_input_tokens,
            output_tokens=attempt.usage.output_tokens or 0,
            reasoning_tokens=attempt.usage.reasoning_tokens,
            cost_micro_usd=attempt.cost_micro_usd,
            price_version=attempt.deployment.model.price.version,
            estimated=attempt.estimated
            or attempt.outcome is AttemptOutcome.CANCELLED
            or (estimated and number == last),
            calls=int(number == last),
            labels_json=labels_json,
            budgets_json=budgets_json,
        )
        for number, attempt in enumerate(attempts, start=1)
    )


def unsettled_entry(call: Call, keys: Collection[BudgetKey], at: float, worst_cost_micro_usd: int) -> Entry:
    """What is booked for a call that nobody settled."""
    return Entry(
        request_id=call.request_id,
        attempt=0,
        at=at,
        tenant=call.tenant,
        deployment="",
        provider="",
        model="",
        outcome=EntryOutcome.UNSETTLED,
        input_tokens=0,
        cached_input_tokens=0,
        cache_write_input_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        cost_micro_usd=worst_cost_micro_usd,
        price_version="",
        estimated=True,
        calls=1,
        labels_json=_labels_json(call),
        budgets_json=_budgets_json(keys),
    )


def _labels_json(call: Call) -> str:
    labels = call.request.labels
    return orjson.dumps(dict(labels), option=orjson.OPT_SORT_KEYS).decode() if labels else "{}"


def _budgets_json(keys: Collection[BudgetKey]) -> str:
    return orjson.dumps([[key.budget, key.period] for key in keys]).decode() if keys else "[]"
