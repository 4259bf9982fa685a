"""What operators set is kept alike by every engine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kit.clock import FakeClock
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import (
    Control,
    Key,
    KillScope,
    KillSwitch,
    PolicyVersion,
    Rollout,
    RolloutKind,
)
from pointsman_server.domain.ports import ControlKeeper, StoreUnavailableError

KEY = Key(
    id="key_1",
    tenant="acme",
    roles=frozenset({Role.CALL, Role.READ}),
    digest=bytes(range(32)),
    note="for the batch jobs — übernächtig",
    created_at=1_750_000_000.25,
    expires_at=1_760_000_000.125,
)
OTHER = Key("key_2", "other", frozenset(), b"x" * 32, created_at=1_750_000_001.0)
CANARY = Rollout("v2", RolloutKind.CANARY, 10)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(database: Database, clock: FakeClock) -> ControlStore:
    return ControlStore(database, clock)


async def last_change(store: ControlStore) -> tuple[str, str, str, Any, Any, str]:
    """Actor, action, target, before, after and comment of the last audit event."""
    event = (await store.audit(limit=1))[0]
    return event.actor, event.action, event.target, json.loads(event.before), json.loads(event.after), event.comment


async def test_a_new_database_holds_nothing(store: ControlStore) -> None:
    keeper: ControlKeeper = store
    assert await keeper.load() == Control()
    assert (await keeper.keys(), await keeper.policies(), await keeper.audit()) == ([], [], [])


class TestKeys:
    async def test_a_key_is_found_by_its_digest_with_all_it_has(self, store: ControlStore) -> None:
        await store.add_key(KEY, "admin")
        await store.add_key(OTHER, "admin")
        control = await store.load()
        assert control.keys == {KEY.digest: KEY, OTHER.digest: OTHER}
        assert await store.keys() == [KEY, OTHER]
        assert control.revision == await store.revision() == 2

    async def test_making_one_is_recorded_without_its_digest(self, store: ControlStore) -> None:
        await store.add_key(KEY, "admin")
        actor, action, target, before, after, _ = await last_change(store)
        assert (actor, action, target, before) == ("admin", "key_created", "key_1", None)
        assert after == {
            "id": "key_1",
            "tenant": "acme",
            "roles": ["call", "read"],
            "note": KEY.note,
            "created_at": KEY.created_at,
            "expires_at": KEY.expires_at,
            "revoked_at": None,
        }

    @pytest.mark.parametrize("taken", [replace(OTHER, id=KEY.id), replace(OTHER, digest=KEY.digest)])
    async def test_an_id_or_digest_is_given_once(self, store: ControlStore, taken: Key) -> None:
        await store.add_key(KEY, "admin")
        with pytest.raises(ValueError, match="exists already"):
            await store.add_key(taken, "admin")
        assert await store.keys() == [KEY]
        assert await store.revision() == len(await store.audit()) == 1

    async def test_revoking_is_told_and_stays(self, store: ControlStore, clock: FakeClock) -> None:
        await store.add_key(KEY, "admin")
        assert await store.revoke_key("key_1", "ops")
        revoked = replace(KEY, revoked_at=clock.now())
        assert (await store.load()).keys == {KEY.digest: revoked}
        assert await store.revision() == 2
        actor, action, target, before, after, _ = await last_change(store)
        assert (actor, action, target) == ("ops", "key_revoked", "key_1")
        assert (before["revoked_at"], after["revoked_at"]) == (None, clock.now())

    async def test_revoking_twice_or_nobody_changes_nothing(self, store: ControlStore, clock: FakeClock) -> None:
        await store.add_key(KEY, "admin")
        await store.revoke_key("key_1", "ops")
        before = await store.load()
        clock.advance(5)
        assert not await store.revoke_key("key_1", "ops")
        assert not await store.revoke_key("key_9", "ops")
        assert await store.load() == before
        assert len(await store.audit()) == 2


class TestFlags:
    @pytest.mark.parametrize("value", [True, False, None, 0, 3, 0.25, "text ✓ \0", [1, "a"], {"a": {"b": [None]}}])
    async def test_any_json_is_kept(self, store: ControlStore, value: Any) -> None:
        assert await store.set_flag("hedging", "", value, "ops")
        assert (await store.load()).flags == {("hedging", ""): value}
        _, action, target, before, after, _ = await last_change(store)
        assert (action, target, before, after) == ("flag_set", "hedging", None, {"value": value})

    async def test_tenants_have_their_own(self, store: ControlStore) -> None:
        await store.set_flag("hedging", "", True, "ops")
        await store.set_flag("hedging", "acme", False, "ops")
        await store.set_flag("cache", "acme", 1, "ops")
        expected = {("hedging", ""): True, ("hedging", "acme"): False, ("cache", "acme"): 1}
        assert (await store.load()).flags == expected
        assert (await last_change(store))[2] == "cache for acme"

    async def test_setting_and_clearing_tell_what_was_there(self, store: ControlStore) -> None:
        await store.set_flag("hedging", "", True, "ops")
        assert await store.set_flag("hedging", "", False, "ops")
        assert (await last_change(store))[1:5] == ("flag_set", "hedging", {"value": True}, {"value": False})
        assert await store.clear_flag("hedging", "", "ops")
        assert (await last_change(store))[1:5] == ("flag_cleared", "hedging", {"value": False}, None)
        assert (await store.load()).flags == {}

    async def test_what_changes_nothing_is_no_change(self, store: ControlStore) -> None:
        await store.set_flag("hedging", "", True, "ops")
        assert not await store.set_flag("hedging", "", True, "ops")
        assert not await store.clear_flag("hedging", "acme", "ops")
        assert await store.revision() == len(await store.audit()) == 1

    async def test_what_is_no_json_is_refused(self, store: ControlStore) -> None:
        with pytest.raises(ValueError, match="JSON"):
            await store.set_flag("hedging", "", float("nan"), "ops")
        assert await store.load() == Control()


class TestKillSwitches:
    @pytest.mark.parametrize(
        ("scope", "target", "told"),
        [
            (KillScope.GLOBAL, "", "global"),
            (KillScope.TENANT, "acme", "tenant acme"),
            (KillScope.PROVIDER, "openai", "provider openai"),
        ],
    )
    async def test_on_and_off(self, store: ControlStore, scope: KillScope, target: str, told: str) -> None:
        assert await store.set_kill_switch(scope, target, True, "too dear", "ops")
        assert (await store.load()).kill_switches == {KillSwitch(scope, target, "too dear")}
        engaged = ("ops", "kill_switch_engaged", told, None, {"comment": "too dear"}, "too dear")
        assert await last_change(store) == engaged
        assert await store.set_kill_switch(scope, target, False, "paid", "ops")
        assert (await store.load()).kill_switches == frozenset()
        assert await last_change(store) == ("ops", "kill_switch_released", told, {"comment": "too dear"}, None, "paid")
        assert await store.revision() == 2

    async def test_switches_do_not_disturb_each_other(self, store: ControlStore) -> None:
        await store.set_kill_switch(KillScope.TENANT, "a", True, "", "ops")
        await store.set_kill_switch(KillScope.PROVIDER, "a", True, "", "ops")
        await store.set_kill_switch(KillScope.TENANT, "a", False, "", "ops")
        assert (await store.load()).kill_switches == {KillSwitch(KillScope.PROVIDER, "a")}

    async def test_another_comment_is_a_change_and_the_same_is_none(self, store: ControlStore) -> None:
        await store.set_kill_switch(KillScope.GLOBAL, "", True, "why", "ops")
        assert not await store.set_kill_switch(KillScope.GLOBAL, "", True, "why", "ops")
        assert await store.set_kill_switch(KillScope.GLOBAL, "", True, "because", "ops")
        assert not await store.set_kill_switch(KillScope.TENANT, "acme", False, "", "ops")
        assert (await store.load()).kill_switches == {KillSwitch(KillScope.GLOBAL, "", "because")}
        assert await store.revision() == 2

    async def test_a_comment_may_hold_anything(self, store: ControlStore) -> None:
        assert await store.set_kill_switch(KillScope.GLOBAL, "", True, "a\0b '\"; ✓" + "x" * 1_000, "o" * 2_000)
        assert not await store.set_kill_switch(KillScope.GLOBAL, "", True, "a\0b '\"; ✓" + "x" * 1_000, "ops")
        assert {one.comment for one in (await store.load()).kill_switches} == {"a\ufffdb '\"; ✓" + "x" * 1_000}


class TestPolicies:
    async def test_the_last_applied_is_in_force(self, store: ControlStore, clock: FakeClock) -> None:
        assert await store.apply_policy("v1", "routes: 1\n", "ann", "first")
        clock.advance(10)
        assert await store.apply_policy("v2", "routes: 2\n", "bob", "second")
        assert (await store.load()).policy_version == "v2"
        first = PolicyVersion("v1", "routes: 1\n", "ann", clock.now() - 10, "first")
        second = PolicyVersion("v2", "routes: 2\n", "bob", clock.now(), "second")
        assert (await store.policy("v1"), await store.policy("v2")) == (first, second)
        assert await store.policies() == [replace(second, yaml=""), replace(first, yaml="")]
        assert await last_change(store) == (
            "bob",
            "policy_applied",
            "v2",
            {"version": "v1"},
            {"version": "v2"},
            "second",
        )

    async def test_an_earlier_one_comes_back(self, store: ControlStore) -> None:
        for version in ("v1", "v2", "v1"):
            assert await store.apply_policy(version, f"name: {version}\n", "ann", "")
        assert (await store.load()).policy_version == "v1"
        assert [one.version for one in await store.policies()] == ["v1", "v2", "v1"]
        assert await store.revision() == 3

    async def test_what_is_in_force_is_not_applied_again(self, store: ControlStore) -> None:
        await store.apply_policy("v1", "a\n", "ann", "")
        assert not await store.apply_policy("v1", "a\n", "bob", "again")
        assert await store.revision() == len(await store.policies()) == 1

    async def test_a_text_stays_what_it_was(self, store: ControlStore) -> None:
        await store.apply_policy("v1", "a\n", "ann", "")
        await store.apply_policy("v2", "b\n", "ann", "")
        await store.apply_policy("v1", "something else\n", "ann", "")
        policy = await store.policy("v1")
        assert policy is not None
        assert policy.yaml == "a\n"

    async def test_one_may_be_kept_without_being_applied(self, store: ControlStore) -> None:
        await store.keep_policy("v1", "a\n")
        await store.keep_policy("v1", "a\n")
        assert await store.policy("v1") == PolicyVersion("v1", "a\n", "", 0.0, "")
        assert await store.load() == Control()
        assert await store.policies() == []
        assert await store.policy("v9") is None

    async def test_pages_hold_every_application_once_even_when_clocks_go_back(
        self, store: ControlStore, clock: FakeClock
    ) -> None:
        for number in range(7):
            await store.apply_policy(f"v{number}", "a\n", "ann", "")
            clock.advance(-1 if number % 2 else 0)
        seen: list[PolicyVersion] = []
        while page := await store.policies(limit=3, before=seen[-1].applied_at if seen else None):
            assert len(page) <= 3
            seen += page
        assert [one.version for one in seen] == [f"v{number}" for number in reversed(range(7))]

    async def test_a_long_text_is_kept(self, store: ControlStore) -> None:
        text = "# ✓ lang\n" * 100_000
        await store.apply_policy("v1", text, "ann", "")
        policy = await store.policy("v1")
        assert policy is not None
        assert policy.yaml == text


class TestRollouts:
    async def test_one_at_a_time(self, store: ControlStore) -> None:
        wider = replace(CANARY, percent=50)
        assert await store.set_rollout(CANARY, "ops", "try it")
        assert (await store.load()).rollout == CANARY
        plain = {"version": "v2", "kind": "canary", "percent": 10}
        assert await last_change(store) == ("ops", "rollout_set", "rollout", None, plain, "try it")
        assert await store.set_rollout(wider, "ops")
        assert (await store.load()).rollout == wider
        assert (await last_change(store))[3:5] == (plain, {**plain, "percent": 50})
        assert await store.set_rollout(None, "ops")
        assert (await store.load()).rollout is None
        assert (await last_change(store))[1:5] == ("rollout_ended", "rollout", {**plain, "percent": 50}, None)
        assert await store.revision() == 3

    async def test_what_changes_nothing_is_no_change(self, store: ControlStore) -> None:
        assert not await store.set_rollout(None, "ops")
        await store.set_rollout(Rollout("v2", RolloutKind.SHADOW, 100), "ops")
        assert not await store.set_rollout(Rollout("v2", RolloutKind.SHADOW, 100), "ops")
        assert await store.revision() == len(await store.audit()) == 1


class TestAudit:
    async def test_changes_of_what_is_kept_elsewhere_are_noted(self, store: ControlStore, clock: FakeClock) -> None:
        await store.note("ops", "breaker_reset", "gpt-4", before={"state": "open"}, after={"state": "closed"})
        event = (await store.audit())[0]
        assert (event.at, event.before, event.after) == (clock.now(), '{"state": "open"}', '{"state": "closed"}')
        await store.note("ops", "policy_reloaded", "file", comment="a\0b")
        assert await last_change(store) == ("ops", "policy_reloaded", "file", None, None, "a\ufffdb")
        assert await store.revision() == 0

    async def test_filters(self, store: ControlStore, clock: FakeClock) -> None:
        start = clock.now()
        for number in range(6):
            actor, action = ("ann", "bob")[number % 2], ("set", "reset")[number // 3]
            await store.note(actor, action, str(number))
            clock.advance(1)

        async def targets(**filters: Any) -> str:
            return "".join(event.target for event in await store.audit(**filters))

        assert await targets() == "543210"
        assert await targets(actor="ann") == "420"
        assert await targets(action="reset") == "543"
        assert await targets(start=start + 2) == "5432"
        assert await targets(end=start + 2) == "10"
        assert await targets(start=start + 1, end=start + 5, actor="bob", action="set") == "1"
        assert await targets(actor="nobody") == ""
        assert await targets(limit=2) == "54"

    async def test_pages_hold_every_event_once_while_new_ones_come(self, store: ControlStore) -> None:
        for number in range(7):
            await store.note("ops", "set", str(number))
        seen = await store.audit(limit=3)
        await store.note("ops", "set", "new")
        while page := await store.audit(limit=3, before_id=seen[-1].id):
            seen += page
        assert [event.target for event in seen] == ["6", "5", "4", "3", "2", "1", "0"]


async def test_a_change_that_cannot_be_recorded_is_not_made(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreUnavailableError

    monkeypatch.setattr("pointsman_server.adapters.stores.sql.control_store.write_event", fail)
    changes = [
        store.add_key(KEY, "ops"),
        store.set_flag("hedging", "", True, "ops"),
        store.set_kill_switch(KillScope.GLOBAL, "", True, "", "ops"),
        store.apply_policy("v1", "a\n", "ops", ""),
        store.set_rollout(CANARY, "ops"),
    ]
    for change in changes:
        with pytest.raises(StoreUnavailableError):
            await change
    assert await store.load() == Control()
    assert await store.policy("v1") is None
