from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from kit.catalog import call, request, snapshot, user
from kit.guards import ATTACK, PlainDetector, PlainScanner, guards
from kit.watching import SeenTelemetry
from pointsman_server.domain.call import Call
from pointsman_server.domain.errors import GuardsUnavailable, InvalidRequest, PromptRejected
from pointsman_server.domain.governance import Governance, TenantPolicy
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import DataClass, Document, RoutingConstraints
from pointsman_server.domain.safety import (
    AnswerMode,
    InjectionMode,
    InjectionPolicy,
    Safety,
    SensitiveMode,
    SensitivePolicy,
    WhenGuardsFail,
)
from pointsman_server.execution.guarding import ON_LOOP_CHARACTERS, REMEMBERED_TEXTS, Guards
from pointsman_server.execution.request_texts import every_text

OFF = InjectionPolicy(InjectionMode.OFF)
MASK = Safety(SensitivePolicy(SensitiveMode.MASK), OFF)


def asking(*messages: Message, safety: Safety | None = None, **changes: Any) -> Call:
    fields = {name: changes.pop(name) for name in ("documents", "constraints") if name in changes}
    policy = snapshot(safety=safety or Safety(), **changes.pop("policy", {}))
    return call(policy, request=request(messages=messages or (user("hello"),), **fields), **changes)


def guarded(one: Call, eyes: Guards | None = None) -> Call:
    return asyncio.run((eyes or guards()).guard(one))


def said(role: Role, *parts: Part) -> Message:
    return Message(role, parts)


class TestSensitiveData:
    def test_is_found_and_left_where_it_is_unless_the_policy_wants_more(self) -> None:
        asked = asking(user("I am ann@x.org, ann@x.org, 123-45-6789"))
        after = guarded(asked)
        assert after.request is asked.request
        assert after.guarded.redactions == {"EMAIL": 2, "US_SSN": 1}
        assert after.guarded.originals == {}
        assert not after.guarded.is_clean

    def test_nothing_found_changes_nothing(self) -> None:
        asked = asking(user("hello"))
        after = guarded(asked)
        assert after.request is asked.request
        assert after.guarded.is_clean
        assert not after.guarded.changes_answers

    def test_is_masked_in_every_text_that_a_model_is_shown(self) -> None:
        secret = "ann@x.org"
        image, opaque = ImagePart(b"ann@x.org", "image/png"), OpaquePart("d", "k", secret)
        asked = asking(
            said(Role.SYSTEM, TextPart(secret)),
            said(Role.USER, TextPart(secret), image),
            said(Role.ASSISTANT, ReasoningPart(secret), TextPart(secret), ToolCallPart("c", "f", secret), opaque),
            said(Role.TOOL, ToolResultPart("c", secret)),
            documents=(Document("d", secret, metadata={"author": secret}),),
            safety=MASK,
        )
        after = guarded(asked)
        assert {text for _, text in every_text(after.request)} == {"[EMAIL_1]"}
        assert len(list(every_text(after.request))) == 8
        assert after.request.messages[1].parts[1] == image
        assert after.request.messages[2].parts[3] == opaque
        assert after.guarded.originals == {"[EMAIL_1]": secret}

    def test_is_refused_by_place_and_kind_and_never_quoted(self) -> None:
        asked = asking(user("hi"), user("ann@x.org 123-45-6789"), safety=Safety(SensitivePolicy(SensitiveMode.BLOCK)))
        with pytest.raises(PromptRejected) as caught:
            guarded(asked)
        (problem,) = caught.value.problems
        assert problem.field == "completion.messages[1].parts[0]"
        assert "(EMAIL, US_SSN)" in problem.description
        assert "ann" not in str(caught.value)

    def test_kinds_that_nobody_minds_are_not_seen(self) -> None:
        policy = SensitivePolicy(SensitiveMode.MASK, ignored=frozenset({"EMAIL"}))
        after = guarded(asking(user("ann@x.org 123-45-6789"), safety=Safety(policy)))
        assert after.request.messages[0].text == "ann@x.org [US_SSN_1]"

    def test_off_looks_at_nothing(self) -> None:
        eyes = Guards(scanner := PlainScanner(), PlainDetector(), SeenTelemetry())
        asked = asking(user("ann@x.org"), safety=Safety(SensitivePolicy(SensitiveMode.OFF)))
        assert guarded(asked, eyes).guarded.redactions == {}
        assert scanner.scans == 0

    def test_a_tenant_has_its_own_rule(self) -> None:
        governance = Governance(tenants={"shop": TenantPolicy(safety=MASK)})
        asked = asking(user("ann@x.org"), policy={"governance": governance}, tenant="shop")
        assert guarded(asked).request.messages[0].text == "[EMAIL_1]"

    def test_is_counted_and_logged_without_a_word_of_it(self) -> None:
        telemetry = SeenTelemetry()
        with capture_logs() as lines:
            guarded(asking(user("ann@x.org ann@x.org"), safety=MASK, tenant="shop"), guards(telemetry))
        assert telemetry.guard_hits == [("sensitive", "EMAIL", "mask", 2)]
        assert [(line["event"], line["kinds"], line["tenant"]) for line in lines] == [
            ("sensitive_data", {"EMAIL": 2}, "shop")
        ]
        assert "ann" not in str(lines)


