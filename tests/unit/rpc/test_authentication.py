from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kit.callers import Doorkeeper, Peer, bearer
from pointsman.v1 import (
    admin_service_pb2,
    embedding_service_pb2,
    feedback_service_pb2,
    router_service_pb2,
)
from pointsman_server.domain.caller import LOCAL_CALLER, LOCAL_TENANT, Caller, Role
from pointsman_server.domain.control import Control
from pointsman_server.domain.errors import PermissionDenied, Unauthenticated
from pointsman_server.domain.governance import Governance, Identity, TenantPolicy
from pointsman_server.execution.keys import KEY_CHARACTERS, make_key
from pointsman_server.rpc import authentication
from pointsman_server.rpc.authentication import ANYBODY, METHOD_ROLES, OPEN_METHODS, Mode

COMPLETE = "/pointsman.v1.RouterService/Complete"
STATUS = "/pointsman.v1.AdminService/GetStatus"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
NOWHERE = Peer()
CALLS = frozenset({Role.CALL})
FILES = (router_service_pb2, embedding_service_pb2, feedback_service_pb2, admin_service_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def refusal(keeper: Doorkeeper, entries: Any, peer: Peer = NOWHERE, method: str = COMPLETE) -> Unauthenticated:
    """The error of a caller who is not known."""
    with pytest.raises(Unauthenticated) as caught:
        keeper.authenticator.admission_to(method).identify(entries, peer)
    return caught.value


def admitted(keeper: Doorkeeper, entries: Any, peer: Peer = NOWHERE, method: str = COMPLETE) -> Caller:
    """The caller, who may call the method."""
    admission = keeper.authenticator.admission_to(method)
    caller = admission.identify(entries, peer)
    admission.authorise(caller, entries)
    return caller


def denied(keeper: Doorkeeper, entries: Any, method: str = COMPLETE, peer: Peer = NOWHERE) -> str:
    """What a known caller is told."""
    with pytest.raises(PermissionDenied) as caught:
        admitted(keeper, entries, peer, method)
    return str(caught.value)


@pytest.fixture
def keeper() -> Doorkeeper:
    return Doorkeeper()


class TestKeys:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_row_30_a_key_makes_a_caller(self, keeper: Doorkeeper, scheme: str) -> None:
        key = keeper.key("acme")
        caller = admitted(keeper, (("user-agent", "x"), ("authorization", f"{scheme} {key}")))
        assert (caller.tenant, caller.roles) == ("acme", CALLS)
        assert caller.name == key.split("_")[1]

    def test_the_other_header_does_as_well(self, keeper: Doorkeeper) -> None:
        assert admitted(keeper, (("x-api-key", keeper.key("acme")),)).tenant == "acme"

    @pytest.mark.parametrize(
        ("present", "why"),
        [
            (lambda key: (), "no_credentials"),
            (lambda key: (("authorization-bin", key.encode()),), "no_credentials"),
            (lambda key: (("authorization", ""),), "malformed"),
            (lambda key: (("authorization", "Bearer"),), "malformed"),
            (lambda key: (("authorization", "Bearer "),), "unknown_key"),
            (lambda key: (("authorization", key),), "malformed"),
            (lambda key: (("authorization", f"Basic {key}"),), "malformed"),
            (lambda key: (("authorization", f"Bearer  {key}"),), "malformed"),
            (lambda key: (("authorization", f"Bearer {key} "),), "malformed"),
            (lambda key: (("authorization", f"Bearer {key}, Bearer {key}"),), "malformed"),
            (lambda key: (("authorization", f"Bearer {key[:-1]}"),), "unknown_key"),
            (lambda key: (("authorization", f"Bearer {key.swapcase()}"),), "unknown_key"),
            (lambda key: (("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhY21lIn0."),), "unknown_key"),
            (lambda key: (("authorization", "Bearer ' OR '1'='1' --"),), "unknown_key"),
            (lambda key: (("authorization", "Bearer pm_" + "x" * 1_000_000),), "malformed"),
            (lambda key: (("x-api-key", f"Bearer {key}"),), "unknown_key"),
            (lambda key: (("x-api-key", key + "\n"),), "unknown_key"),
            (lambda key: (("x-api-key", "\0" * KEY_CHARACTERS),), "unknown_key"),
            (lambda key: (*bearer(key), *bearer(key)), "several_credentials"),
            (lambda key: (*bearer(key), ("authorization", "")), "several_credentials"),
            (lambda key: (("x-api-key", key), *bearer(key)), "several_credentials"),
        ],
    )
    def test_rows_30_and_31_all_else_is_refused(
        self, keeper: Doorkeeper, present: Callable[[str], Any], why: str
    ) -> None:
        error = refusal(keeper, present(keeper.key()))
        assert error.why == why
        assert str(error) == str(Unauthenticated())

    def test_a_key_that_nobody_made_is_refused(self, keeper: Doorkeeper) -> None:
        keeper.key()
        assert refusal(keeper, bearer(make_key().text)).why == "unknown_key"

    def test_an_expired_key_is_refused_to_the_second(self, keeper: Doorkeeper) -> None:
        key = keeper.key(expires_at=keeper.clock.now() + 60)
        assert admitted(keeper, bearer(key))
        keeper.clock.advance(60)
        assert refusal(keeper, bearer(key)).why == "expired_key"

    def test_a_revoked_key_is_refused_as_soon_as_it_is_known(self, keeper: Doorkeeper) -> None:
        key = keeper.key()
        admit = keeper.authenticator.admission_to(COMPLETE).identify
        assert admit(bearer(key), NOWHERE)
        keeper.change_keys(revoked_at=keeper.clock.now())
        with pytest.raises(Unauthenticated) as caught:
            admit(bearer(key), NOWHERE)
        assert caught.value.why == "revoked_key"

    def test_a_key_that_was_removed_is_refused(self, keeper: Doorkeeper) -> None:
        key = keeper.key()
        keeper.control = Control()
        assert refusal(keeper, bearer(key)).why == "unknown_key"

    def test_two_keys_with_the_same_beginning_are_two_callers(self, keeper: Doorkeeper) -> None:
        """A cache of callers by a part of the key would mix them up."""
        mine = keeper.key("acme")
        assert refusal(keeper, bearer(mine[:40] + make_key().text[40:])).why == "unknown_key"
        assert admitted(keeper, bearer(mine)).tenant == "acme"

    @given(text=st.text(alphabet=st.characters(codec=None), max_size=200), place=st.integers(0, KEY_CHARACTERS))
    def test_no_text_around_or_instead_of_a_key_opens_the_door(self, text: str, place: int) -> None:
        keeper = Doorkeeper()
        key = keeper.key()
        for value in (text, key[:place] + text, text + key[place:], key[:place] + text + key[place:]):
            if value != key:
                for entries in (bearer(value), (("x-api-key", value),), (("authorization", value),)):
                    error = refusal(keeper, entries)
                    assert str(error) == str(Unauthenticated())
                    assert error.why in {"malformed", "unknown_key"}

    @pytest.mark.parametrize("look_alike", ["\u0440", "\uff50", "P"])
    def test_letters_that_look_alike_are_not_the_same(self, keeper: Doorkeeper, look_alike: str) -> None:
        key = keeper.key()
        assert refusal(keeper, bearer(look_alike + key[1:])).why == "unknown_key"


class TestCost:
    """Figures of the processor's time, for the clock on the wall shows what else the machine does."""

    ROUNDS, CALLS = 15, 300

    def cpu_seconds(self, keeper: Doorkeeper, entries: Any) -> float:
        """Of one refusal: the median of many rounds."""
        admit = keeper.authenticator.admission_to(COMPLETE).identify

        def one_round() -> float:
            started_at = time.thread_time()
            for _ in range(self.CALLS):
                with suppress(Unauthenticated):
                    admit(entries, NOWHERE)
            return (time.thread_time() - started_at) / self.CALLS

        gc.disable()
        try:
            return statistics.median(one_round() for _ in range(self.ROUNDS))
        finally:
            gc.enable()

    def test_row_30_a_refusal_costs_less_than_a_millisecond(self, keeper: Doorkeeper) -> None:
        keeper.key()
        for value in ("Bearer " + "x" * 1_000_000, "'" * 1_000_000, "Bearer pm_" + "\u0440" * 500_000, ""):
            assert self.cpu_seconds(keeper, (("authorization", value),)) < 0.001

    def test_row_30_refusals_cost_the_same(self, keeper: Doorkeeper) -> None:
        known = keeper.key()
        expired = keeper.key(expires_at=0.0)
        unknown = make_key().text
        texts = {
            "unknown": unknown,
            "expired": expired,
            "cut": unknown[:-1],
            "prefix of a valid one": known[:-6] + unknown[-6:],
            "not ASCII": "\u0440" + unknown[1:],
        }
        costs = {name: self.cpu_seconds(keeper, bearer(text)) for name, text in texts.items()}
        # The share of a whole call that can differ is far below a tenth: a call costs a hundred times as much.
        assert max(costs.values()) - min(costs.values()) < 10e-6, costs


class TestCertificates:
    SHOP = "spiffe://company/shop"

    @pytest.fixture(autouse=True)
    def identities(self, keeper: Doorkeeper) -> None:
        identities = {
            self.SHOP: Identity("shop", CALLS),
            "shop.company": Identity("shop", CALLS),
            "clinic.company": Identity("clinic", CALLS),
        }
        keeper.governance = Governance(identities=identities)

    @pytest.mark.parametrize("peer", [Peer(peer_uri=[SHOP]), Peer(peer_uri=["urn:x", SHOP], peer_dns=["other"])])
    def test_the_name_in_it_makes_a_caller(self, keeper: Doorkeeper, peer: Peer) -> None:
        assert admitted(keeper, (), peer) == Caller(self.SHOP, "shop", CALLS)

    def test_so_does_a_dns_name(self, keeper: Doorkeeper) -> None:
        assert admitted(keeper, (), Peer(peer_dns=["shop.company"])).name == "shop.company"

    def test_two_names_of_one_caller_are_no_contradiction(self, keeper: Doorkeeper) -> None:
        assert admitted(keeper, (), Peer(peer_uri=[self.SHOP], peer_dns=["shop.company"])).tenant == "shop"

    @pytest.mark.parametrize(
        ("peer", "why"),
        [
            (Peer(), "no_credentials"),
            (Peer(peer_uri=[SHOP + "/x"]), "no_credentials"),
            (Peer(peer_dns=["SHOP.company", "shop.company.", "*.company"]), "no_credentials"),
            (Peer(x509_common_name=[SHOP], x509_subject_alternative_name=[SHOP], peer_email=[SHOP]), "no_credentials"),
            (Peer(peer_uri=[SHOP], peer_dns=["clinic.company"]), "certificate"),
        ],
    )
    def test_others_are_refused(self, keeper: Doorkeeper, peer: Peer, why: str) -> None:
        assert refusal(keeper, (), peer).why == why

    def test_a_policy_without_the_name_closes_the_door_at_once(self, keeper: Doorkeeper) -> None:
        admit = keeper.authenticator.admission_to(COMPLETE).identify
        assert admit((), Peer(peer_uri=[self.SHOP]))
        keeper.governance = Governance()
        with pytest.raises(Unauthenticated):
            admit((), Peer(peer_uri=[self.SHOP]))

    def test_a_bad_key_is_not_made_good_by_a_certificate(self, keeper: Doorkeeper) -> None:
        assert refusal(keeper, bearer("nonsense"), Peer(peer_uri=[self.SHOP])).why == "unknown_key"

    def test_a_good_key_goes_before_the_certificate_of_the_same_tenant(self, keeper: Doorkeeper) -> None:
        key = keeper.key("shop", Role.READ)
        assert admitted(keeper, bearer(key), Peer(peer_uri=[self.SHOP]), STATUS).roles == {Role.READ}
        assert "needs the role `call`" in denied(keeper, bearer(key), COMPLETE, Peer(peer_uri=[self.SHOP]))

    def test_a_key_of_another_tenant_than_the_certificates_is_refused(self, keeper: Doorkeeper) -> None:
        assert refusal(keeper, bearer(keeper.key("acme")), Peer(peer_uri=[self.SHOP])).why == "certificate"

    def test_a_name_that_is_no_text_is_refused(self, keeper: Doorkeeper) -> None:
        class Odd(Peer):
            def auth_context(self) -> Any:
                return {"peer_dns": [b"\xff"]}

        assert refusal(keeper, (), Odd()).why == "broken (UnicodeDecodeError)"


class TestDefaultIsDeny:
    """Whatever breaks in here, nobody gets in."""

    @pytest.mark.parametrize("broken", ["find_key", "_read_key"])
    @pytest.mark.parametrize(
        "how", [RuntimeError("pm_planted"), KeyError("pm_planted"), RecursionError(), MemoryError()]
    )
    def test_an_error_of_ours(
        self, keeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch, broken: str, how: Exception
    ) -> None:
        key = keeper.key()
        assert admitted(keeper, bearer(key))

        def fails(*_: object) -> None:
            raise how

        monkeypatch.setattr(authentication, broken, fails)
        error = refusal(keeper, bearer(key))
        assert error.why == f"broken ({type(how).__name__})"
        assert error.__cause__ is None
        assert error.__suppress_context__
        assert str(error) == str(Unauthenticated())

    @pytest.mark.parametrize("answer", [None, Caller("k", "", frozenset(Role)), "acme", 0])
    def test_an_answer_that_is_no_caller(
        self, keeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch, answer: object
    ) -> None:
        key = keeper.key()
        monkeypatch.setattr(type(keeper.authenticator), "_caller", lambda *_: answer)
        assert refusal(keeper, bearer(key)).why.startswith("broken")

    def test_a_key_without_a_tenant_or_without_roles(self, keeper: Doorkeeper) -> None:
        key = keeper.key()
        keeper.change_keys(tenant="")
        assert refusal(keeper, bearer(key)).why == "broken"
        keeper.change_keys(tenant="acme", roles=frozenset())
        assert "needs the role `call`" in denied(keeper, bearer(key))

    def test_a_state_that_cannot_be_read(self, keeper: Doorkeeper) -> None:
        key = keeper.key()
        broken: Any = None
        keeper.control = broken
        assert refusal(keeper, bearer(key)).why == "broken (AttributeError)"

    def test_a_certificate_that_cannot_be_read(self, keeper: Doorkeeper) -> None:
        key = keeper.key()
        keeper.governance = Governance(identities={"x": Identity("acme", CALLS)})
        context: Any = object()
        assert refusal(keeper, bearer(key), context).why == "broken (AttributeError)"


class TestRoles:
    def test_every_method_of_the_contract_has_its_row(self) -> None:
        assert set(METHOD_ROLES) == {*METHODS, REFLECTION}

    def test_reading_methods_are_for_readers_and_no_others_are(self) -> None:
        for name, method in METHODS.items():
            roles = METHOD_ROLES[name]
            if ".AdminService/" not in name:
                assert roles == CALLS
                continue
            changes_nothing = bool(method.GetOptions().idempotency_level)
            assert (Role.READ in roles) is changes_nothing
            assert Role.CALL not in roles
            assert Role.ADMINISTER in roles

    @pytest.mark.parametrize("method", METHOD_ROLES)
    @pytest.mark.parametrize("role", Role)
    def test_a_role_opens_its_methods_and_no_others(self, keeper: Doorkeeper, method: str, role: Role) -> None:
        key = keeper.key("acme", role)
        if role in METHOD_ROLES[method]:
            assert admitted(keeper, bearer(key), method=method).roles == {role}
        else:
            assert "the caller may not call this method; it needs the role" in denied(keeper, bearer(key), method)

    @pytest.mark.parametrize("method", ["/pointsman.v1.AdminService/DeleteAll", "/x.Y/Z", COMPLETE[1:], COMPLETE + "/"])
    def test_a_method_without_a_row_is_refused_whatever_the_role(self, keeper: Doorkeeper, method: str) -> None:
        assert denied(keeper, bearer(keeper.key("acme", *Role)), method) == "nobody may call this method"
        assert refusal(keeper, (), method=method).why == "no_credentials"

    @pytest.mark.parametrize("method", ["/x.Y/Z"])
    def test_also_in_insecure_mode(self, method: str) -> None:
        assert denied(Doorkeeper(Mode.INSECURE), (), method) == "nobody may call this method"

    @pytest.mark.parametrize("method", sorted(OPEN_METHODS))
    def test_health_is_for_everybody(self, keeper: Doorkeeper, method: str) -> None:
        assert admitted(keeper, bearer("nonsense"), method=method) is ANYBODY
        assert not ANYBODY.roles

    def test_reflection_needs_a_key_of_any_role(self, keeper: Doorkeeper) -> None:
        assert refusal(keeper, (), method=REFLECTION).why == "no_credentials"
        assert admitted(Doorkeeper(Mode.INSECURE), (), method=REFLECTION) is LOCAL_CALLER

    def test_headers_change_nothing(self, keeper: Doorkeeper) -> None:
        key = keeper.key("acme", Role.CALL)
        headers = tuple(
            (name, value)
            for name in ("x-role", "role", "x-method", ":path", "host")
            for value in ("administer", STATUS)
        )
        assert "needs the role" in denied(keeper, (*bearer(key), *headers), STATUS)


class TestTenants:
    def test_row_33_suspended(self, keeper: Doorkeeper) -> None:
        key = keeper.key("acme")
        assert admitted(keeper, bearer(key))
        keeper.governance = Governance(tenants={"acme": TenantPolicy(suspended=True)})
        assert "suspended" in denied(keeper, bearer(key))
        keeper.governance = Governance(others=TenantPolicy(suspended=True))
        assert "suspended" in denied(keeper, bearer(key))

    def test_row_33_not_listed(self, keeper: Doorkeeper) -> None:
        key = keeper.key("acme")
        keeper.governance = Governance(tenants={"other": TenantPolicy()}, only_listed=True)
        assert "does not list the caller's tenant" in denied(keeper, bearer(key))
        keeper.governance = replace(keeper.governance, tenants={"acme": TenantPolicy()})
        assert admitted(keeper, bearer(key)).tenant == "acme"

    @pytest.mark.parametrize("named", [("other",), ("acme", "other"), ("Acme",), ("\u0430cme",), ("acme ",), ("",)])
    def test_rows_17_and_32_another_tenant_is_named(self, keeper: Doorkeeper, named: tuple[str, ...]) -> None:
        entries = (*bearer(keeper.key("acme")), *(("x-tenant", name) for name in named))
        said = denied(keeper, entries)
        assert said == "x-tenant names another tenant than the caller's; leave it out"

    def test_the_same_tenant_may_be_named(self, keeper: Doorkeeper) -> None:
        assert admitted(keeper, (*bearer(keeper.key("acme")), ("x-tenant", "acme"))).tenant == "acme"

    def test_what_a_stranger_names_is_not_looked_at(self, keeper: Doorkeeper) -> None:
        assert refusal(keeper, (("x-tenant", "acme"),)).why == "no_credentials"


class TestInsecureMode:
    @pytest.mark.parametrize("entries", [(), bearer("anything"), (("x-tenant", "acme"),), (*bearer("a"), *bearer("b"))])
    def test_every_call_is_the_local_callers(self, entries: Any) -> None:
        keeper = Doorkeeper(Mode.INSECURE)
        keeper.key()
        keeper.governance = Governance(only_listed=True)
        assert keeper.authenticator.is_insecure
        assert admitted(keeper, entries) is LOCAL_CALLER
        assert LOCAL_CALLER.tenant == LOCAL_TENANT

    def test_the_first_key_ends_it_for_good(self) -> None:
        keeper = Doorkeeper(Mode.UNTIL_CALLERS_EXIST)
        admit = keeper.authenticator.admission_to(COMPLETE).identify
        assert admit((), NOWHERE) is LOCAL_CALLER
        key = keeper.key()
        with structlog.testing.capture_logs() as logs:
            with pytest.raises(Unauthenticated):
                admit((), NOWHERE)
            assert admit(bearer(key), NOWHERE).tenant == "acme"
        assert [line["event"] for line in logs] == ["authentication_required"]
        keeper.control = Control()
        with pytest.raises(Unauthenticated):
            admit((), NOWHERE)
        assert not keeper.authenticator.is_insecure

    def test_so_does_a_certificate_that_the_policy_names(self) -> None:
        keeper = Doorkeeper(Mode.UNTIL_CALLERS_EXIST)
        keeper.governance = Governance(identities={"x": Identity("acme", CALLS)})
        assert refusal(keeper, ()).why == "no_credentials"

    def test_a_key_that_expired_or_was_revoked_does_too(self) -> None:
        keeper = Doorkeeper(Mode.UNTIL_CALLERS_EXIST)
        keeper.key(revoked_at=1.0)
        assert refusal(keeper, ()).why == "no_credentials"

    def test_a_state_that_cannot_be_read_is_not_insecure(self) -> None:
        keeper = Doorkeeper(Mode.UNTIL_CALLERS_EXIST)
        broken: Any = None
        keeper.control = broken
        assert refusal(keeper, ()).why == "broken (AttributeError)"
