"""The description of a method, and the registry of methods.

A method estimates the bias field of an image. Everything that differs between methods is declared
here once; all interfaces of the package (arrays, files, nodes, the BIDS-App, its reports) read it
from here. Another method needs a file in `core`, a dataclass of options and one entry in
`METHODS`, or one call of `register` from another package. That package's module of options then
has the method as its `METHOD`, so that worker processes find it.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

from n4ax_bids.options import n4, tissue, zero_shot


class Output(NamedTuple):
    """An image that a method writes in addition to the corrected image and the field."""

    label: str
    """label of the desc entity, and key of `Estimate.images`"""
    meaning: str
    """description in the sidecar and in descriptions.tsv"""
    written: Callable[[Any], bool] = lambda options: True
    """whether a solve with these options has it; by default always"""
    probseg: bool = False
    """whether it is a map of a tissue's probability: its file has the entity label and the suffix
    probseg"""


class Query(NamedTuple):
    """Which images of a dataset a method takes."""

    suffixes: tuple[str, ...] | None = None
    """None for every suffix that BIDS has for images of these datatypes, without maps and masks"""
    default: tuple[str, ...] = ("T1w", "T2w")
    """suffixes that are taken if the user names none"""
    datatypes: tuple[str, ...] = ("anat",)
    """folders of a participant or session that are read, such as "anat", "func" or "micr"; only
    the NIfTI files in them are images"""


class Measure(NamedTuple):
    """A number that only this method reports, for the table and the page of all images."""

    name: str
    """column of the table"""
    label: str
    """its name on the pages"""
    meaning: str
    of: Callable[[Mapping[str, Any]], float | int | None]
    """computes it from the details, as in a sidecar"""


@dataclass(frozen=True)
class Method:
    """What the package needs to know about a method.

    Names such as "package.module:function" are imported at their first use, so that a list of the
    methods needs neither jax nor matplotlib.
    """

    name: str
    """name on the command line, in sidecars and records"""
    title: str
    """name in texts, such as "N4"""
    options: type
    """frozen dataclass whose fields are made with `options.base.option`; all have defaults"""
    presets: Mapping[str, Any]
    """named options"""
    preset_help: Mapping[str, str]
    """description of each preset for --help"""
    prepare: str
    """name of an `Estimator` (see `n4ax_bids.core.estimator`)"""
    sloppy: Callable[[Any], Any]
    """returns options for quick trials, from options"""
    memory: str
    """name of a function of options, shape and zooms that returns the bytes of a solve, without
    those of the image"""
    paragraph: str
    """name of a function of options, preset and whether some options differ from it, which returns
    the sentences about the solver for the methods text; [@key] is a citation"""
    citations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """`cite`, `text` and `bib` of each key that data/citations.json does not contain"""
    default_preset: str = ""
    """name of the preset that is used if the user names none; if empty, the first"""
    replaces: Mapping[str, str] = field(default_factory=dict)
    """an option, and another one that it overrides if both are set"""
    cited: str = ""
    """citation key of the method's own paper"""
    panel: str | None = None
    """name of a function of matplotlib axes, options and details that draws the method's own
    figure beside the histograms"""
    caption: str = ""
    """caption of that figure"""
    shown: tuple[tuple[str, str], ...] = ()
    """(label, name) of the details that the page of an image lists"""
    measures: tuple[Measure, ...] = ()
    outputs: tuple[Output, ...] = ()
    query: Query = Query()
    epilog: str = ""
    """a paragraph at the end of --help"""

    def __post_init__(self) -> None:
        if not self.default_preset:
            object.__setattr__(self, "default_preset", next(iter(self.presets)))

    def read(self, values: Mapping[str, Any]) -> Any:
        """Return options from their values in JSON.

        Raises
        ------
        TypeError, ValueError
            If they come from a version with other options.
        """
        return self.options(
            **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        )

    def written(self, options: Any) -> tuple[Output, ...]:
        """Return the further images that a solve with these options has."""
        return tuple(output for output in self.outputs if output.written(options))

    def preset_of(self, options: Any) -> str:
        """Return the name of the preset with these options, else of the default preset."""
        same = (name for name, each in self.presets.items() if each == options)
        return next(same, self.default_preset)


METHODS: dict[str, Method] = {}
"""The methods by name."""


def register(method: Method) -> Method:
    """Add a method to the registry.

    Raises
    ------
    ValueError
        If another method has its name or its class of options, or that is not a dataclass.
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
    """Remove a method from the registry."""
    METHODS.pop(name, None)


def of_options(options: Any) -> Method:
    """Return the method that options belong to; for None, N4.

    Raises
    ------
    TypeError
        If they belong to no method, such as the name of a preset or a dictionary.
    """
    for method in METHODS.values():
        if isinstance(options, method.options):
            return method
    # A worker process has not called `register`, but it has imported the module of the options.
    found = getattr(sys.modules.get(type(options).__module__), "METHOD", None)
    if isinstance(found, Method) and isinstance(options, found.options):
        return register(found)
    return of_options(n4.require_options(options))  # None means N4's; anything else is refused


def load(name: str) -> Any:
    """Import and return "package.module:name"."""
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

register(
    Method(
        name="zeroshot",
        title="zero-shot correction",
        options=zero_shot.ZeroShotOptions,
        presets=zero_shot.PRESETS,
        preset_help=zero_shot.PRESET_HELP,
        prepare="n4ax_bids.core.zero_dce.method:prepare",
        sloppy=zero_shot.sloppy,
        memory="n4ax_bids.core.zero_dce.method:memory",
        paragraph="n4ax_bids.options.zero_shot:paragraph",
        citations=zero_shot.CITATIONS,
        cited="zeroshot",
        panel="n4ax_bids.report.zero_shot:draw",
        caption="The loss at each step of the optimiser, and the maps in the "
        "middle plane of the last axis: the tone map (-1 to 1) and the bias map (0 to 1), which "
        "is no estimate of the field.",
        shown=(
            ("weights of the network", "n_parameters"),
            ("tone map saturated", "saturated"),
            ("share of the foreground at the limit", "saturated_share"),
        ),
        measures=(
            Measure(
                "saturated_share",
                "saturated",
                "share of the foreground where the tone map is at its limit",
                lambda details: details["saturated_share"],
            ),
        ),
        outputs=(
            Output(
                "curve",
                "image brightened by the tone curve; not image / field",
                lambda options: options.output == "curve",
            ),
        ),
    )
)

register(
    Method(
        name="tissue",
        title="tissue correction",
        options=tissue.TissueOptions,
        presets=tissue.PRESETS,
        preset_help=tissue.PRESET_HELP,
        prepare="n4ax_bids.core.tissue.method:prepare",
        sloppy=tissue.sloppy,
        memory="n4ax_bids.core.tissue.method:memory",
        paragraph="n4ax_bids.options.tissue:paragraph",
        citations=tissue.CITATIONS,
        cited="unified",
        panel="n4ax_bids.report.tissue:draw",
        caption="The classes and their sum, and the most probable of three tissues in the middle "
        "plane of the last axis.",
        shown=(
            ("misfit of the classes", "misfit"),
            ("fell back to a coarse N4", "fell_back"),
            ("blocks used", "n_blocks"),
            ("rounds", "n_rounds"),
        ),
        measures=(Measure("misfit", "misfit", tissue.MISFIT, lambda details: details["misfit"]),),
        outputs=tuple(
            Output(
                label,
                f"probability of {label}",
                functools.partial(tissue.has_map, label=label),
                probseg=True,
            )
            for label in ("CSF", "GM", "WM", "class1", "class2", "class3")
        ),
    )
)
