"""The command `n4ax-stack`: a stack of sections, which need not fit into memory."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.commands import process
from n4ax_bids.io.atomic import require_writable
from n4ax_bids.io.names import printable
from n4ax_bids.options import StackOptions

DESCRIPTION = """\
Corrects the bias field of serial sections by N4: of each section on its own, of the whole stack,
or both. The stack is read a few planes at a time, twice unless it has a pyramid, and need not fit
into memory."""
EPILOG = """\
Input: a .nii, .nii.gz or .tif file, a folder of .tif or .png planes, or an OME-Zarr folder. The
output is named alike; a name without an ending makes a folder of planes. An interrupted run leaves
names that end in .partial; --resume goes on with it."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the options of the correction come from their dataclass."""
    parser = argparse.ArgumentParser(
        "n4ax-stack", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False
    )
    parser.add_argument("input", metavar="INPUT", help="stack to correct")
    parser.add_argument("output", metavar="OUTPUT", help="corrected stack; must not exist yet")
    parser.add_argument("--bias", metavar="PATH", help="write the field as well")
    parser.add_argument(
        "--correction",
        metavar="FILE",
        help="write the lattices of the field with the planes they hold, an .npz file",
    )
    parser.add_argument(
        "--mask",
        default="tissue",
        metavar="PATH",
        help="mask like the input, not 0 = inside; 'none' for every voxel; default: find tissue",
    )
    parser.add_argument(
        "--voxel-size-mm",
        nargs=3,
        type=float,
        metavar=("Z", "Y", "X"),
        help="distance of planes, rows and columns; default: as the file says, else 1",
    )
    parser.add_argument(
        "--memory-gb", type=float, default=4.0, metavar="GB", help="budget of memory (4)"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, gpu or gpu:N (auto)"
    )
    parser.add_argument("--picture", metavar="PNG", help="draw input, mask, field and result")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and write nothing"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--version", action="version", version=f"n4ax_bids {__version__}")
    group = parser.add_argument_group("options of the correction")
    for item in fields(StackOptions):
        _add_option(group, item)
    return parser


def _add_option(group: Any, item: Any) -> None:
    """Add the flag of one option."""
    flag, default = f"--{item.name.replace('_', '-')}", item.default
    unit = f", {item.metadata['unit']}" if item.metadata["unit"] else ""
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    text = f"{item.metadata['help'].replace('%', '%%')}{unit} ({shown})"
    if isinstance(default, bool):
        action = argparse.BooleanOptionalAction
        text = item.metadata["help"]
        group.add_argument(flag, dest=item.name, action=action, default=default, help=text)
        return
    more: dict[str, Any] = {"type": _number, "metavar": "N"}
    if item.metadata["choices"]:
        more = {"choices": item.metadata["choices"]}
    elif item.name == "sections":
        more = {"type": _sections, "nargs": "+", "metavar": "N"}
        text = "number of sections, or the first plane of each; 'planes' for every plane (1)"
    elif isinstance(default, tuple):
        more["nargs"] = "+"
    group.add_argument(flag, dest=item.name, default=default, help=text, **more)


def _number(word: str) -> float | int:
    try:
        return int(word)
    except ValueError:
        try:
            return float(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{word!r}; expected a number") from None


def _sections(word: str) -> int | None:
    if word == "planes":
        return None
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r}; expected a whole number or 'planes'")
    return int(word)


def program() -> int:
    """Run the command as a process of its own, which signals end immediately."""
    return process.run(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 1 with a line on stderr."""
    asked = build_parser().parse_args(argv)
    try:
        options = _options(asked)
        if asked.dry_run:
            print(_described(asked, options))
        else:
            _correct(asked, options)
    except ModuleNotFoundError as error:
        _say(f"{error.name} is not installed; type: pip install 'n4ax_bids[stack]'")
        return 1
    except (MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        _say(" ".join(str(error).split()))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _options(asked: argparse.Namespace) -> StackOptions:
    values = {item.name: getattr(asked, item.name) for item in fields(StackOptions)}
    sections = values["sections"]
    if isinstance(sections, list):
        values["sections"] = sections[0] if len(sections) == 1 else tuple(sections)
    return StackOptions(**values)


def _described(asked: argparse.Namespace, options: StackOptions) -> str:
    """Return what a run would do, as JSON."""
    from n4ax_bids.stacks.files import require_free
    from n4ax_bids.stacks.steps import PER_VOXEL, plan_stream

    require_free(Path(asked.output))
    _require_more_outputs(asked)
    plan = plan_stream(asked.input, _mask(asked), asked.voxel_size_mm, options, asked.memory_gb)
    about = {
        "input": plan.source.name,
        "planes, rows, columns": plan.source.shape,
        "type": str(plan.source.dtype),
        "voxel_size_mm": plan.zooms,
        "GB": round(float(plan.n_bytes) / 1e9, 3),
        "planes at a time": plan.height(plan.source.dtype.itemsize + PER_VOXEL),
        "estimated on": (plan.level or plan.source).name,
        "thinned planes": plan.how.shape,
        "output": asked.output,
        "options": asdict(options),
    }
    return json.dumps(about, indent=2)


def _require_more_outputs(asked: argparse.Namespace) -> None:
    """Refuse names of what is written at the end that cannot be written."""
    for path in (asked.correction, asked.picture):
        if path:
            require_writable(path)


def _mask(asked: argparse.Namespace) -> str | None:
    return None if asked.mask == "none" else asked.mask


def _correct(asked: argparse.Namespace, options: StackOptions) -> None:
    # Several commands may share a GPU; by default the first would reserve most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from n4ax_bids.runtime import startup
    from n4ax_bids.stacks.files import save_correction
    from n4ax_bids.stacks.streaming import stream

    startup.end()
    _require_more_outputs(asked)
    start = time.perf_counter()
    with _progress(asked.quiet) as tell:
        done = stream(
            asked.input,
            asked.output,
            bias_out=asked.bias,
            mask=_mask(asked),
            voxel_size_mm=asked.voxel_size_mm,
            options=options,
            memory_gb=asked.memory_gb,
            device=asked.device,
            resume=asked.resume,
            progress=tell,
        )
    if asked.correction:
        save_correction(asked.correction, done.correction)
    if asked.picture:
        from n4ax_bids.stacks.picture import draw

        draw(asked.picture, asked.input, asked.output, done.correction)
    for note in done.notes:
        _say(note)
    if not asked.quiet:
        _say(f"{asked.output}: done in {time.perf_counter() - start:.1f} s")


class _progress:
    """A bar on a terminal with the time that is left; lines elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._step, self._bar = quiet, "", None

    def __enter__(self) -> Callable[[str, int, int], None]:
        return self._tell

    def __exit__(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        bar: Any = self._bar
        if bar is not None:
            bar.close()
        self._bar = None

    def _tell(self, step: str, done: int, of: int) -> None:
        if self._quiet:
            return
        if step != self._step:
            self._close()
            self._step = step
            if sys.stderr.isatty() and step in ("read", "correct"):
                from tqdm import tqdm

                self._bar = tqdm(total=of, desc=step, unit="plane")
            else:
                _say(step)
        bar: Any = self._bar
        if bar is not None:
            bar.update(done - bar.n)


def _say(message: object) -> None:
    print(printable(f"n4ax-stack: {message}"), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(program())
