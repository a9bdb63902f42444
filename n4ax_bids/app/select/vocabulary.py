"""The words of BIDS and pybids: suffixes, datatypes and entities, from the schema."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from n4ax_bids.methods import Query

WEIGHTED_MAPS = ("UNIT1",)
"""parametric images of the schema that have the contrast of a weighted image"""
PHASE = frozenset({"phase"})
"""suffix of the phase of functional images in older datasets"""
KINDS = {
    "anat": "anatomical",
    "func": "functional",
    "micr": "microscopy",
    "perf": "perfusion",
    "dwi": "diffusion",
}
"""adjectives for images of a datatype"""


@cache
def modalities(datatypes: tuple[str, ...] = ("anat",)) -> tuple[str, ...]:
    """Return the BIDS suffixes of images of these datatypes that can be corrected."""
    raw = _schema().rules.files.raw
    rules = [rule for datatype in datatypes for rule in raw[datatype].values()]
    known = dict.fromkeys(suffix for rule in rules for suffix in rule.suffixes)
    return tuple(suffix for suffix in known if suffix not in maps_and_masks() | PHASE)


def widened(query: Query) -> Query:
    """Return a query that also takes the images of its further datatypes."""
    suffixes = query.suffixes and (*query.suffixes, *modalities(query.more))
    return query._replace(datatypes=(*query.datatypes, *query.more), suffixes=suffixes)


def taken_by(query: Query) -> tuple[str, ...]:
    """Return the suffixes of the images that a method takes."""
    return query.suffixes or modalities(query.datatypes)


def kind_of(query: Query) -> str:
    """Return an adjective for the images that a method takes, such as "anatomical"."""
    return " or ".join(KINDS.get(datatype, datatype) for datatype in query.datatypes)


@cache
def datatypes() -> frozenset[str]:
    """Return the names that BIDS has for folders of one kind of data: anat, func, dwi, …"""
    return frozenset(_schema().objects.datatypes)


@cache
def maps_and_masks() -> frozenset[str]:
    """Return the BIDS suffixes of anatomical files that are maps or masks, never corrected."""
    rules = _schema().rules.files.raw.anat
    return frozenset([*rules.parametric.suffixes, *rules.defacemask.suffixes]) - set(WEIGHTED_MAPS)


@cache
def _schema() -> Any:
    from bidsschematools.schema import load_schema

    return load_schema()


@cache
def names() -> Mapping[str, str]:
    """Return pybids' name of each entity, by every name that the entity has."""
    from bids.layout import Config

    known = {name for config in ("bids", "derivatives") for name in Config.load(config).entities}
    names = {name: name for name in known}
    for long, entity in _schema().objects.entities.items():
        theirs = next((name for name in (long, entity.name) if name in known), None)
        if theirs:
            names |= {long: theirs, entity.name: theirs}
    return names


@cache
def numbered_keys() -> frozenset[str]:
    """Return the keys whose labels are numbers, so that run-1 and run-01 are the same run."""
    entities = _schema().objects.entities.values()
    return frozenset(entity.name for entity in entities if entity.format == "index")


@cache
def numbered() -> frozenset[str]:
    """Return pybids' names of the entities of `numbered_keys`."""
    return frozenset(names()[key] for key in numbered_keys() if key in names())
