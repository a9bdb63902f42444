"""What the user asked for on the command line: every flag, defined once.

The parser, the keys of a configuration file, the request itself and the rule that decides whether
an image is finished all come from the fields below. The file is longer than 300 lines because each
flag is defined here completely, with its help and its meaning.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from n4ax_bids.app.command import words
from n4ax_bids.app.command.flag import (
    Flag,
    derived,
    flag,
    path_flag,
    switch,
    switch_off,
)
from n4ax_bids.app.select import vocabulary
from n4ax_bids.methods import METHODS, Method, Query
from n4ax_bids.options import DEFAULT_PRESET, FIELD_SCALES, MASK_PROGRAMS, PRESETS

DEFAULT_METHOD, FIELD_SCALE = "n4", "mean"
WHICH = "which images"
HOW = "how they are corrected"
WRITTEN = "what is written"
TAKEN = "what the run may use"
AGAIN = "what is done again"


def new_run_id() -> str:
    """Return a run's name as in NiPreps: date, time and a random number."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4()}"


def _methods(_: Method) -> dict[str, Any]:
    return {"choices": tuple(METHODS)}


def _suffixes(method: Method) -> dict[str, Any]:
    return {"default": list(method.query.default)}


def _desc(method: Method) -> dict[str, Any]:
    return {"default": method.desc}


def _presets(method: Method) -> dict[str, Any]:
    return {"choices": tuple(method.presets), "default": method.default_preset}


