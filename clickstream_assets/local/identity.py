"""The user that the servers run as: the caller, but never root, which PostgreSQL and Elasticsearch refuse."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clickstream_assets.errors import LocalStackError

# It must have an entry in the password database: initdb looks its user up.
UNPRIVILEGED_USER = "nobody"
# A home or a venv may be inside a folder that only root can enter, as root's own home. Rather than open it
# up, give the servers the capability to read; the second is for containers, which seldom have the first.
READING_CAPABILITIES = ("dac_read_search", "dac_override")


@dataclass(frozen=True)
class Identity:
    """The user that the servers run as: a prefix of their commands, and the owner of their folders.

    The default is the caller.
    """

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> None:
        """Hand a file or folder over."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def server_identity(needed: list[Path]) -> Identity:
    """Return the identity that can execute the programs `needed`.

    Raises:
        LocalStackError: as root, when no unprivileged user can be made to reach them.
    """
    if os.geteuid() != 0:
        return Identity()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalStackError(
            "PostgreSQL and Elasticsearch refuse to run as root, and setpriv, which would start them as "
            f"{UNPRIVILEGED_USER}, is missing: install util-linux, or run this as another user."
        )
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    plain = (setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    for prefix in (plain, *((*plain, *_may_read(capability)) for capability in READING_CAPABILITIES)):
        if all(_can_execute(prefix, path) for path in needed):
            return Identity(prefix, user.pw_uid, user.pw_gid)
    unreachable = next(path for path in needed if not _can_execute(plain, path))
    raise LocalStackError(
        f"PostgreSQL and Elasticsearch refuse to run as root, and {UNPRIVILEGED_USER} cannot reach "
        f"{unreachable} and may not be given the capability to: run this as another user, or move it to a "
        "folder that everybody may enter."
    )


def make_home(home: Path) -> None:
    """Make a home, which nobody else can read; of root's, others may enter what is theirs, as the servers do."""
    home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)


def _may_read(capability: str) -> tuple[str, ...]:
    return (
        f"--inh-caps=+{capability}",
        f"--ambient-caps=+{capability}",
        # Without it access(2) ignores the capabilities of whoever is not root, and PostgreSQL looks for its
        # programs with access(2): https://man7.org/linux/man-pages/man7/capabilities.7.html (securebits).
        "--securebits=+no_setuid_fixup",
    )


def _can_execute(prefix: tuple[str, ...], path: Path) -> bool:
    return subprocess.run([*prefix, "test", "-x", path], capture_output=True, check=False).returncode == 0  # noqa: S603 - no shell, and nobody else's command
