"""AdminService's methods about policies, over the wire: what is asked, what is answered, and typed refusals."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from kit.policy_house import House, name_in, serving, text
from kit.running import RichError
from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import admin_service_pb2_grpc
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.caller import LOCAL_CALLER
from pointsman_server.execution.policy_watch import FILE_AUTHOR


@pytest.fixture
async def house(tmp_path: Path) -> AsyncGenerator[House, None]:
    file = tmp_path / "policy.yaml"
    file.write_text(text("first"))
    database = Database(f"sqlite:///{tmp_path}/pointsman.db")
    await database.open()
    async with House(file, database=database).open() as house:
        yield house
    await database.close()


@pytest.fixture
async def admin(house: House) -> AsyncGenerator[Any, None]:
    async with serving(house) as address, grpc.aio.insecure_channel(address) as channel:
        yield admin_service_pb2_grpc.AdminServiceStub(channel)


async def refused(call: Any) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = RichError(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    return error


async def apply(admin: Any, name: str, **fields: Any) -> pb.ApplyPolicyResponse:
    answer: pb.ApplyPolicyResponse = await admin.ApplyPolicy(pb.ApplyPolicyRequest(yaml=text(name), **fields))
    return answer


class TestApply:
    async def test_it_is_in_force_when_it_is_answered(self, admin: Any, house: House) -> None:
        before = house.keeper.current.version
        with structlog.testing.capture_logs() as logs:
            answer = await apply(admin, "second", comment="larger")
        assert name_in(house.keeper.current) == "second"
        assert answer.version == house.keeper.current.version
        assert answer.diff.startswith(f"--- policy {before}\n+++ policy {answer.version}\n")
        (line,) = [line for line in logs if line["event"] == "policy_applied"]
        assert (line["policy_version"], line["actor"]) == (answer.version, LOCAL_CALLER.name)
        status = await admin.GetStatus(pb.GetStatusRequest())
        assert status.policy_version == answer.version

    async def test_checking_changes_nothing(self, admin: Any, house: House) -> None:
        before = house.keeper.current.version
        answer = await apply(admin, "second", validate_only=True)
        assert answer.version == before == house.keeper.current.version
        assert "+deployments" in answer.diff

    async def test_every_problem_is_a_violation_with_its_line(self, admin: Any, house: House) -> None:
        wrong = text("second").replace("quality: 0.5", "quality: 5, size: 1")
        error = await refused(admin.ApplyPolicy(pb.ApplyPolicyRequest(yaml=wrong)))
        told = [(one.field, one.description) for one in error.details["BadRequest"].field_violations]
        assert sorted(told) == [
            ("yaml", "line 4: models.small.quality is 5. Write a number from 0 to 1."),
            ("yaml", "line 4: models.small.size is not a known key: 'size'. Known: kind, tier, context_window_tokens, "
             "max_output_tokens, capabilities, quality, price, tokenizer."),
        ]  # fmt: skip
        assert name_in(house.keeper.current) == "first"

    async def test_the_longest_list_of_problems_still_arrives(self, admin: Any) -> None:
        wrong = "".join(f"key_that_nobody_knows_number_{number}: 1\n" for number in range(90))
        error = await refused(admin.ApplyPolicy(pb.ApplyPolicyRequest(yaml=wrong)))
        assert "more problems" in error.details["BadRequest"].field_violations[-1].description

    async def test_secrets_in_it_are_not_told(self, admin: Any, house: House) -> None:
        wrong = text("second").replace('/v1"', '/v1", api_key: sk-planted-0123456789abcdef')
        error = await refused(admin.ApplyPolicy(pb.ApplyPolicyRequest(yaml=wrong)))
        assert "planted" not in error.everything()
        assert len((await admin.ListPolicyVersions(pb.ListPolicyVersionsRequest())).policies) == 1

    @pytest.mark.parametrize(
        "request_",
        [
            pb.ApplyPolicyRequest(),
            pb.ApplyPolicyRequest(yaml="x" * 1_000_001),
            pb.ApplyPolicyRequest(yaml=text(), comment="x" * 1_025),
        ],
        ids=["empty", "too long", "comment too long"],
    )
    async def test_the_contracts_rules_hold(self, admin: Any, request_: pb.ApplyPolicyRequest) -> None:
        assert (await refused(admin.ApplyPolicy(request_))).fields


class TestVersions:
    async def test_the_one_in_force_with_its_text(self, admin: Any) -> None:
        await apply(admin, "second", comment="larger")
        policy = (await admin.GetPolicy(pb.GetPolicyRequest())).policy
        assert (policy.yaml, policy.author, policy.comment) == (text("second"), LOCAL_CALLER.name, "larger")
        assert policy.apply_time.seconds > 0

    async def test_an_earlier_one(self, admin: Any, house: House) -> None:
        first = house.keeper.current.version
        await apply(admin, "second")
        policy = (await admin.GetPolicy(pb.GetPolicyRequest(version=first))).policy
        assert (policy.version, policy.yaml, policy.author) == (first, text("first"), FILE_AUTHOR)

    async def test_one_that_was_only_kept_has_no_time(self, admin: Any, house: House) -> None:
        assert house.store is not None
        await house.store.keep_policy("kept", text("second"))
        policy = (await admin.GetPolicy(pb.GetPolicyRequest(version="kept"))).policy
        assert not policy.HasField("apply_time")

    async def test_an_unknown_one(self, admin: Any) -> None:
        assert (await refused(admin.GetPolicy(pb.GetPolicyRequest(version="nowhere")))).fields == ["version"]

    async def test_they_are_listed_newest_first_page_by_page(self, admin: Any) -> None:
        versions = [(await apply(admin, f"n{number}")).version for number in range(4)]
        seen: list[str] = []
        token = ""
        while True:
            page = await admin.ListPolicyVersions(pb.ListPolicyVersionsRequest(page_size=2, page_token=token))
            assert 1 <= len(page.policies) <= 2
            assert not any(one.yaml for one in page.policies)
            seen += [one.version for one in page.policies]
            token = page.next_page_token
            if not token:
                break
        assert seen[:4] == versions[::-1]
        assert len(seen) == 5

    @pytest.mark.parametrize("last", ["deployments-after:x", "policies-after:soon", "policies-after:inf", "\xff"])
    async def test_a_foreign_token(self, admin: Any, last: str) -> None:
        token = base64.urlsafe_b64encode(last.encode("latin-1")).decode()
        error = await refused(admin.ListPolicyVersions(pb.ListPolicyVersionsRequest(page_token=token)))
        assert error.fields == ["page_token"]

    async def test_a_huge_number_as_token(self, admin: Any) -> None:
        token = base64.urlsafe_b64encode(b"policies-after:0x1p99999").decode()
        error = await refused(admin.ListPolicyVersions(pb.ListPolicyVersionsRequest(page_token=token)))
        assert error.fields == ["page_token"]


class TestRollback:
    async def test_an_earlier_version_is_in_force_again(self, admin: Any, house: House) -> None:
        first = house.keeper.current.version
        await apply(admin, "second")
        with structlog.testing.capture_logs() as logs:
            answer = await admin.RollbackPolicy(pb.RollbackPolicyRequest(version=first, comment="slow"))
        assert answer.version == first == house.keeper.current.version
        assert [line["actor"] for line in logs if line["event"] == "policy_rolled_back"] == [LOCAL_CALLER.name]
        assert house.store is not None
        event = (await house.store.audit(1))[0]
        assert (event.action, event.actor, event.target, event.comment) == ("policy_applied", "local", first, "slow")

    async def test_to_an_unknown_one(self, admin: Any) -> None:
        error = await refused(admin.RollbackPolicy(pb.RollbackPolicyRequest(version="nowhere")))
        assert error.fields == ["version"]
        assert (await refused(admin.RollbackPolicy(pb.RollbackPolicyRequest()))).fields == ["version"]
