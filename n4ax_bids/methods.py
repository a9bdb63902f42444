"""What a method is, and the methods there are.

A method estimates the bias field of an image. Everything that differs from one method to another
is said here once; every door of the package (arrays, files, nodes, the BIDS-App, its reports)
reads it from here. A further method is a file in `core`, a dataclass of options and one entry in
`METHODS`, or one call of `register` from another package (whose module of options has the method
as its `METHOD`, so that worker processes find it).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

from n4ax_bids.options import n4


class Output(NamedTuple):
    """A file that a method makes of an image, besides the corrected image and the field."""

    label: str
    """of the desc entity, and key of `Estimate.images`"""
    meaning: str
    """for the sidecar and descriptions.tsv"""


class Query(NamedTuple):
    """The images that a method takes."""

    datatype: str = "anat"
    suffixes: tuple[str, ...] | None = None
    """None for every suffix of weighted images that BIDS has in the datatype"""
    default: tuple[str, ...] = ("T1w", "T2w")
    """suffixes that are taken where nobody names any"""


class Measure(NamedTuple):
    """A number of an image that only this method has, for the table and the page of all images."""

    name: str
    """column of the table"""
    label: str
    """on the pages"""
    meaning: str
    of: Callable[[Mapping[str, Any]], float | int | None]
    """from the details, as a sidecar has them"""


@dataclass(frozen=True)
class Method:
    """What the package has to know of a method.

    Names such as "package.module:function" are imported when they are first used, so that asking
    what methods there are imports neither jax nor matplotlib.
    """

    name: str
    """on the command line, in sidecars and records"""
    title: str
    """in a text, such as "N4"""
    options: type
    """frozen dataclass whose fields are made with `options.base.option`; all have defaults"""
    presets: Mapping[str, Any]
    """named options; the first is what is used where nobody names one"""
    preset_help: Mapping[str, str]
    """what each preset is, for --help"""
    prepare: str
    """an `Estimator` (see `n4ax_bids.core.estimator`)"""
    details: type | str
    """dataclass of what only this method has to say of a solve"""
    sloppy: Callable[[Any], Any]
    """options for trying things out, from options"""
    memory: str
    """function of options, shape and zooms: bytes that a solve takes, besides the image itself"""
    paragraph: str
    """function of options, preset and whether some were changed: what the methods text says of the
    solver; [@key] cites"""
    citations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """`cite`, `text` and `bib` of each key that data/citations.json does not have"""
    default_preset: str = ""
    """name of the preset that is used where nobody names one; else the first"""
    replaces: Mapping[str, str] = field(default_factory=dict)
    """an option, and another one that it takes the place of where both could be meant"""
    cited: str = ""
    """the key of the method's own paper"""
    panel: str | None = None
    """function of matplotlib axes, options and details that draws the method's own figure beside
    the histograms"""
    caption: str = ""
    """what that figure shows"""
    shown: tuple[tuple[str, str], ...] = ()
    """label and name of details that the page of an image lists"""
    measures: tuple[Measure, ...] = ()
    outputs: tuple[Output, ...] = ()
    query: Query = Query()
    epilog: str = ""
    """a paragraph for the end of --help"""

    def __post_init__(self) -> None:
        if not self.default_preset:
            object.__setattr__(self, "default_preset", next(iter(self.presets)))

    def read(self, values: Mapping[str, Any]) -> Any:
        """Return options from their values as JSON holds them.

        Raises
        ------
        TypeError, ValueError
            If they are of a version with other options.
        """
        return self.options(
            **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        )

    def preset_of(self, options: Any) -> str:
        """Return the name of the preset with these options, else that of the default one."""
        same = (name for name, each in self.presets.items() if each == options)
        return next(same, self.default_preset)


METHODS: dict[str, Method] = {}
"""The methods by name."""


def register(method: Method) -> Method:
    """Make a method known to every door.

    Raises
    ------
    ValueError
        If another method has its name or its class of options, or an option has no default.
    """
    known = METHODS.get(method.name)
    if known is not None and known != method:
        raise ValueError(f"method {method.name} is registered already; expected another name")
    if not is_dataclass(method.options):
        raise ValueError(f"options of method {method.name}: expected a dataclass")
    for other in METHODS.values():
        if other.name != method.name and other.options is method.options:
            raise ValueError(f"the options of method {method.name} are those of {other.name}")
    METHODS[method.name] = method
    return method


def unregister(name: str) -> None:
    """Forget a method."""
    METHODS.pop(name, None)


def of_options(options: Any) -> Method:
    """Return the method that options belong to; None stands for N4's.

    Raises
    ------
    TypeError
        If they are options of no method, such as the name of a preset or a dictionary.
    """
    for method in METHODS.values():
        if isinstance(options, method.options):
            return method
    # A worker process knows what it has imported; options bring their module with them.
    found = getattr(sys.modules.get(type(options).__module__), "METHOD", None)
    if isinstance(found, Method) and isinstance(options, found.options):
        return register(found)
    return of_options(n4.require_options(options))  # None stands for N4's; others are refused


def load(name: str) -> Any:
    """Return what "package.module:name" stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def option_names(method: Method) -> tuple[str, ...]:
    """Return the names of a method's options."""
    return tuple(item.name for item in fields(method.options))


register(
    Method(
        name="n4",
        title="N4",
        options=n4.N4Options,
        presets=n4.PRESETS,
        preset_help=n4.PRESET_HELP,
        prepare="n4ax_bids.core.n4.method:prepare",
        details="n4ax_bids.core.n4.method:N4Details",
        sloppy=n4.sloppy,
        memory="n4ax_bids.core.n4.method:memory",
        paragraph="n4ax_bids.options.n4_text:paragraph",
        default_preset=n4.DEFAULT_PRESET,
        replaces={"shrink_factor": "shrink_mm"},
        cited="n4",
        panel="n4ax_bids.report.convergence:draw",
        caption='At each level: iterations done of those allowed, "met" where the threshold ended '
        "it.",
        shown=(("voxels used", "n_voxels_used"),),
        measures=(
            Measure(
                "n_iterations",
                "iterations",
                "iterations of all fitting levels together",
                lambda details: sum(details["n_iterations"]),
            ),
        ),
        epilog=n4.WHY_NOT_FMRIPREP,
    )
)
