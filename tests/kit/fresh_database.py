"""A database file for every service that a test starts: a copy of one that was made once."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

from sqlalchemy import make_url

from pointsman_server.adapters.stores.sql.migrating import migrate

_NUMBERS = count(1)


def fresh_database_url() -> str:
    """The URL of an empty SQLite database with all tables; the file goes with the process."""
    made = _folder() / f"{next(_NUMBERS)}.db"
    shutil.copyfile(_template(), made)
    return f"sqlite:///{made}"


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="databases"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _template() -> Path:
    file = _folder() / "template.db"
    migrate(make_url(f"sqlite:///{file}"))
    return file
