"""Print what pyproject.toml asks for, with its extras: asked.py PYPROJECT EXTRA...

pip installs a project's dependencies only together with the project. Apart from it they are a
layer of their own, which stays the same when only the code changes.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def asked(pyproject: Path, extras: list[str]) -> list[str]:
    """Return the requirements of the project itself and of some of its extras."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    offered = project["optional-dependencies"]
    unknown = [extra for extra in extras if extra not in offered]
    if unknown:
        sys.exit(f"{pyproject}: no extra {unknown[0]}; there are {', '.join(offered)}")
    return [*project["dependencies"], *(line for extra in extras for line in offered[extra])]


if __name__ == "__main__":
    print(*asked(Path(sys.argv[1]), sys.argv[2:]), sep="\n")
