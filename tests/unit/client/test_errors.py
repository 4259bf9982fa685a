"""The exception tree and how a status becomes one of its members."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import Message as ProtoMessage
from google.rpc.error_details_pb2 import DebugInfo, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from pointsman.v1.answer_pb2 import InvalidAnswer
from pointsman.v1.errors_pb2 import ErrorReason
from pointsman_client import assistant, errors
from pointsman_client.errors import (
    CLASS_BY_CODE,
    CLASS_BY_REASON,
    AnswerInvalid,
    ContractViolation,
    FieldViolation,
    InternalError,
    InvalidRequest,
    NoEligibleDeployment,
    PointsmanError,
    PreconditionViolation,
    QuotaViolation,
    RateLimited,
    StreamInterrupted,
    Unavailable,
    error_from_rpc,
)

REASONS = [name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number]


def raised(
    code: grpc.StatusCode, message: str = "", *details: ProtoMessage, raw_details: bytes | None = None, **trailers: Any
) -> grpc.aio.AioRpcError:
    status = Status(code=code.value[0], message=message)
    for detail in details:
        packed = PackedDetail()
        packed.Pack(detail)
        status.details.append(packed)
    trailing = [("grpc-status-details-bin", status.SerializeToString() if raw_details is None else raw_details)]
    trailing += [(key.replace("_", "-"), value) for key, value in trailers.items()]
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=message, debug_error_string=None
    )


def test_every_reason_of_the_contract_has_a_class() -> None:
    assert set(CLASS_BY_REASON) == set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_decides_whatever_the_code(reason: str) -> None:
    info = ErrorInfo(reason=reason, domain="pointsman.v1")
    error = error_from_rpc(raised(grpc.StatusCode.DATA_LOSS, "m", info))
    assert type(error) is CLASS_BY_REASON[reason]
    assert (error.reason, error.code) == (reason, grpc.StatusCode.DATA_LOSS)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_the_code_decides_where_there_is_no_reason(code: grpc.StatusCode) -> None:
    error = error_from_rpc(raised(code, "m"))
    assert type(error) is CLASS_BY_CODE.get(code, PointsmanError)
    assert error.reason == ""


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = {line.split("── ")[1].split()[0] for line in inspect.getdoc(errors).splitlines() if "── " in line}  # type: ignore[union-attr]
    assert drawn == {kind.__name__ for kind in PointsmanError.__subclasses__()}
    assert drawn >= {kind.__name__ for kind in CLASS_BY_REASON.values()}


def test_defaults_of_each_class_lead_back_to_it() -> None:
    for kind in set(CLASS_BY_REASON.values()):
        assert CLASS_BY_REASON[kind.default_reason] is kind


def test_reasons_of_strangers_are_not_ours() -> None:
    info = ErrorInfo(reason="RATE_LIMITED", domain="googleapis.com", metadata={"service": "x"})
    error = error_from_rpc(raised(grpc.StatusCode.INTERNAL, "m", info))
    assert type(error) is InternalError
    assert (error.reason, error.metadata) == ("", {})


def test_unknown_details_are_passed_over() -> None:
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    error = error_from_rpc(raised(grpc.StatusCode.UNAVAILABLE, "m", DebugInfo(detail="d"), retry))
    assert error.retry_delay_seconds == 1.5


def test_a_negative_delay_is_none_at_all() -> None:
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(-1500)
    assert error_from_rpc(raised(grpc.StatusCode.UNAVAILABLE, "m", retry)).retry_delay_seconds == 0


@pytest.mark.parametrize(
    "raw_details",
    [
        b"\xff\xff\xff",
        Status(code=5, message="m").SerializeToString(),
        Status(code=14, message="other").SerializeToString(),
    ],
    ids=["garbage", "other code", "other message"],
)
def test_damaged_details_leave_code_and_message(raw_details: bytes) -> None:
    error = error_from_rpc(raised(grpc.StatusCode.UNAVAILABLE, "m", raw_details=raw_details))
    assert type(error) is Unavailable
    assert error.message == "m"


def test_a_damaged_detail_leaves_the_others() -> None:
    status = Status(code=14, message="m")
    status.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
    packed = PackedDetail()
    packed.Pack(ErrorInfo(reason="DRAINING", domain="pointsman.v1"))
    status.details.append(packed)
    error = error_from_rpc(raised(grpc.StatusCode.UNAVAILABLE, "m", raw_details=status.SerializeToString()))
    assert (error.reason, error.retry_delay_seconds) == ("DRAINING", None)


def test_the_servers_request_id_wins() -> None:
    bare = raised(grpc.StatusCode.INTERNAL, "m")
    assert error_from_rpc(bare, request_id="sent").request_id == "sent"
    named = raised(grpc.StatusCode.INTERNAL, "m", x_request_id="made")
    assert error_from_rpc(named, request_id="sent").request_id == "made"


def test_it_reads_well() -> None:
    error = InvalidRequest(
        "the request breaks 1 rule", field_violations=[FieldViolation("completion.tier", "unknown")], request_id="r1"
    )
    expected = "INVALID_FIELD: the request breaks 1 rule\n  completion.tier: unknown\n  request id: r1"
    assert str(error) == expected
    unmet = NoEligibleDeployment(
        "nobody (request r1)",
        request_id="r1",
        precondition_violations=[PreconditionViolation("REGION", "deployments/a", "serves from us only")],
    )
    assert str(unmet) == "NO_ELIGIBLE_DEPLOYMENT: nobody (request r1)\n  deployments/a: serves from us only"
    limit = RateLimited("", reason="", quota_violations=[QuotaViolation("tenant:acme", "20 a minute")])
    assert str(limit) == "RESOURCE_EXHAUSTED\n  tenant:acme: 20 a minute"


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("slow", retry_delay_seconds=2.0, request_id="r", quota_violations=[QuotaViolation("s", "d")]),
        StreamInterrupted("cut", partial=assistant("Once"), metadata={"outputTokens": "2"}),
        AnswerInvalid("wrong", text="{}", violations=["/a: missing"], metadata={"textCharacters": "2"}),
        ContractViolation("differs", folded=assistant("a"), completed=assistant("b")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_it_survives_the_way_between_processes(error: PointsmanError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_numbers_of_an_interruption_may_be_missing_or_odd() -> None:
    odd = StreamInterrupted("cut", metadata={"outputTokens": "-2", "costMicroUsd": "many"})
    assert (odd.output_tokens, odd.cost_micro_usd, odd.partial_text) == (None, None, "")
    assert StreamInterrupted("cut", metadata={"outputTokens": "12"}).output_tokens == 12


class TestAnAnswerThatDoesNotFit:
    DETAIL = InvalidAnswer(text='{"a": "one"}', violations=['/a: "one" is not of type "integer"'])

    def told(self, characters: int, reason: str = "ANSWER_INVALID", domain: str = "pointsman.v1") -> PointsmanError:
        metadata = {"textCharacters": str(characters), "outputTokens": "7", "costMicroUsd": "31"}
        info = ErrorInfo(reason=reason, domain=domain, metadata=metadata)
        return error_from_rpc(raised(grpc.StatusCode.UNAVAILABLE, "does not fit", info, self.DETAIL))

    def test_it_carries_the_answer_and_what_is_wrong(self) -> None:
        error = self.told(12)
        assert isinstance(error, AnswerInvalid)
        assert (error.text, error.violations) == ('{"a": "one"}', ('/a: "one" is not of type "integer"',))
        assert (error.is_cut, error.output_tokens, error.cost_micro_usd) == (False, 7, 31)

    def test_it_says_when_the_answer_is_cut(self) -> None:
        error = self.told(9_000)
        assert isinstance(error, AnswerInvalid)
        assert error.is_cut

    def test_its_message_quotes_nothing(self) -> None:
        error = self.told(12)
        assert "one" not in str(error)
        assert "one" not in repr(error)

    @pytest.mark.parametrize(("reason", "domain"), [("INTERNAL", "pointsman.v1"), ("ANSWER_INVALID", "example.com")])
    def test_the_detail_beside_another_reason_is_passed_over(self, reason: str, domain: str) -> None:
        error = self.told(12, reason, domain)
        assert not isinstance(error, AnswerInvalid)
        assert error.code is grpc.StatusCode.UNAVAILABLE

    def test_without_the_detail_it_is_empty(self) -> None:
        info = ErrorInfo(reason="ANSWER_INVALID", domain="pointsman.v1")
        error = error_from_rpc(raised(grpc.StatusCode.ABORTED, "does not fit", info))
        assert isinstance(error, AnswerInvalid)
        assert (error.text, error.violations, error.is_cut, error.output_tokens) == ("", (), False, None)
        assert error.cost_micro_usd is None
