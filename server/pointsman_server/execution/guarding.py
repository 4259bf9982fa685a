"""The guards: what is done about sensitive data and prompt injections before anything is decided or sent."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Generic, TypeVar

import structlog

from pointsman_server.decision.tenancy import tightened
from pointsman_server.domain.call import Call, Completion, FailedOver, Relay
from pointsman_server.domain.errors import AnswerInvalid, FieldProblem, GuardsUnavailable, PromptRejected
from pointsman_server.domain.injection import InjectionDetector, Source
from pointsman_server.domain.ports import Telemetry
from pointsman_server.domain.reply import Reply
from pointsman_server.domain.request import CompletionRequest, DataClass
from pointsman_server.domain.safety import (
    AnswerMode,
    Guarded,
    InjectionMode,
    InjectionPolicy,
    SensitiveMode,
    SensitivePolicy,
    WhenGuardsFail,
)
from pointsman_server.domain.sensitive import Finding, SensitiveScanner
from pointsman_server.execution.masking import Masker
from pointsman_server.execution.request_texts import every_text, texts_from_outside, with_texts
from pointsman_server.execution.restoring import AnswerRestorer, new_findings

ON_LOOP_CHARACTERS = 8_192
"""New texts up to this size are looked at on the event loop (most in a millisecond or two, the worst known in twenty);
more in a thread."""

LOOK_SECONDS, LOOK_SECONDS_PER_CHARACTER = 0.5, 4e-6
"""A guard that takes longer has failed. A million characters of prose take a fiftieth of that, the worst known half."""

REMEMBERED_TEXTS = 4_096

_LOG = structlog.stdlib.get_logger("pointsman.security")

K = TypeVar("K")
V = TypeVar("V")

Findings = Mapping[str, Sequence[Finding]]
"""What was found in each text."""


class Guards:
    """Looks at requests and answers. One for the process; of texts it remembers hashes alone, and what came of them."""

    def __init__(self, scanner: SensitiveScanner, detector: InjectionDetector, telemetry: Telemetry) -> None:
        self._scanner = scanner
        self._detector = detector
        self._telemetry = telemetry
        self._scanned = _Remembered(_scan_with(scanner))
        self._judged: _Remembered[tuple[str, Source], float] = _Remembered(lambda asked: detector.score(*asked))

    async def guard(self, call: Call) -> Call:
        """The call as it may go on: with what was found, of a raised data class, masked; see the policy's `safety`.

        Raises `PromptRejected` and `GuardsUnavailable`.
        """
        safety = call.snapshot.safety_of(call.tenant)
        suspects = await self._suspects(call, safety.injection)
        return await self._without_sensitive_data(call, safety.sensitive, suspects)

    def restorer(self, call: Call) -> AnswerRestorer | None:
        """What makes the answers of this call readable again; None where they need not be touched."""
        return AnswerRestorer(call.guarded, self._scanner) if call.guarded.changes_answers else None

    def told(self, call: Call, completion: Completion, restorer: AnswerRestorer | None) -> Completion:
        """The answer as the caller gets it, with what was found in the request and in what the model wrote."""
        found = Counter(call.guarded.redactions)
        if call.guarded.answers is AnswerMode.DETECT:
            found += self.found_in_answer(call.guarded, completion.reply)
        if restorer is not None:
            completion = replace(completion, reply=restorer.whole(completion.reply))
            found += restorer.redactions
        return replace(completion, redactions=dict(sorted(found.items()))) if found else completion

    def is_fit_to_keep(self, call: Call, reply: Reply) -> bool:
        """Whether an answer may be given to others: nothing in it is somebody's own, or reads like an order."""
        if self.found_in_answer(call.guarded, reply):
            return False
        return self._detector.score(reply.text, Source.TOOL_RESULT) < self._detector.threshold

    def found_in_answer(self, guarded: Guarded, reply: Reply) -> Counter[str]:
        """Sensitive data that the model wrote and the request did not hold, by kind."""
        return Counter(finding.kind for finding in new_findings(self._scanner, guarded, reply.text))

    async def _suspects(self, call: Call, policy: InjectionPolicy) -> tuple[str, ...]:
        if policy.mode is InjectionMode.OFF:
            return ()
        texts = [(path, (text, source)) for path, source, text in texts_from_outside(call.request) if text]
        scores = await self._look(call, "injection", self._judged, [asked for _, asked in texts], policy.when_it_fails)
        if scores is None:
            return ()
        threshold = self._detector.threshold if policy.threshold is None else policy.threshold
        hits = [(path, asked[1], scores[asked]) for path, asked in texts if scores[asked] >= threshold]
        for path, source, score in hits:
            self._telemetry.guard_hit("injection", source.value, policy.mode.value)
            _LOG.warning(
                "prompt_injection",
                request_id=call.request_id,
                tenant=call.tenant,
                field=path,
                source=source.value,
                score=round(score, 3),
                action=policy.mode.value,
            )
        suspects = tuple(path for path, _, _ in hits)
        if suspects and policy.mode is InjectionMode.BLOCK:
            raise PromptRejected(tuple(FieldProblem(path, _LOOKS_HOSTILE) for path in suspects))
        return suspects

    async def _without_sensitive_data(self, call: Call, policy: SensitivePolicy, suspects: tuple[str, ...]) -> Call:
        guarded = Guarded(suspects=suspects, answers=policy.answers, ignored=policy.ignored)
        data_class = tightened(call.request.constraints, call.snapshot.governance.of(call.tenant)).data_class
        if policy.mode_for(data_class) is SensitiveMode.OFF:
            return replace(call, guarded=guarded)
        texts = list(every_text(call.request))
        found = await self._look(call, "sensitive", self._scanned, [text for _, text in texts], policy.when_it_fails)
        kept = _without_ignored(found or {}, policy.ignored)
        kinds = Counter(finding.kind for _, text in texts for finding in kept.get(text, ()))
        if not kinds:
            return replace(call, guarded=guarded)
        raised = max(data_class, policy.raises_to or data_class)
        mode = policy.mode_for(raised)
        self._tell(call, kinds, mode)
        if mode is SensitiveMode.BLOCK:
            raise PromptRejected(tuple(_holds(path, kept[text]) for path, text in texts if kept.get(text)))
        values = frozenset(text[one.start : one.end] for text, its in kept.items() for one in its)
        guarded = replace(guarded, redactions=dict(sorted(kinds.items())), values=values)
        request = _of_class(call.request, raised)
        if mode is SensitiveMode.MASK:
            masker = Masker(text for _, text in texts)
            request = with_texts(request, lambda text: masker.mask(text, kept.get(text, ())))
            guarded = replace(guarded, originals=masker.originals)
        return replace(call, request=request, guarded=guarded)

    def _tell(self, call: Call, kinds: Counter[str], mode: SensitiveMode) -> None:
        for kind, count in kinds.items():
            self._telemetry.guard_hit("sensitive", kind, mode.value, count)
        if mode in (SensitiveMode.MASK, SensitiveMode.BLOCK):
            _LOG.info(
                "sensitive_data",
                request_id=call.request_id,
                tenant=call.tenant,
                kinds=dict(sorted(kinds.items())),
                action=mode.value,
            )

    async def _look(
        self, call: Call, guard: str, at: _Remembered[K, V], keys: Sequence[K], when_it_fails: WhenGuardsFail
    ) -> dict[K, V] | None:
        """What the guard says of each; None where it failed and the policy lets calls through then."""
        try:
            return await at.all(keys)
        except Exception as error:
            # Its type alone: what an exception says may quote the text.
            _LOG.error(
                "guard_failed",
                guard=guard,
                request_id=call.request_id,
                tenant=call.tenant,
                error=type(error).__name__,
                action=when_it_fails.value,
            )
            self._telemetry.guard_hit(guard, "failed", when_it_fails.value)
            if when_it_fails is WhenGuardsFail.REFUSE:
                raise GuardsUnavailable from None
            return None


