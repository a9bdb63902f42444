"""Our nodes in place of ANTs' N4 and FSL's MCFLIRT in other packages."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType

from nipype import logging
from nipype.interfaces.ants.segmentation import N4BiasFieldCorrection as AntsN4
from nipype.interfaces.fsl.preprocess import MCFLIRT as FslMCFLIRT

from n4ax_bids.callable_module import CallableModule
from n4ax_bids.interfaces.fix import FixN4BiasFieldCorrection
from n4ax_bids.interfaces.mcflirt import MCFLIRT
from n4ax_bids.interfaces.n4 import N4BiasFieldCorrection

PACKAGES = (
    "nipype",
    "niworkflows",
    "smriprep",
    "sdcflows",
    "fmriprep",
    "mriqc",
    "nibabies",
    "nirodents",
    "qsiprep",
)
"""packages whose modules are searched"""

_log = logging.getLogger("nipype.interface")
_lock = threading.RLock()
_in_force: list[Patch] = []
_theirs: dict[type, type] = {N4BiasFieldCorrection: AntsN4, MCFLIRT: FslMCFLIRT}
"""our classes and those that they replace; niworkflows' class is added when it is found"""


def patch() -> Patch:
    """Replace nodes that call ANTs' N4 or FSL's MCFLIRT by ours.

    Every name in a loaded module of `PACKAGES` that refers to nipype's `N4BiasFieldCorrection`,
    nipype's `MCFLIRT` or niworkflows' `FixN4BiasFieldCorrection` is set to our class of that name.
    This includes the modules that define them, so that modules which are loaded later find ours.
    Only nipype and, if it is installed, niworkflows' small module of fixes are imported for this.

    A workflow that is built afterwards has our nodes and keeps them, also in worker processes and
    after `undo`. Existing nodes do not change; do not run them in worker processes while the patch
    is in force, because an object whose class was replaced cannot be pickled.

    Returns
    -------
    Patch
        It ends with its method `undo` or with a `with` block. Patches may be nested: the last one
        to end restores the names, also in modules that were loaded in the meantime.

    Examples
    --------
    >>> from n4ax_bids.interfaces import patch
    >>> with patch():
    ...     from nipype.interfaces.ants import N4BiasFieldCorrection
    >>> N4BiasFieldCorrection.__module__
    'n4ax_bids.interfaces.n4'
    """
    with _lock:
        # Before the swap, or niworkflows' class would be derived from ours and shift nothing.
        patched = Patch(failed=_find_niworkflows())
        _in_force.append(patched)
        _rename({theirs: ours for ours, theirs in _theirs.items()})
    _log.info("nodes of n4ax_bids: %s", ", ".join(patched.replaced))
    for reason in patched.failed:
        _log.warning("nodes of n4ax_bids not in place: %s", reason)
    return patched


class Patch:
    """Our nodes under other packages' names, until `undo`.

    Attributes
    ----------
    failed : tuple of str, what could not be patched and why
    """

    def __init__(self, failed: tuple[str, ...] = ()):
        self.failed = failed

    @property
    def replaced(self) -> tuple[str, ...]:
        """Names that refer to our classes now, including those in modules loaded since."""
        return tuple(sorted(f"{module.__name__}.{name}" for module, name, _ in _names_of(_theirs)))

    def undo(self) -> None:
        """End this patch; a second call has no effect."""
        with _lock:
            if self in _in_force:
                _in_force.remove(self)
                if not _in_force:
                    _rename(_theirs)

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<Patch: replaced={self.replaced}, failed={self.failed}>"


def _find_niworkflows() -> tuple[str, ...]:
    """Find niworkflows' class if it is installed; return why not if that fails."""
    module = "niworkflows.interfaces.fixes"
    if FixN4BiasFieldCorrection in _theirs:
        return ()
    try:
        theirs = importlib.import_module(module).FixN4BiasFieldCorrection
    except Exception as error:  # the import of another package may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "niworkflows":
            return ()
        return (f"{module} ({type(error).__name__}: {error})",)
    _theirs[FixN4BiasFieldCorrection] = theirs
    return ()


def _rename(new: Mapping[type, type]) -> None:
    """Set every name of a class to its new one."""
    for module, name, old in list(_names_of(new)):
        setattr(module, name, new[old])


def _names_of(classes: Iterable[type]) -> Iterator[tuple[ModuleType, str, type]]:
    """Find the names of classes in the loaded modules of `PACKAGES`: module, name and class."""
    by_id = {id(each): each for each in classes}
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and module.__name__.split(".")[0] in PACKAGES:
            for name, value in list(vars(module).items()):
                if id(value) in by_id:
                    yield module, name, value


__signature__ = inspect.signature(patch)
sys.modules[__name__].__class__ = CallableModule