@dataclass(frozen=True)
class Request:
    """One run of the program; paths are absolute, labels have no "sub-", "ses-", "run-"."""

    bids_dir: Path = field(metadata={"decides": "run"})
    output_dir: Path = field(metadata={"decides": "run"})
    level: str = derived("participant", "run")
    inputs: tuple[Path, ...] = derived((), "run")
    """files and folders of `n4ax-files`; empty for a BIDS dataset"""
    participants: tuple[str, ...] = flag(
        "--participant-label",
        "--participant_label",
        group=WHICH,
        default=(),
        type=words.label("sub-"),
        nargs="+",
        metavar="LABEL",
        help='only these participants, with or without "sub-" (default: all)',
    )
    sessions: tuple[str, ...] = flag(
        "--session-label",
        "--session-id",
        group=WHICH,
        default=(),
        type=words.label("ses-"),
        nargs="+",
        metavar="LABEL",
        help='only these sessions, with or without "ses-" (default: all)',
    )
    runs: tuple[str, ...] = flag(
        "--run-id",
        group=WHICH,
        default=(),
        type=words.label("run-"),
        nargs="+",
        metavar="LABEL",
        help='only these runs, with or without "run-"; 1 is 01 (default: all)',
    )
    modalities: tuple[str, ...] = flag(
        "-m",
        "--modalities",
        group=WHICH,
        default=("T1w", "T2w"),
        read=lambda given: tuple(dict.fromkeys(given)),
        of_method=_suffixes,
        nargs="+",
        metavar="SUFFIX",
        help="suffixes of the images: T1w T2w PDw T2starw FLAIR inplaneT1 inplaneT2 UNIT1 MEGRE "
        "MESE ...; phase, maps and masks are never taken (default: T1w T2w)",
    )
    filters: Mapping[str, Mapping[str, Any]] = path_flag(
        "--bids-filter-file",
        group=WHICH,
        default={},
        metavar="FILE",
        help='JSON in fMRIPrep\'s form: {"t1w": {"acquisition": "mprage"}}; null is none, "*" any',
    )
    """for each modality in lower case, the entities and the labels that they may have"""
    realign_4d: bool = switch(
        "--realign-4d",
        group=WHICH,
        help="with --method realign: also take the anatomical images that are series of volumes "
        "(four axes)",
    )
    skip_normalized: str = flag(
        "--skip-normalized",
        group=WHICH,
        default="warn",
        decides="content",
        choices=("no", "warn", "yes"),
        help="leave out images that the scanner has corrected (ImageType has NORM), or warn of "
        "them (default: %(default)s)",
    )
    validate: bool = switch_off(
        "--skip-bids-validation",
        group=WHICH,
        help="do not ask bids-validator-deno whether the dataset is valid",
    )
    bids_database_dir: Path | None = path_flag(
        "--bids-database-dir",
        group=WHICH,
        metavar="DIR",
        help="keep pybids' index of the dataset here and use the one that is there (default: in "
        "memory)",
    )
    method: str = flag(
        "--method",
        group=HOW,
        default=DEFAULT_METHOD,
        decides="content",
        of_method=_methods,
        help="how the field is estimated (default: %(default)s)",
    )
    mask: str = flag(
        "--mask",
        group=HOW,
        default="auto",
        decides="content",
        choices=("auto", "head", "brain", "otsu", "none", "derivatives", *MASK_PROGRAMS),
        help="where the field is estimated: in the head or the brain that is found in the image; "
        "auto: in the brain where one is found with confidence, else in the head; otsu: in the "
        "voxels above Otsu's threshold; none: in all voxels, as the ANTs program does without a "
        "mask; derivatives: in desc-brain_mask of -d (where there is none: weighted by its "
        "label-WM_probseg); synthstrip, hd-bet: in the brain that this program finds, where it is "
        "installed; its mask is always written (default: %(default)s)",
    )
    mask_program: str | None = derived(None, "content")
    """name and version of the program that finds the masks, if `mask` names one"""
    weight: str | None = flag(
        "--weight",
        group=HOW,
        decides="content",
        metavar="LABEL",
        help="estimate with this tissue's probability of -d as the weight: WM is "
        "label-WM_probseg (default: none)",
    )
    derivatives: Mapping[str, Path] = flag(
        "-d",
        "--derivatives",
        group=HOW,
        default={},
        decides="content",
        nargs="+",
        metavar="[NAME=]DIR",
        help="derivative datasets of other pipelines that hold masks and tissue probabilities; "
        "the first that has one for the image counts. Reports measure white and grey matter there",
    )
    """folders with masks and tissue probabilities, by their names in BIDS URIs"""
    apply_to: tuple[str, ...] = flag(
        "--apply-to",
        group=HOW,
        default=(),
        read=lambda given: tuple(dict.fromkeys(given)),
        nargs="+",
        metavar="SUFFIX",
        help="divide the images with these suffixes (T2w FLAIR bold dwi ...) by the field of the "
        "reference image of their session, which is the first one of --modalities; they must be "
        "in the scanner's frame, as it is (default: none)",
    )
    preset: str = flag(
        "--preset",
        group=HOW,
        default=DEFAULT_PRESET,
        of_method=_presets,
        help="named set of the method's options, listed below (default: %(default)s)",
    )
    options: Any = derived(PRESETS[DEFAULT_PRESET], "content")
    """options of the method"""
    rescale: bool = switch(
        "--rescale",
        group=HOW,
        decides="content",
        help="with a mask of -d, do as the ANTs program: voxels outside keep their values, those "
        "inside are rescaled to the range that they had",
    )
    field_scale: str = flag(
        "--field-scale",
        group=HOW,
        default=FIELD_SCALE,
        decides="content",
        choices=FIELD_SCALES,
        help="divide the field by its mean or median inside the mask, so that images keep their "
        "level; as-is: as the ANTs program (default: %(default)s)",
    )
    sloppy: bool = switch(
        "--sloppy",
        group=HOW,
        help="at most two levels of five iterations, shrink 4: for trying out, not for results",
    )
    desc: str = flag(
        "--desc",
        group=WRITTEN,
        default="biascorr",
        decides="content",
        type=words.desc,
        of_method=_desc,
        metavar="LABEL",
        help="desc label of the corrected images (default: %(default)s)",
    )
    bias_field: bool = switch_off(
        "--no-bias-field",
        group=WRITTEN,
        decides="content",
        help="do not write the fields; the lattices contain them",
    )
    output_dtype: str = flag(
        "--output-dtype",
        group=WRITTEN,
        default="float32",
        decides="content",
        choices=("float32", "source"),
        help="voxels of the corrected images: as computed, or in the source's own type with "
        "slope and intercept (default: %(default)s)",
    )
    save_mask: bool = switch(
        "--save-mask",
        group=WRITTEN,
        decides="content",
        help="write the mask that --mask auto, head, brain or otsu finds as desc-brain_mask, "
        "desc-head_mask or desc-otsu_mask",
    )
    dry_run: bool = switch(
        "--dry-run",
        group=WRITTEN,
        help="show each image, why it is taken or not, its options and its outputs; write nothing",
    )
    boilerplate_only: bool = switch(
        "--boilerplate-only", group=WRITTEN, help="write the methods text and nothing else"
    )
    reports: bool = switch_off(
        "--no-reports", group=WRITTEN, help="draw no figures and write no pages"
    )
    reports_only: bool = switch(
        "--reports-only",
        group=WRITTEN,
        help="draw the figures and write the pages of images that have been corrected; solve "
        "nothing",
    )
    device: str = flag(
        "--device",
        group=TAKEN,
        default="auto",
        type=words.device,
        metavar="{auto,gpu,gpu:N,cpu}",
        help="where to compute; auto takes a GPU if there is one and says so where there is "
        "none, gpu is an error without one (default: %(default)s)",
    )
    nprocs: int | None = flag(
        "--nprocs",
        "--nthreads",  # this and the next two are fMRIPrep's names
        "--n_cpus",
        "--n-cpus",
        group=TAKEN,
        type=words.positive(int),
        metavar="N",
        help="images in flight: some are solved while others are read and written "
        "(default: as --omp-nthreads, else one for each core)",
    )
    omp_nthreads: int | None = flag(
        "--omp-nthreads",
        group=TAKEN,
        type=words.positive(int),
        metavar="N",
        help="threads of a solve on the CPU (default: as --nprocs, else one for each core)",
    )
    mem: int | None = flag(
        "--mem",
        "--mem_mb",
        "--mem-mb",
        group=TAKEN,
        type=words.memory,
        metavar="MB",
        help="memory for images in flight, in MB or with a unit (8G, 800M, 8GiB); if they would "
        "need more, fewer are in flight; the program itself needs about half a GB in addition "
        "(default: the free memory)",
    )
    """bytes"""
    low_mem: bool = switch(
        "--low-mem",
        "--low_mem",
        group=TAKEN,
        help="one image in flight at a time, on each device; with --use-plugin the engine decides "
        "and this has no effect",
    )
    random_seed: int | None = flag(
        "--random-seed",
        "--random_seed",
        group=TAKEN,
        type=words.whole,
        metavar="N",
        help="seed of a method that draws random numbers, as its own --seed; N4 draws none, so "
        "that it has no effect there",
    )
    resource_monitor: bool = switch(
        "--resource-monitor",
        "--resource_monitor",
        group=TAKEN,
        help="log the processor time and the peak memory at the end of the run",
    )
    write_graph: bool = switch(
        "--write-graph",
        "--write_graph",
        group=TAKEN,
        help="accepted without effect: an image is one step, and there is no graph to draw",
    )
    work_dir: Path | None = path_flag(
        "-w",
        "--work-dir",
        group=TAKEN,
        metavar="DIR",
        help="place for unfinished files; fastest on the output's file system "
        "(default: a hidden folder in the output folder); emptied at the end",
    )
    clean_workdir: bool = switch(
        "--clean-workdir",
        group=TAKEN,
        help="first remove what other runs have left in the work folder; do not use it while a "
        "run on another machine works there",
    )
    use_plugin: Path | None = path_flag(
        "--use-plugin",
        group=TAKEN,
        metavar="FILE",
        help="run the images as a nipype workflow under the engine that this YAML or JSON file "
        "names: plugin (MultiProc, SLURM, SGE, PBS, ...) and plugin_args",
    )
    """YAML or JSON: nipype's plugin and its arguments"""
    overwrite: bool = switch(
        "--overwrite",
        group=AGAIN,
        help="do all images again; without it those that are finished stay: same size, time and "
        "fingerprint of the input, or else the same content, same options, same version",
    )
    verify_inputs: bool = switch(
        "--verify-inputs",
        group=AGAIN,
        help="compare the whole content of inputs, not only size, time and fingerprint, to "
        "decide which images are finished",
    )
    accept_new_source: bool = switch(
        "--accept-new-source",
        group=AGAIN,
        help="continue although the existing outputs were made from another dataset; images "
        "with the same name are then replaced, and the others stay",
    )
    """whether the outputs in the folder may come from another dataset"""
    stop_on_first_crash: bool = switch(
        "--stop-on-first-crash", group=AGAIN, help="begin no further image after one has failed"
    )
    snapshot: str = field(default="", compare=False, metadata={"decides": "run"})
    """all options of the run as TOML"""
    run_id: str = field(default_factory=new_run_id, compare=False, metadata={"decides": "run"})

    @property
    def is_bids(self) -> bool:
        """Whether the images are those of a BIDS dataset; else `bids_dir` is a plain folder."""
        return not self.inputs

    @property
    def query(self) -> Query:
        """The images of a dataset that the method takes, with those that --realign-4d adds."""
        found = METHODS[self.method].query
        return vocabulary.widened(found) if self.realign_4d else found


def flags() -> dict[str, Flag]:
    """Return the flag of each field that has one, by the field's name."""
    each = ((item.name, item.metadata.get("flag")) for item in fields(Request))
    return {name: found for name, found in each if found is not None}


def deciding(what: str) -> frozenset[str]:
    """Return the fields that decide the "content" of outputs, or those that decide the "run"."""
    return frozenset(item.name for item in fields(Request) if item.metadata["decides"] == what)
