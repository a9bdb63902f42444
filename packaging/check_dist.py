"""Checks what wheel and source distribution contain: `python packaging/check_dist.py dist`.

Every file of the package that git tracks must be in both, and what is needed to build an image, to
run the tests and to cite the package in the source distribution.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_IN_SOURCE = (".ci/", ".github/", ".gitignore")
"""tracked files that only this repository needs"""


def tracked() -> list[str]:
    """Return the files that git tracks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    return listed.stdout.decode().splitlines()


def faults(folder: Path) -> list[str]:
    """Return a line for each fault of the distributions in a folder."""
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if (len(wheels), len(sources)) != (1, 1):
        return [f"{folder}: {len(wheels)} wheels, {len(sources)} .tar.gz; expected one of each"]
    files = tracked()
    package = {name for name in files if name.startswith("n4ax_bids/")}
    with zipfile.ZipFile(wheels[0]) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(sources[0]) as archive:
        members = [each.name for each in archive.getmembers() if each.isfile()]
    in_source = {name.partition("/")[2] for name in members}
    wanted = {name for name in files if not name.startswith(NOT_IN_SOURCE)}
    found = [f"{wheels[0].name}: lacks {name}" for name in sorted(package - in_wheel)]
    found += [f"{wheels[0].name}: has {name}" for name in sorted(in_wheel - package)]
    found += [f"{sources[0].name}: lacks {name}" for name in sorted(wanted - in_source)]
    extra = in_source - set(files) - {"PKG-INFO"}
    found += [f"{sources[0].name}: has {name}" for name in sorted(extra)]
    if "n4ax_bids/py.typed" not in in_wheel:
        found.append(f"{wheels[0].name}: lacks py.typed")
    return found


if __name__ == "__main__":
    found = faults(Path(sys.argv[1]))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
