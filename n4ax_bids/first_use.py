"""Names of a package that are loaded at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package.

    The submodules that hold the names are loaded in the same way.

    Parameters
    ----------
    package : its full name
    homes : for each name, the module that holds it; for a submodule that can be called
        (`callable_module`), the submodule itself
    """
    modules = set(homes.values())

    def get(name: str) -> Any:
        if f"{package}.{name}" in modules:
            return importlib.import_module(f"{package}.{name}")  # sets the package's attribute
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, list_names
