"""Pages of reports: the images that they are about, their text, and when they were written."""

from __future__ import annotations

import re

NAMES = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_task-x_acq-a_run-1_T2w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii",
]


def text_of(path) -> str:
    source = re.sub(r"<(script|style)>.*?</\1>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", source).split())


def drawn(out) -> dict:
    """When each figure and page was written."""
    found = [*out.glob("sub-*/figures/*"), *out.glob("*.html")]
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in found}
