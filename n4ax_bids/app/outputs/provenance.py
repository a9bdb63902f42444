"""How the images of an output folder were corrected, according to their records.

A run may do something else than it was asked for: its images may already be finished, may fail, or
may be claimed by another run. So the methods text describes the records and not the request.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from glob import escape
from importlib import metadata as packages
from pathlib import Path, PurePath
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.app.job import ROOT_PAGE
from n4ax_bids.app.outputs import derivatives, finished
from n4ax_bids.app.request import Request
from n4ax_bids.io.text import read_json
from n4ax_bids.methods import METHODS
from n4ax_bids.options import FIELD_SCALES, MASK_PROGRAMS, MASK_WORDS

MASKS = (*MASK_WORDS, *MASK_PROGRAMS, "none", "derivatives")
"""values of --mask"""
LOOKS = 16
"""number of records that are read at the same time; a shared file system takes milliseconds for
each"""


@dataclass(frozen=True)
class Way:
    """A way in which images were corrected, or will be."""

    request: Request
    """only the fields that affect the content of outputs are set"""
    version: str
    """version of this program"""
    jax: str
    images: tuple[str, ...] = ()
    """names without extension"""
    applied: tuple[str, ...] = ()
    """suffixes of images that got the field of one of them"""

    @classmethod
    def asked(cls, request: Request) -> Way:
        """Return the way that a request asks for."""
        return cls(request, __version__, packages.version("jax"))


def ways(output_dir: Path, subject: str = "") -> list[Way]:
    """Return the ways in which the images of an output folder were corrected.

    Parameters
    ----------
    output_dir : root of the derivative dataset
    subject : only images of this participant or page, "sub-01"; "" for all

    Returns
    -------
    list of Way, the one with most images first. Records that cannot be read are ignored.
    """
    folder = output_dir / finished.FOLDER
    paths = sorted(folder.glob(f"{escape(subject) or '*'}/**/*.json"))
    if subject in ("", ROOT_PAGE):
        paths += sorted(folder.glob("*.json"))
    with ThreadPoolExecutor(LOOKS) as looking:
        records = [found for found in looking.map(_read, paths) if found]
    groups: dict[str, list[str]] = defaultdict(list)
    suffixes = set()
    for content in records:
        if content.get(finished.APPLIED):
            suffixes.add(_stem(content["source"]).rpartition("_")[2])
            continue
        facts = {key: content.get(key) for key in ("version", "settings", *finished.TOLD)}
        groups[derivatives.encode(facts)].append(content["source"])
    found = []
    for text, sources in groups.items():
        way = _way(json.loads(text), sorted(sources))
        found += [way] if way else []
    found.sort(key=lambda way: (-len(way.images), way.images))
    if found and suffixes:
        found[0] = replace(found[0], applied=tuple(sorted(suffixes)))
    return found


def _stem(source: str) -> str:
    return PurePath(source).name.partition(".")[0]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path)
        return content if isinstance(content["source"], str) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_known(settings: Mapping[str, Any]) -> bool:
    """Return whether the methods text can describe the settings of a record.

    Anyone who may write to the output folder could have changed them.
    """
    texts = [settings.get(key) for key in ("weight", "mask_program")]
    names = settings["derivatives"]
    return (
        settings["mask"] in MASKS
        and settings.get("field_scale", "as-is") in FIELD_SCALES
        and all(text is None or isinstance(text, str) for text in texts)
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
    )


def _way(facts: Mapping[str, Any], sources: list[str]) -> Way | None:
    """Return the way that records describe, or None if this version cannot read the options."""
    try:
        settings = facts["settings"]
        method = METHODS[settings["method"]]
        options = method.read(settings["options"])
        stems = [_stem(source) for source in sources]
        request = Request(
            Path(),
            Path(),
            inputs=(Path(),) if facts[finished.COMMAND] else (),
            modalities=tuple(sorted({stem.rpartition("_")[2] for stem in stems})),
            method=settings["method"],
            mask=settings["mask"],
            mask_program=settings.get("mask_program"),
            weight=settings["weight"],
            derivatives={name: Path() for name in settings["derivatives"]},
            options=options,
            rescale=settings["rescale"],
            field_scale=settings.get("field_scale", "as-is"),  # as versions before 0.2 did
            output_dtype=settings["output_dtype"],
            preset=facts["preset"] or method.preset_of(options),
            sloppy=bool(facts["sloppy"]),
        )
        jax = facts["jax"] or packages.version("jax")
        if request.preset not in method.presets or not _is_known(settings):
            return None
        return Way(request, str(facts["version"]), str(jax), tuple(stems))
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
