"""Runs the BIDS validator on the files of a dataset that a run reads."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

from n4ax_bids.app.request import Request
from n4ax_bids.app.select.folders import folders
from n4ax_bids.app.select.vocabulary import kind_of
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.names import why_unfit
from n4ax_bids.io.trees import is_tree

log = logging.getLogger("n4ax_bids")

PROGRAM = "bids-validator-deno"
REMEDY = "pip install '.[validate]' in a clone of the repository installs it"
OURS = ("EMPTY_FILE", "SYMLINK_BROKEN", "NIFTI_HEADER_UNREADABLE")
"""Errors of single images, which the run itself reports before it continues with the others."""
UNSEEN = ("SIDECAR_WITHOUT_DATAFILE",)
"""Errors that arise only because the validator sees a part of the dataset."""
INHERITED = (".json", ".bval", ".bvec")
"""extensions of files above an image that may belong to it"""
LARGEST_ANSWER = 256 * 2**20
"""most bytes that are read of the validator's JSON; an error takes a few hundred"""
MOST_CODES, LONGEST = 10, 100
"""most error codes that a refusal lists, and most characters of each"""
AT_THE_ROOT = (
    "dataset_description.json",
    ".bidsignore",
    "README*",
    "CHANGES",
    "LICENSE",
    "samples.*",
)


@contextmanager
def validating(request: Request) -> Iterator[Validation]:
    """Run the validator in parallel with the block, and end it with the block."""
    validation = Validation(request)
    try:
        yield validation
    finally:
        validation.end()


class Validation:
    """A validator that checks the files of the chosen participants that the run reads.

    It gets a folder of links to these files and to the files at the root that belong to them. So
    it takes no longer than necessary: 10 s for 2,000 participants.
    """

    def __init__(self, request: Request) -> None:
        self._dataset = request.bids_dir
        self._kind = kind_of(request.query)
        self._view: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        program = _program()
        if not request.is_bids:
            return
        if not request.validate:
            log.info("dataset not validated (--skip-bids-validation)")
        elif program is None:
            log.warning("dataset not validated: %s is not installed (%s)", PROGRAM, REMEDY)
        else:
            self._view = tempfile.mkdtemp(prefix="n4ax_bids-view-")
            view = Path(self._view) / "dataset"
            _link(request, view)
            config = Path(self._view) / "config.json"
            ignored = [{"code": code} for code in (*OURS, *UNSEEN)]
            config.write_text(json.dumps({"ignore": ignored}), encoding="utf-8")
            words = [program, view, "--format", "json", "--ignoreWarnings", "-c", config]
            self._output = tempfile.TemporaryFile()
            try:
                self._process = subprocess.Popen(
                    [str(word) for word in [*words, "--ignoreNiftiHeaders"]],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:  # the program is damaged or for another kind of machine
                why = error.strerror or error
                log.warning("dataset not validated: %s cannot be started: %s", program, why)

    def require_valid(self) -> None:
        """Wait for the validator.

        Raises
        ------
        Refusal
            If it has found errors; one line with their codes and an affected file for each.
        """
        if self._process is None or self._output is None:
            return
        self._process.wait()
        try:
            errors = _errors(self._output)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            code = self._process.returncode
            log.warning("dataset not validated: %s ended with status %d", PROGRAM, code)
            return
        if errors is None:
            log.warning(
                "dataset not validated: %s: its answer has more than %s bytes",
                PROGRAM,
                f"{LARGEST_ANSWER:,}",
            )
            return
        if not errors:
            log.info("dataset is valid BIDS (%s folders)", self._kind)
            return
        counts = Counter(code for code, _ in errors)
        first = dict(reversed(errors))
        found = "; ".join(
            f"{code[:LONGEST]} ({n} times, {first[code][: 4 * LONGEST]} among them)"
            for code, n in counts.most_common(MOST_CODES)
        )
        if len(counts) > MOST_CODES:
            found += f"; and {len(counts) - MOST_CODES} more codes"
        raise Refusal(
            Status.INVALID_INPUT,
            f"{self._dataset}: not valid BIDS: {found}; {PROGRAM} lists all, and "
            "--skip-bids-validation lets the run continue",
        )

    def end(self) -> None:
        """Stop the validator if it is still running, and remove the folder of links."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        if self._output is not None:
            self._output.close()
        if self._view is not None:
            shutil.rmtree(self._view, ignore_errors=True)


def _errors(answer: IO[bytes]) -> list[tuple[str, str]] | None:
    """Return code and file of each error, or None if the answer is too long.

    If the answer has another form, this raises an error that `require_valid` catches.
    """
    answer.seek(0)
    text = answer.read(LARGEST_ANSWER + 1)
    if len(text) > LARGEST_ANSWER:
        return None
    issues = json.loads(text)["issues"]["issues"]
    found = [issue for issue in issues if issue.get("severity") == "error"]
    if not isinstance(issues, list) or not all(isinstance(e["code"], str) for e in found):
        raise TypeError
    return [(issue["code"], str(issue.get("location"))) for issue in found]


def _program() -> str | None:
    beside = Path(sys.executable).with_name(PROGRAM)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM)


def _link(request: Request, view: Path) -> None:
    """Fill a folder with links to the files that the run reads."""
    view.mkdir()
    root, datatypes = request.bids_dir, request.query.datatypes
    inherited = [f"*{suffix}{end}" for suffix in request.modalities for end in INHERITED]
    inherited += ["*aslcontext.tsv"] if "asl" in request.modalities else []
    names = [*AT_THE_ROOT, *inherited]
    for name in names:
        for path in root.glob(name):
            _make_link(view / path.name, path)
    for label, subject in folders(root, "sub-").items():
        if request.participants and label not in request.participants:
            continue
        sessions = folders(subject, "ses-")
        chosen = [sessions[name] for name in request.sessions or sessions if name in sessions]
        for folder in (subject, *chosen):
            images = chain.from_iterable((folder / name).glob("*") for name in datatypes)
            texts = chain.from_iterable(folder.glob(name) for name in ("*.json", *inherited))
            for path in (*images, *dict.fromkeys(texts)):
                _make_link(view / path.relative_to(root), path)


def _make_link(link: Path, target: Path) -> None:
    """Link to a regular file or a broken link, and skip everything else.

    The run reads no subfolders, and the validator would wait for a pipe. A file with a name that
    the run does not take is skipped too; the run reports it.
    """
    is_file = target.is_file() or is_tree(target)
    if why_unfit(target.name) or (target.exists() and not is_file):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
