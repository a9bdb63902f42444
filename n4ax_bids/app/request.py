"""What the person at the command line asked for, in one record."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n4ax_bids.options import DEFAULT_PRESET, PRESETS


def new_run_id() -> str:
    """Return date, time and a random number, as NiPreps name their runs."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4()}"


@dataclass(frozen=True)
class Request:
    """One run of the program; paths are absolute, labels have no "sub-", "ses-", "run-"."""

    bids_dir: Path
    output_dir: Path
    level: str = "participant"
    # which images
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("T1w", "T2w")
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """for a modality in lower case: entities and the values they may have"""
    skip_normalized: str = "warn"
    """no, warn or yes: images that the scanner has corrected already"""
    validate: bool = True
    bids_database_dir: Path | None = None
    # how each is corrected
    method: str = "n4"
    mask: str = "auto"
    mask_program: str | None = None
    """name and version of the program that finds the masks, where `mask` names one"""
    weight: str | None = None
    """tissue whose probability is the weight"""
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    """folders with masks and tissue probabilities, by the name that links have for them"""
    options: Any = PRESETS[DEFAULT_PRESET]
    """of the method"""
    rescale: bool = False
    # what is written
    desc: str = "biascorr"
    bias_field: bool = True
    output_dtype: str = "float32"
    save_mask: bool = False
    dry_run: bool = False
    boilerplate_only: bool = False
    reports: bool = True
    reports_only: bool = False
    # what is done again, and what ends the run
    overwrite: bool = False
    verify_inputs: bool = False
    accept_new_source: bool = False
    """whether the output folder may hold outputs that were made from another dataset"""
    stop_on_first_crash: bool = False
    # what the run may take
    device: str = "auto"
    use_plugin: Path | None = None
    """YAML or JSON: nipype's plugin and its arguments"""
    work_dir: Path | None = None
    clean_workdir: bool = False
    nprocs: int | None = None
    omp_nthreads: int | None = None
    mem: int | None = None
    """bytes"""
    # for the records
    preset: str = DEFAULT_PRESET
    sloppy: bool = False
    snapshot: str = field(default="", compare=False)
    """TOML of all options as they were used"""
    run_id: str = field(default_factory=new_run_id, compare=False)
