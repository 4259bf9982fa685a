from __future__ import annotations

import asyncio
import getpass
import json
import sqlite3
from pathlib import Path

import pytest

from kit.command_line import Cli
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import AuditEvent, Control
from pointsman_server.execution.keys import find_key, is_whole


class Desk:
    """The commands, with a database of their own."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._environ = {"POINTSMAN_DATABASE_URL": f"sqlite:///{file}"}

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        result = Cli()("keys", *arguments, **self._environ)
        assert "Traceback" not in result.output
        return result.exit_code, result.stdout, result.stderr

    def made(self, *more: str, tenant: str = "acme") -> str:
        """The text of a new key."""
        code, out, _ = self("create", "--tenant", tenant, "--role", "call", *more)
        assert code == 0
        return out.strip()

    def read(self) -> tuple[Control, list[AuditEvent]]:
        """What a server would read."""

        async def read() -> tuple[Control, list[AuditEvent]]:
            database = Database(self._environ["POINTSMAN_DATABASE_URL"])
            await database.open()
            store = ControlStore(database, SystemClock())
            try:
                return await store.load(), await store.audit()
            finally:
                await database.close()

        return asyncio.run(read())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "pointsman.db")


class TestCreate:
    def test_the_key_alone_goes_to_standard_output(self, desk: Desk) -> None:
        code, out, err = desk("create", "--tenant", "acme", "--role", "call", "--role", "read", "--note", "shop")
        assert code == 0
        assert is_whole(out.removesuffix("\n"))
        assert out.strip() not in err
        assert "of tenant acme for call, read, for ever" in err
        assert "only time" in err

    def test_servers_know_it(self, desk: Desk) -> None:
        text = desk.made("--expires", "90d", "--note", "shop, production")
        control, _ = desk.read()
        key = find_key(text, control.keys)
        assert key is not None
        assert (key.tenant, key.roles, key.note) == ("acme", frozenset({Role.CALL}), "shop, production")
        assert key.expires_at == key.created_at + 90 * 86_400

    def test_nothing_that_is_stored_opens_the_door(self, desk: Desk) -> None:
        text = desk.made()
        with sqlite3.connect(desk.file) as connection:
            dump = "\n".join(connection.iterdump())
        connection.close()
        assert text.split("_")[1] in dump
        assert text.split("_")[2] not in dump

    def test_the_change_is_recorded_without_the_secret(self, desk: Desk) -> None:
        text = desk.made()
        _, events = desk.read()
        (event,) = events
        assert (event.action, event.target, event.actor) == (
            "key_created",
            text.split("_")[1],
            f"cli:{getpass.getuser()}",
        )
        assert text.split("_")[2] not in str(event)

    def test_as_json(self, desk: Desk) -> None:
        code, out, err = desk("create", "--tenant", "acme", "--role", "operate", "--expires", "12h", "--json")
        made = json.loads(out)
        assert (code, err) == (0, "")
        assert is_whole(made.pop("key"))
        assert made.pop("created_at") < made.pop("expires_at")
        assert made.pop("id")
        assert made == {"tenant": "acme", "roles": ["operate"], "state": "valid", "note": "", "revoked_at": None}

    @pytest.mark.parametrize("tenant", ["Acme", "\u0430cme", "", "a/b", "a" * 65, "acme\n", "' OR 1=1"])
    def test_row_17_tenants_are_ids(self, desk: Desk, tenant: str) -> None:
        code, out, err = desk("create", "--tenant", tenant, "--role", "call")
        assert (code, out) == (2, "")
        assert "use small letters, digits" in err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--tenant", "acme"), "Missing option '--role'"),
            (("--role", "call"), "Missing option '--tenant'"),
            (("--tenant", "acme", "--role", "root"), "'root' is not one of"),
            (("--tenant", "acme", "--role", "call", "--expires", "soon"), "write it as 30m, 12h or 90d"),
            (("--tenant", "acme", "--role", "call", "--expires", "0d"), "write it as 30m, 12h or 90d"),
            (("--tenant", "acme", "--role", "call", "--expires", "-1d"), "write it as 30m, 12h or 90d"),
            (("--tenant", "acme", "--role", "call", "--note", "x" * 257), "at most 256 printable characters"),
            (("--tenant", "acme", "--role", "call", "--note", "a\x1b[31m"), "at most 256 printable characters"),
        ],
    )
    def test_what_is_wrong_is_told(self, desk: Desk, arguments: tuple[str, ...], words: str) -> None:
        code, out, err = desk("create", *arguments)
        assert (code, out) == (2, "")
        assert words in err
        assert not desk.file.exists()


class TestList:
    def test_states_are_shown_and_secrets_are_not(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = [desk.made(), desk.made("--expires", "1m", tenant="other"), desk.made()]
        desk("revoke", keys[2].split("_")[1])
        now = SystemClock().now()
        monkeypatch.setattr("time.time", lambda: now + 61)
        code, out, _ = desk("list")
        assert code == 0
        heading, *rows = out.splitlines()
        assert heading.split() == ["id", "tenant", "roles", "state", "created", "expires", "note"]
        assert [row.split()[3] for row in rows] == ["valid", "expired", "revoked"]
        assert [row.split()[0] for row in rows] == [key.split("_")[1] for key in keys]
        assert all(key.split("_")[2] not in out for key in keys)

    def test_of_one_tenant_as_json(self, desk: Desk) -> None:
        desk.made(), desk.made(tenant="other")
        found = json.loads(desk("list", "--tenant", "other", "--json")[1])
        assert [key["tenant"] for key in found] == ["other"]
        assert "digest" not in found[0]
        assert json.loads(desk("list", "--tenant", "nobody", "--json")[1]) == []


class TestRevoke:
    @pytest.mark.parametrize("form", [lambda key: key.split("_")[1], lambda key: key[:15], lambda key: key])
    def test_by_id_or_by_the_key_itself(self, desk: Desk, form: object) -> None:
        assert callable(form)
        text = desk.made()
        code, out, _ = desk("revoke", form(text))
        assert (code, out) == (0, f"revoked: {text.split('_')[1]}\n")
        control, events = desk.read()
        key = find_key(text, control.keys)
        assert key is not None
        assert not key.is_valid(SystemClock().now())
        assert [event.action for event in events] == ["key_revoked", "key_created"]

    def test_a_second_time_changes_nothing(self, desk: Desk) -> None:
        key_id = desk.made().split("_")[1]
        desk("revoke", key_id)
        assert desk("revoke", key_id) == (0, f"was revoked before: {key_id}\n", "")
        assert len(desk.read()[1]) == 2

    def test_an_unknown_one_is_told(self, desk: Desk) -> None:
        code, out, err = desk("revoke", "nobody")
        assert (code, out) == (2, "")
        assert "there is no key with this id; `pointsman keys list` shows the ids" in err


@pytest.mark.parametrize("command", [("list",), ("create", "--tenant", "acme", "--role", "call"), ("revoke", "x")])
class TestDatabase:
    def test_one_that_is_away_is_told_without_its_address(self, cli: Cli, command: tuple[str, ...]) -> None:
        url = "postgresql://someone:PLANTED@127.0.0.1:1/pointsman?connect_timeout=1"
        result = cli("keys", *command, POINTSMAN_DATABASE_URL=url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "POINTSMAN_DATABASE_URL" in result.stderr
        assert "PLANTED" not in result.output

    def test_a_url_that_is_none_is_refused(self, cli: Cli, command: tuple[str, ...]) -> None:
        for url in ("mysql://x", "sqlite:///:memory:"):
            result = cli("keys", *command, POINTSMAN_DATABASE_URL=url)
            assert (result.exit_code, result.stdout) == (2, "")


def test_a_user_without_a_name_is_still_somebody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    desk.made()
    assert desk.read()[1][0].actor == "cli"
