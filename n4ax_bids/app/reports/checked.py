"""Checks whether records of images and sidecars have everything that pages and tables need."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from n4ax_bids.app.outputs.sidecars import facts_of

LARGEST = 1e150
"""largest absolute value of a number in a record, so that its square is finite"""
PAIRS = ("cv", "white_cv", "grey_cv", "cjv")
"""measures before the correction and after it"""
SHOWN = ("field_min", "field_max", "field_cv", "cv_before", "cv_after", "mask_ml", "non_positive")
"""measures that every record has"""


def is_record(record: Any) -> bool:
    """Return whether a record has everything that pages and tables need.

    Anyone who may write to the output folder can have changed it. A damaged record is ignored.
    """
    if not (isinstance(record, dict) and isinstance(record.get("measures"), dict)):
        return False
    if not (isinstance(record.get("details"), list) and isinstance(record.get("panel"), str)):
        return False  # from an earlier version
    files = record.get("files")
    if not _are_texts(files) or not all(map(_is_name, record["files"])):
        return False
    texts = [record.get(key) for key in ("image", "source", "suffix", "sidecar", "sidecar_sha256")]
    if not all(map(_are_texts, (texts, record.get("warnings"), record.get("notes")))):
        return False
    if not all(isinstance(record.get(key), str) for key in ("region", "method", "outline")):
        return False
    if not (_are_texts(record.get("tissues")) and _are_numbers(record.get("window"), 2)):
        return False
    measures = record["measures"]
    own = [each[1:] for each in record["details"] if isinstance(each, list)]
    if len(own) < len(record["details"]) or not all(_are_numbers(each, 1) for each in own):
        return False
    if "field_median" not in record or not _are_numbers([record["field_median"]]):
        return False
    if not _are_numbers([record.get("gain"), *map(measures.get, SHOWN), *measures.values()]):
        return False
    if record["gain"] is None or not set(SHOWN) <= set(measures):
        return False
    if any((f"{name}_before" in measures) != (f"{name}_after" in measures) for name in PAIRS):
        return False
    parts = PurePath(record["source"]).parts
    return bool(parts) and ".." not in parts and not PurePath(record["source"]).is_absolute()


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(each, str) for each in values)


def _is_name(text: str) -> bool:
    """Return whether a text is the name of a file without a folder."""
    return "/" not in text and text not in ("", ".", "..")


def _are_numbers(values: Any, count: int | None = None) -> bool:
    """Return whether values are a list of `count` numbers or None, none of them too large."""
    if not isinstance(values, list) or count not in (None, len(values)):
        return False
    return all(
        each is None or (isinstance(each, int | float) and abs(each) <= LARGEST) for each in values
    )


def is_sidecar(content: Any) -> bool:
    """Return whether the sidecar of a corrected image has everything that a page shows.

    A sidecar of an earlier version has not.
    """
    facts = facts_of(content)
    if not isinstance(facts, dict) or "Device" not in facts:
        return False
    return all(isinstance(facts.get(key), dict) for key in ("Options", "Versions"))
