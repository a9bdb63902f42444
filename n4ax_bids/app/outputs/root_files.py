"""Writes the files at the root of the derivative dataset, and the lists of skipped images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from n4ax_bids import __version__
from n4ax_bids.app.job import CORRECTED, DESCRIPTIONS, LATTICE, MASKS, page_of
from n4ax_bids.app.outputs.derivatives import LINK, NAME, encode, write_text
from n4ax_bids.app.outputs.source import TITLE, Identity
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.atomic import shortened
from n4ax_bids.io.text import read_text
from n4ax_bids.methods import METHODS, outputs_of

if TYPE_CHECKING:
    from n4ax_bids.app.job import Selection

BIDS_VERSION = "1.11.1"
NO_MASK_NAMES = ("*inv-*_mask*", "*flip-*_mask*", "*mt-*_mask*")
"""Masks whose names have entities of their images that BIDS does not allow in names of masks. The
validator does not accept the form "*_inv-*_mask*"."""
B_VALUES = "*desc-*_dwi.bv*"
"""Copies of b-values and directions: BIDS has no names for them beside derived series."""
NO_BIDS_LATTICES = f"*desc-{LATTICE}_*"
"""Lattices of stacks with their sidecars: BIDS does not have their format."""
MARK = Path("logs", "made_by.json")
"""marks an output folder that is no dataset, because its images come from plain folders"""
IGNORED = ("*.html", "figures", "group_*.tsv")
"""Lines of `.bidsignore`; "figures" has no slash because the validator accepts no other form."""


def write(request: Request, raw: Mapping[str, Any], selection: Selection) -> None:
    """Write all these files.

    Parameters
    ----------
    request : the run
    raw : description of the raw dataset
    selection : the images that the run takes, and those that it leaves out
    """
    if request.is_bids:
        write_dataset_files(request, raw)
    else:
        mark(request.output_dir)
    write_skipped(request, selection)
    write_snapshot(request)


def mark(output_dir: Path) -> None:
    """Write the file that marks an output folder of `n4ax-files`."""
    path = output_dir / MARK
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, encode({"Name": NAME, "Version": __version__, "Command": "n4ax-files"}))


def write_dataset_files(request: Request, raw: Mapping[str, Any]) -> None:
    """Write the files at the root of the derivative dataset, each completely or not at all.

    Parameters
    ----------
    request : the run
    raw : description of the raw dataset
    """
    out = request.output_dir
    ignored = _lines(out / ".bidsignore")
    own = outputs_of(request.method)
    wanted = [*IGNORED, *(NO_MASK_NAMES if request.save_mask else ())]
    wanted += [NO_BIDS_LATTICES] if METHODS[request.method].streams else []
    wanted += [B_VALUES] if request.apply_to else []
    wanted += own.ignored(request) if own else []
    ignored += [line for line in wanted if line not in ignored]
    # Keep the rows that a user has added.
    head, *rows = _lines(out / "descriptions.tsv") or ["desc_id\tdescription"]
    meanings = {request.desc: CORRECTED, **DESCRIPTIONS} if not own else own.meanings(request)
    meanings |= {each.label: each.meaning for each in METHODS[request.method].outputs}
    if request.save_mask:
        meanings |= MASKS
    mine = [f"desc-{label}\t{meaning}" for label, meaning in meanings.items()]
    rows = sorted({*rows, *mine})
    write_text(out / "dataset_description.json", encode(dataset_description(request, raw)))
    write_text(out / ".bidsignore", "\n".join(ignored) + "\n")
    write_text(out / "descriptions.tsv", "\n".join([head, *rows, ""]))


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path, skip_mark=True).splitlines()
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise Refusal(Status.USAGE, str(error)) from error


def write_skipped(request: Request, selection: Selection) -> None:
    """Write a table of the images that were left out for each participant.

    Parameters
    ----------
    request : the run
    selection : the images that it takes, and those that it leaves out
    """
    rows = defaultdict(list)
    for name, reason in selection.skipped:
        page = PurePath(name).parts[0] if request.is_bids else page_of(name)
        rows[shortened(page, 200)].append(f"{name}\t{_plain(reason)}")
    folder = request.output_dir / "logs" / "skipped"
    for subject in {page_of(job.relative) for job in selection.jobs} - set(rows):
        (folder / f"{subject}.tsv").unlink(missing_ok=True)  # from an earlier run
    for subject, lines in rows.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{subject}.tsv", "\n".join(["file\treason", *lines, ""]))


def write_snapshot(request: Request) -> None:
    """Write every option of the run, in the form that --config-file reads."""
    path = request.output_dir / "logs" / request.run_id / "options.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, request.snapshot)


def _plain(text: str) -> str:
    return " ".join(text.split())


def dataset_description(request: Request, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of the derivative dataset."""
    bids_dir, output_dir = request.bids_dir, request.output_dir
    identity = Identity.of(bids_dir, raw)
    source = {"Version": identity.version}
    if raw.get("DatasetDOI"):
        source["DOI"] = raw["DatasetDOI"]
    links = {LINK: bids_dir, **request.derivatives}
    maker = {"Name": NAME, "Version": __version__, **_code_url(), **_container()}
    inherited = {key: raw[key] for key in ("Authors", "License") if raw.get(key)}
    return inherited | {
        "Name": f"{TITLE}{identity.name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [maker],
        "SourceDatasets": [source],
        "DatasetLinks": {
            name: quote(os.fsencode(os.path.relpath(path.resolve(), output_dir.resolve())))
            for name, path in links.items()
        },
    }


def _container() -> dict[str, Any]:
    """Return the container that this runs in, from environment variables; empty outside one."""
    tag = os.environ.get("N4AX_BIDS_DOCKER_TAG")
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if image:
        found = {"Type": "apptainer", "Tag": tag or PurePath(image).name}
    elif tag:
        found = {"Type": "docker", "Tag": tag}
    else:
        return {}
    return {"Container": found}


def _code_url() -> dict[str, str]:
    """Return the address of the code from the installed package's metadata, if it is there."""
    try:
        urls = packages.metadata("n4ax-bids").get_all("Project-URL") or ()
    except packages.PackageNotFoundError:
        return {}
    known = dict(url.split(", ", 1) for url in urls)
    address = known.get("Source") or known.get("Homepage")
    return {"CodeURL": address} if address else {}
