"""The registry of methods.

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
from dataclasses import fields, is_dataclass
from typing import Any

from n4ax_bids.method import Measure as Measure
from n4ax_bids.method import Method as Method
from n4ax_bids.method import Output as Output
from n4ax_bids.method import Query as Query
from n4ax_bids.options import n4, realign, stack, stack_method, tissue, zero_shot

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


def require_arrays(method: Method) -> None:
    """Refuse a method that takes stacks of planes where an image is an array.

    Raises
    ------
    ValueError
        One line that says what to call instead.
    """
    if method.streams:
        raise ValueError(
            f"options is {method.options.__name__}(...), of a stack of sections; expected options "
            "of a method for single images (for a stack call n4ax_bids.stream or correct_stack)"
        )


def load(name: str) -> Any:
    """Import and return "package.module:name"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def outputs_of(name: str) -> Any:
    """Return the module that makes a method's outputs in the BIDS-App; None for a bias field."""
    module = METHODS[name].app
    return importlib.import_module(module) if module else None


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
        words="n4ax_bids.report.convergence:in_words",
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

register(
    Method(
        name="stack",
        title="N4 on serial sections",
        options=stack.StackOptions,
        presets=stack_method.PRESETS,
        preset_help=stack_method.PRESET_HELP,
        prepare="",
        sloppy=stack_method.sloppy,
        memory="",
        paragraph="n4ax_bids.options.stack_method:paragraph",
        cited="n4",
        shown=(("sections", "n_sections"), ("samples in the tissue", "n_samples")),
        query=Query(
            default=("OCT", "SPIM"),
            datatypes=("micr",),
            endings=(".ome.zarr", ".ome.tif", ".ome.btf", ".tif", ".png"),
        ),
        streams=True,
    )
)

register(
    Method(
        name="realign",
        title="rigid realignment",
        options=realign.RealignOptions,
        presets=realign.PRESETS,
        preset_help=realign.PRESET_HELP,
        prepare="n4ax_bids.core.motion.series:no_field",
        sloppy=realign.sloppy,
        memory="n4ax_bids.core.motion.series:memory",
        paragraph="n4ax_bids.options.realign:paragraph",
        citations=realign.CITATIONS,
        cited="realign",
        shown=(("volumes", "n_volumes"), ("volumes that were not realigned", "n_flagged")),
        measures=tuple(Measure(*each) for each in realign.MEASURES),
        query=Query(
            suffixes=("bold", "cbv", "asl", "m0scan", "dwi"),
            default=("bold", "asl", "dwi"),
            datatypes=("func", "perf", "dwi"),
            more=("anat",),
        ),
        desc="hmc",
        app="n4ax_bids.app.motion.method",
    )
)
