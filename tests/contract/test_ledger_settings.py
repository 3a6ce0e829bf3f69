"""Where the ledger is kept is a setting; what cannot be is said at start, with what to do."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from modelmuxer.accounting.v1.accounting_pb2 import SCOPE_ADMIN

from services.__main__ import read_replicas
from services.accounting.__main__ import make_first_key
from services.accounting.keys import first_secret, new_secret, sha256
from services.accounting.settings import AccountingSettings
from services.accounting.stores.sqlite import SqliteStore
from services.supervisor import StartError
from shared.settings import MASK, SettingsError
from tests.ports import free_port

MONGODB = {"MODELMUXER_LEDGER_STORE": "mongodb", "MONGODB_URL": "mongodb://ann:secret@db:27017/ledger"}


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"MODELMUXER_LEDGER_STORE": "mongodb"}, "MONGODB_URL is not set although"),
        (MONGODB | {"MONGODB_URL": "db:27017"}, "MONGODB_URL must begin with mongodb://"),
        (MONGODB | {"DATABASE_POOL_SIZE": "0", "DATABASE_MAX_OVERFLOW": "0"}, "allow no connection"),
        ({"MONGODB_URL": "mongodb://db"}, "MONGODB_URL is set, but the ledger is kept in SQLite"),
        ({"DATABASE_POOL_SIZE": "5"}, "DATABASE_POOL_SIZE is set, but the ledger is kept in SQLite"),
        ({"MODELMUXER_LEDGER_STORE": "mysql"}, "must be one of: sqlite, mongodb"),
    ],
)
def test_a_store_that_cannot_be_is_refused_by_the_settings_name(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        AccountingSettings.load(environ)
    assert "secret" not in str(caught.value)


def test_the_guides_settings_are_the_pools_and_the_password_is_not_shown() -> None:
    guide = {"DATABASE_POOL_SIZE": "7", "DATABASE_MAX_OVERFLOW": "9", "DATABASE_POOL_RECYCLE": "60"}
    settings = AccountingSettings.load(MONGODB | guide)
    assert (settings.database_pool_size, settings.database_max_overflow) == (7, 9)
    assert settings.database_pool_recycle == 60
    shown = {row.name: (row.value, row.source) for row in settings.provenance()}
    assert shown["MODELMUXER_MONGODB_URL"] == (MASK, "MONGODB_URL")
    assert "secret" not in repr(settings)


def test_several_accounting_processes_want_mongodb() -> None:
    assert read_replicas(["accounting=2"], MONGODB) == {"accounting": 2}
    with pytest.raises(StartError, match="SQLite ledger has one process; several want MODELMUXER_LEDGER_STORE=mongodb"):
        read_replicas(["accounting=2"], {})


def test_a_server_that_does_not_answer_is_named_and_may_be_tried_again(tmp_path: Path) -> None:
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MODELMUXER_")} | {
        "MODELMUXER_HOME": str(tmp_path),
        "MODELMUXER_ACCOUNTING_PORT": "0",
        "MODELMUXER_LEDGER_STORE": "mongodb",
        "MONGODB_URL": f"mongodb://ann:secret@127.0.0.1:{port}/ledger",
        "MODELMUXER_DATABASE_TIMEOUT_S": "0.5",
    }
    command = [sys.executable, "-m", "services.accounting"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, "a supervisor starts it again: the server may be back by then"
    assert f"No MongoDB answers at 127.0.0.1:{port}/ledger" in done.stderr
    assert "set MONGODB_URL" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_all_who_start_at_once_on_one_folder_find_the_same_first_secret(tmp_path: Path) -> None:
    begin = threading.Barrier(8)

    def start(_: int) -> str:
        begin.wait()
        return first_secret(tmp_path / "key")

    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(start, range(8)))
    assert secrets == {(tmp_path / "key").read_text().strip()}


async def test_a_key_that_its_owner_puts_into_the_file_is_taken_in_unless_it_was_revoked(tmp_path: Path) -> None:
    settings = AccountingSettings.load({"MODELMUXER_HOME": str(tmp_path)})
    store = SqliteStore(settings.ledger_path)
    try:
        await make_first_key(store, settings)
        first = settings.key_path.read_text().strip()
        other = new_secret()
        settings.key_path.write_text(other)
        for _ in range(2):  # every start looks
            await make_first_key(store, settings)
        standing = [await store.key_by_sha256(sha256(secret)) for secret in (first, other)]
        assert [key is not None and SCOPE_ADMIN in key.scopes for key in standing] == [True, True]
        assert standing[1] is not None
        await store.revoke_key(standing[1].id, "test", time.time_ns())
        await make_first_key(store, settings)
        assert await store.key_by_sha256(sha256(other)) is None
        assert len(await store.keys("", include_revoked=True)) == 2
    finally:
        await store.close()
