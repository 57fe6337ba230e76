"""The system's libraries that wheels need and do not hold: that whatever installs the project brings them."""

from __future__ import annotations

import re
import struct
import sys
import sysconfig
from pathlib import Path

import pytest

from clickstream_assets_tests.deploy.files import DOCKERFILE, ROOT

# What every Linux that wheels are made for has: https://github.com/pypa/auditwheel, its manylinux policies.
PROMISED = re.compile(
    r"(ld-linux-[\w-]+|libc|libm|libdl|libpthread|libresolv|librt|libutil|libgcc_s|libstdc\+\+|libz)\.so\.\d+"
)
# Of the rest, Debian's packages.
PACKAGES = {"libgomp.so.1": "libgomp1"}
# implicit tries its part for graphics cards, and goes on without.
OPTIONAL = "implicit/gpu/"

_DYNAMIC, _LOADED = 2, 1
_NEEDED, _STRINGS = 1, 5


def needed(file: Path) -> set[str]:
    """The libraries that a shared object names as needed; nothing of what is no 64-bit ELF file.

    The format: https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html
    """
    data = file.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return set()
    (headers,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, headers + number * size) for number in range(count)]
    entries = [
        struct.unpack_from("<qQ", data, place)
        for kind, _, offset, _, _, length in segments
        if kind == _DYNAMIC
        for place in range(offset, offset + length, 16)
    ]
    strings = [value for tag, value in entries if tag == _STRINGS]
    # An address once it is loaded; here it is looked for in the file.
    starts = [
        offset + strings[0] - address
        for kind, _, offset, address, _, length in segments
        if kind == _LOADED and strings and address <= strings[0] < address + length
    ]
    names = [starts[0] + value for tag, value in entries if tag == _NEEDED]
    return {data[start : data.index(b"\0", start)].decode() for start in names}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the image and its wheels are Linux's")
def test_every_library_that_a_wheel_needs_is_in_a_wheel_promised_or_installed():
    site = Path(sysconfig.get_path("platlib"))
    files = [path for path in site.rglob("*.so*") if OPTIONAL not in path.as_posix()]
    wanted = {path: needed(path) for path in files if not path.is_symlink()}
    held = {path.name for path in files}
    missing = {
        name: path.relative_to(site)
        for path, names in wanted.items()
        for name in names
        if name not in held and not PROMISED.fullmatch(name)
    }
    # Not one too few, and not one that is needed no more.
    assert missing.keys() == PACKAGES.keys(), missing


@pytest.mark.parametrize("package", PACKAGES.values())
def test_the_image_and_the_one_machine_setup_install_it(package: str):
    installer = ROOT / "clickstream_assets" / "engine" / "install_openmp.sh"
    for file in (DOCKERFILE, installer):
        installs = re.findall(r"(?:apt-get|\n    )\s*install\b.*|install_package\.sh\b.*", file.read_text())
        assert any(re.search(rf"\b{package}\b", line) for line in installs), file