async def restored(
    events: AsyncGenerator[Relay | FailedOver, None], restorer: AnswerRestorer
) -> AsyncGenerator[Relay | FailedOver, None]:
    """The events as the caller gets them; what an error quotes of the answer is restored as well."""
    async with aclosing(events):
        try:
            async for event in events:
                told = restorer.relay(event) if isinstance(event, Relay) else restorer.moved(event)
                if told is not None:
                    yield told
        except AnswerInvalid as error:
            error.text = restorer.text(error.text)
            error.violations = tuple(map(restorer.text, error.violations))
            raise
        rest = restorer.rest()
        if rest is not None:
            yield rest


class _Remembered(Generic[K, V]):
    """A function of texts, with its last results by the texts' hashes: turns of a conversation come again and again."""

    def __init__(self, look: Callable[[K], V]) -> None:
        self._look = look
        self._results: OrderedDict[bytes, V] = OrderedDict()

    async def all(self, keys: Sequence[K]) -> dict[K, V]:
        """The result for each key."""
        results: dict[K, V] = {}
        missing: dict[K, bytes] = {}
        for key in keys:
            digest = _digest(key)
            if digest in self._results:
                self._results.move_to_end(digest)
                results[key] = self._results[digest]
            else:
                missing[key] = digest
        for key, result in (await self._all_new(list(missing))).items():
            results[key] = self._results[missing[key]] = result
        while len(self._results) > REMEMBERED_TEXTS:
            self._results.popitem(last=False)
        return results

    async def _all_new(self, keys: Sequence[K]) -> dict[K, V]:
        characters = sum(map(_length, keys))
        if characters <= ON_LOOP_CHARACTERS:
            return {key: self._look(key) for key in keys}
        async with asyncio.timeout(LOOK_SECONDS + LOOK_SECONDS_PER_CHARACTER * characters):
            return await asyncio.to_thread(lambda: {key: self._look(key) for key in keys})


_LOOKS_HOSTILE = "was taken for a prompt injection; rephrase it, or ask the operators of this service"


def _scan_with(scanner: SensitiveScanner) -> Callable[[str], Sequence[Finding]]:
    return lambda text: tuple(scanner.scan(text))


def _digest(key: object) -> bytes:
    text, source = key if isinstance(key, tuple) else (key, None)
    name = source.value.encode() if isinstance(source, Source) else b""
    return hashlib.blake2b(str(text).encode("utf-8", "surrogatepass"), digest_size=16, person=name).digest()


def _length(key: object) -> int:
    return len(key[0]) if isinstance(key, tuple) else len(str(key))


def _of_class(request: CompletionRequest, data_class: DataClass) -> CompletionRequest:
    if data_class <= request.constraints.data_class:
        return request
    return replace(request, constraints=replace(request.constraints, data_class=data_class))


def _without_ignored(found: Findings, ignored: frozenset[str]) -> Findings:
    if not ignored:
        return found
    return {text: [one for one in its if one.kind not in ignored] for text, its in found.items()}


def _holds(path: str, findings: Sequence[Finding]) -> FieldProblem:
    kinds = ", ".join(sorted({finding.kind for finding in findings}))
    return FieldProblem(path, f"holds sensitive data ({kinds}), which this service does not pass on; leave it out")
