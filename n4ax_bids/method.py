"""What the package needs to know about a method: images, options, presets, texts, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


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
    """folders of a participant or session that are read, such as "anat", "func" or "micr\""""
    more: tuple[str, ...] = ()
    """folders that are read as well if the user asks for it (`--realign-4d`)"""
    endings: tuple[str, ...] = (".nii", ".nii.gz")
    """extensions of the images in them; other files are left out"""


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
    """name of an `Estimator` (see `n4ax_bids.core.estimator`); "" for a method that streams"""
    sloppy: Callable[[Any], Any]
    """returns options for quick trials, from options"""
    memory: str
    """name of a function of options, shape and zooms that returns the bytes of a solve, without
    those of the image; "" for a method that streams"""
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
    words: str = ""
    """name of a function of options and details that returns sentences about the figure of one
    image, which follow the caption"""
    shown: tuple[tuple[str, str], ...] = ()
    """(label, name) of the details that the page of an image lists"""
    measures: tuple[Measure, ...] = ()
    outputs: tuple[Output, ...] = ()
    query: Query = Query()
    streams: bool = False
    """whether it corrects stacks that need not fit into memory, by the node
    `StackImageCorrection`, instead of images that are arrays"""
    epilog: str = ""
    """a paragraph at the end of --help"""
    desc: str = "biascorr"
    """desc label of the main output if the user names none"""
    app: str = ""
    """name of a module that names, makes, describes and shows the outputs in the BIDS-App, if they
    are not those of a bias field; `n4ax_bids.app.motion.method` is one"""

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
