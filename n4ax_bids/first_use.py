"""Names of a package that are loaded at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package.

    Submodules are loaded in the same way.

    Parameters
    ----------
    package : its full name
    homes : for each name, the module that holds it; for a submodule that can be called
        (`callable_module`), the submodule itself
    """
    this = sys.modules[package]

    def get(name: str) -> Any:
        submodule = f"{package}.{name}"
        if not name.startswith("_") and find_spec(submodule):
            return _loaded(submodule)  # the import sets the package's attribute
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(_loaded(homes[name]), name)
        setattr(this, name, value)
        return value

    def list_names() -> list[str]:
        return sorted({*vars(this), *homes})

    return get, list_names


def _loaded(module: str) -> ModuleType:
    """Import a module; an AttributeError in it would be taken for a name that does not exist."""
    try:
        return importlib.import_module(module)
    except AttributeError as error:
        raise ImportError(f"{module} cannot be imported: {error}", name=module) from error