class TestDataClasses:
    def test_what_is_found_raises_the_class(self) -> None:
        safety = Safety(SensitivePolicy(raises_to=DataClass.CONFIDENTIAL))
        assert (
            guarded(asking(user("ann@x.org"), safety=safety)).request.constraints.data_class == DataClass.CONFIDENTIAL
        )
        assert guarded(asking(user("hello"), safety=safety)).request.constraints.data_class == DataClass.PUBLIC

    def test_and_never_lowers_it(self) -> None:
        safety = Safety(SensitivePolicy(raises_to=DataClass.INTERNAL))
        asked = asking(
            user("ann@x.org"), safety=safety, constraints=RoutingConstraints(data_class=DataClass.RESTRICTED)
        )
        assert guarded(asked).request.constraints.data_class == DataClass.RESTRICTED

    def test_a_class_may_have_its_own_mode(self) -> None:
        policy = SensitivePolicy(SensitiveMode.OFF, by_data_class={DataClass.CONFIDENTIAL: SensitiveMode.MASK})
        public = asking(user("ann@x.org"), safety=Safety(policy))
        assert guarded(public).request is public.request
        confidential = asking(
            user("ann@x.org"), safety=Safety(policy), constraints=RoutingConstraints(data_class=DataClass.CONFIDENTIAL)
        )
        assert guarded(confidential).request.messages[0].text == "[EMAIL_1]"

    def test_the_mode_of_the_class_that_it_was_raised_to_holds(self) -> None:
        policy = SensitivePolicy(
            by_data_class={DataClass.RESTRICTED: SensitiveMode.BLOCK}, raises_to=DataClass.RESTRICTED
        )
        with pytest.raises(PromptRejected):
            guarded(asking(user("ann@x.org"), safety=Safety(policy)))

    def test_a_tenant_s_least_class_counts(self) -> None:
        policy = SensitivePolicy(SensitiveMode.OFF, by_data_class={DataClass.RESTRICTED: SensitiveMode.MASK})
        governance = Governance(others=TenantPolicy(least_data_class=DataClass.RESTRICTED))
        asked = asking(user("ann@x.org"), safety=Safety(policy), policy={"governance": governance})
        assert guarded(asked).request.messages[0].text == "[EMAIL_1]"


class TestInjection:
    def attack(self, mode: InjectionMode, threshold: float | None = None) -> Call:
        return asking(
            said(Role.SYSTEM, TextPart(ATTACK)),
            user("hello"),
            said(Role.ASSISTANT, TextPart(ATTACK), ToolCallPart("c", "f", "{}")),
            said(Role.TOOL, ToolResultPart("c", f"Now {ATTACK}.")),
            user(f"please {ATTACK}"),
            documents=(Document("a", "fine"), Document("b", ATTACK)),
            safety=Safety(SensitivePolicy(SensitiveMode.OFF), InjectionPolicy(mode, threshold)),
        )

    PLACES = ("completion.messages[3].parts[0]", "completion.messages[4].parts[0]", "completion.documents[1].text")

    def test_is_looked_for_in_what_people_tools_and_documents_say(self) -> None:
        assert guarded(self.attack(InjectionMode.FLAG)).guarded.suspects == self.PLACES

    def test_is_refused_by_place(self) -> None:
        with pytest.raises(PromptRejected) as caught:
            guarded(self.attack(InjectionMode.BLOCK))
        assert tuple(problem.field for problem in caught.value.problems) == self.PLACES
        assert isinstance(caught.value, InvalidRequest)
        assert ATTACK not in str(caught.value)

    def test_a_policy_may_have_its_own_threshold(self) -> None:
        assert guarded(self.attack(InjectionMode.FLAG, threshold=0.95)).guarded.suspects == ()
        assert len(guarded(self.attack(InjectionMode.FLAG, threshold=0.05)).guarded.suspects) == 5

    def test_off_looks_at_nothing(self) -> None:
        assert guarded(self.attack(InjectionMode.OFF), guards(fails_at=ATTACK)).guarded.suspects == ()

    def test_is_counted_and_logged_without_a_word_of_it(self) -> None:
        telemetry = SeenTelemetry()
        with capture_logs() as lines:
            guarded(self.attack(InjectionMode.LOG), guards(telemetry))
        assert [hit[:3] for hit in telemetry.guard_hits] == [
            ("injection", source, "log") for source in ("tool_result", "user", "document")
        ]
        assert [line["field"] for line in lines] == list(self.PLACES)
        assert all(line["score"] == 0.9 and line["log_level"] == "warning" for line in lines)
        assert ATTACK not in str(lines)


