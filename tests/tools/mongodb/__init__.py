"""A server of MongoDB's protocol for tests, since no mongod is to be had from a package registry: PostgreSQL with
the DocumentDB engine (Debian's packages, unpacked) behind FerretDB (a Go module). `build` makes it, in a folder that
can be moved; `tests.tools.mongodb.server` starts instances of it.
"""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tools import debian

SUITE = "forky"  # the first whose PostgreSQL has DocumentDB
PACKAGE = "postgresql-18-documentdb"
_TIMEOUT_S = 900
_PROGRAMS = ("postgres", "initdb", "psql")
_LIBRARIES = ("postgis-3", "pg_documentdb*", "vector", "pg_cron", "tsm_system_rows", "dict_snowball", "plpgsql")
_NOBODY = 65534

_CONFIGURATION = """
listen_addresses = ''
max_connections = 300
jit = off
shared_preload_libraries = 'pg_cron,pg_documentdb_core,pg_documentdb,pg_documentdb_extended_rum'
max_worker_processes = 32
# else pg_cron, which deletes what has a time to live, connects to the host that the seed had
cron.use_background_workers = on
cron.log_run = off
cron.log_statement = off
# deadlocks between secondary unique indexes are reported to the client: soon, so that it can try again
deadlock_timeout = 20ms
documentdb_core.enableCollation = on
# FerretDB promises clients as many
documentdb.maxWriteBatchSize = 100000
documentdb.enableSchemaValidation = on
log_min_messages = warning
# what is killed here are processes, never the machine
fsync = off
"""


class Cluster:
    """The programs of a build, and how they are started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "root/usr/lib/postgresql/18/bin"
        self.seed = folder / "seed"
        self.ferretdb = folder / "mongodb"

    def postgres(self, data: Path, sockets: Path) -> list[str]:
        """The command that serves a data folder on a Unix socket."""
        connection = f"documentdb.localhost_connection_string=host={sockets}"
        return [*as_nobody(), str(self.bin / "postgres"), "-D", str(data), "-k", str(sockets), "-c", connection]

    def psql(self, sockets: Path, *statements: str) -> bool:
        """Runs statements; whether they succeeded."""
        command = [str(self.bin / "psql"), "-h", str(sockets), "-U", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1"]
        for statement in statements:
            command += ["-c", statement]
        return subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S).returncode == 0


def as_nobody() -> list[str]:
    """PostgreSQL refuses to run as root. It dies with whoever starts it."""
    command = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() == 0:
        command += ["--reuid", str(_NOBODY), "--regid", str(_NOBODY), "--clear-groups"]
        # Folders on the way to the cache may be open to root alone; access(2) minds capabilities with that bit only.
        command += ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
        command += ["--securebits", "+no_setuid_fixup"]
    return command


def give_to_nobody(folder: Path) -> None:
    """Makes a folder that of the user whom PostgreSQL runs as."""
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)


def build(folder: Path) -> None:
    """Makes the server. Raises CannotUnpack, OSError and SubprocessError."""
    _check_host()
    work, root, cluster = folder / "work", folder / "root", Cluster(folder)
    work.mkdir()
    source = Path(__file__).parent / "ferretdb"
    # The compiler works while packages come in.
    with subprocess.Popen(["go", "build", "-buildvcs=false", "-o", cluster.ferretdb, "."], cwd=source) as compiling:
        try:
            debian.unpack([PACKAGE], SUITE, root, work)
            _make_cluster(cluster)
            if status := compiling.wait(_TIMEOUT_S):
                raise debian.CannotUnpack(f"Go could not build FerretDB: exit status {status}")
        finally:
            compiling.kill()
    shutil.rmtree(work)


def _make_cluster(cluster: Cluster) -> None:
    root = cluster.folder / "root"
    # What a script of PostGIS's package does at its installation.
    (root / "usr/share/postgresql/18/extension/postgis.control").symlink_to("postgis-3.control")
    _keep_what_runs(root)
    _make_seed(cluster)


def _check_host() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise debian.CannotUnpack("it is built of Debian's packages for Linux on x86-64")
    for program in ("apt-get", "dpkg-deb", "setpriv", "go"):
        if shutil.which(program) is None:
            raise debian.CannotUnpack(f"{program} is needed and not here")


def _keep_what_runs(root: Path) -> None:
    """Drops what no program of ours loads, and has each started through the loader and libraries beside it."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    postgresql = root / "usr/lib/postgresql/18"
    shutil.rmtree(postgresql / "lib" / "bitcode", ignore_errors=True)
    loader = libraries / "ld-linux-x86-64.so.2"
    kept = root / "kept"
    kept.mkdir()
    shutil.copy2(loader, kept)
    loaded = [postgresql / "bin" / name for name in _PROGRAMS]
    loaded += [file for name in _LIBRARIES for file in (postgresql / "lib").glob(f"{name}.so")]
    for file in loaded:
        listing = subprocess.run(
            [loader, "--library-path", f"{libraries}:{postgresql / 'lib'}", "--list", file],
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        for line in listing.stdout.splitlines():
            _, arrow, target = line.strip().partition(" => ")
            library = Path(target.split(" (")[0])
            if arrow and library.is_relative_to(libraries):
                shutil.copy2(library, kept)
    for place in (root / "usr/lib", root / "usr/share"):
        for each in place.iterdir():
            if each.name != "postgresql":
                _remove(each)
    for place, name in ((root, "usr"), (root / "usr", "lib")):
        for each in place.iterdir():
            if each.name not in {name, "share", "kept"}:
                _remove(each)
    kept.rename(libraries)
    for name in _PROGRAMS:
        program = postgresql / "bin" / name
        program.rename(program.with_suffix(".bin"))
        program.write_text(_LAUNCHER)
        program.chmod(0o755)


_LAUNCHER = """#!/bin/sh
here=${0%/*}
lib=$here/../../../x86_64-linux-gnu
exec "$lib/ld-linux-x86-64.so.2" --argv0 "$0" --library-path "$lib:$here/../lib" "$0.bin" "$@"
"""


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _make_seed(cluster: Cluster) -> None:
    """An empty database cluster, of which each instance is a copy."""
    cluster.seed.mkdir(mode=0o700)
    give_to_nobody(cluster.seed)
    initdb = [str(cluster.bin / "initdb"), "-D", str(cluster.seed), "-U", "postgres", "-A", "trust"]
    subprocess.run(
        [*as_nobody(), *initdb, "--no-locale", "-E", "UTF8", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=_TIMEOUT_S,
    )
    with (cluster.seed / "postgresql.conf").open("a") as file:
        file.write(_CONFIGURATION)
    extensions = ("documentdb CASCADE", "documentdb_extended_rum")
    with _serving(cluster, cluster.seed) as sockets:
        if not cluster.psql(sockets, *(f"CREATE EXTENSION {name}" for name in extensions)):
            raise debian.CannotUnpack("PostgreSQL could not load DocumentDB")


@contextmanager
def _serving(cluster: Cluster, data: Path) -> Iterator[Path]:
    from tests.tools.mongodb.server import until_serving

    with tempfile.TemporaryDirectory(prefix="mm-") as sockets:  # a socket's path may be no longer than 100 characters
        Path(sockets).chmod(0o777)
        with subprocess.Popen(cluster.postgres(data, Path(sockets)), stderr=subprocess.DEVNULL) as process:
            try:
                until_serving(cluster, Path(sockets), process)
                yield Path(sockets)
            finally:
                process.terminate()
                process.wait()
