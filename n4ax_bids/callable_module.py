"""Modules that can be called as their function of the same name, like `n4ax_bids.correct`.

`from n4ax_bids import correct` and `import n4ax_bids.correct` both yield the module, because
Python sets a package's attribute to the submodule on import. The name therefore means the same in
every order of imports, and it can be called like the function.
"""

from __future__ import annotations

import importlib
import types
from typing import Any


class CallableModule(types.ModuleType):
    """The class of such a module; a module takes it by an assignment to its `__class__`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)  # functions can be sent to processes