class TestFailures:
    def safety(self, policy: WhenGuardsFail) -> Safety:
        return Safety(SensitivePolicy(when_it_fails=policy), InjectionPolicy(when_it_fails=policy))

    def test_nothing_passes_a_guard_that_cannot_look(self) -> None:
        with capture_logs() as lines, pytest.raises(GuardsUnavailable) as caught:
            guarded(asking(user("boom"), safety=self.safety(WhenGuardsFail.REFUSE)), guards(fails_at="boom"))
        assert caught.value.__cause__ is None
        assert [(line["event"], line["error"]) for line in lines] == [("guard_failed", "RuntimeError")]
        assert "boom" not in str(lines)

    def test_unless_the_policy_says_so(self) -> None:
        telemetry = SeenTelemetry()
        with capture_logs() as lines:
            after = guarded(
                asking(user("boom"), safety=self.safety(WhenGuardsFail.ALLOW)), guards(telemetry, fails_at="boom")
            )
        assert after.guarded.is_clean
        assert telemetry.guard_hits == [("injection", "failed", "allow", 1), ("sensitive", "failed", "allow", 1)]
        assert [line["guard"] for line in lines] == ["injection", "sensitive"]


class TestWhatIsRemembered:
    def test_turns_that_come_again_are_not_looked_at_again(self) -> None:
        eyes = Guards(scanner := PlainScanner(), PlainDetector(), SeenTelemetry())
        first = [user("ann@x.org"), user("two")]
        assert guarded(asking(*first), eyes).guarded.redactions == {"EMAIL": 1}
        assert guarded(asking(*first, user("three")), eyes).guarded.redactions == {"EMAIL": 1}
        assert scanner.scans == 3

    def test_only_so_many(self) -> None:
        eyes = Guards(scanner := PlainScanner(), PlainDetector(), SeenTelemetry())
        texts = [user(f"text {number}") for number in range(REMEMBERED_TEXTS + 1)]
        guarded(asking(*texts), eyes)
        guarded(asking(texts[0]), eyes)
        assert scanner.scans == REMEMBERED_TEXTS + 2

    def test_large_texts_are_looked_at_beside_the_event_loop(self) -> None:
        asked = asking(user("x" * ON_LOOP_CHARACTERS + " ann@x.org"), safety=MASK)
        assert guarded(asked).request.messages[0].text.endswith(" [EMAIL_1]")


@pytest.mark.parametrize(
    ("text", "fit"), [("Paris.", True), ("Write to eve@x.org.", False), (f"Now {ATTACK}.", False), ("ann@x.org", True)]
)
def test_only_answers_without_orders_and_other_people_s_data_are_for_others(text: str, fit: bool) -> None:
    asked = guarded(asking(user("ann@x.org")))
    reply = Reply((TextPart(text),), FinishReason.STOP, "", Usage(), (), "", "")
    assert guards().is_fit_to_keep(asked, reply) is fit


def test_answers_are_looked_at_where_the_policy_wants_to_know() -> None:
    asked = asking(user("ann@x.org"), safety=Safety(SensitivePolicy(answers=AnswerMode.DETECT), OFF))
    assert guards().restorer(guarded(asked)) is None
    masked = asking(user("hello"), safety=Safety(SensitivePolicy(answers=AnswerMode.MASK), OFF))
    assert guards().restorer(guarded(masked)) is not None
