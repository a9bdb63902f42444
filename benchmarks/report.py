"""What a report costs: processor time and room for an image, a participant's page, the group.

Figures are drawn from files, decoding and all. Times are of all threads of the process; imports
are not counted, and neither is a first call.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import nibabel as nb
import numpy as np

from benchmarks import images
from benchmarks.machine import arguments, figure, head, publish, row, size

NAME = "sub-01/anat/sub-01_T1w.nii.gz"
REPEATS = 5
TISSUES = {"GM": (0.5, 0.7), "WM": (0.7, 0.9)}
"""quantiles of the image between which the stand-ins of tissues lie"""


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments("report", __doc__, argv)
    publish(given, "Reports", page(given))


def page(given: argparse.Namespace) -> Iterator[str]:
    from n4ax_bids.app.reports import contents, image_report, reports
    from n4ax_bids.app.select import dataset
    from n4ax_bids.report import group

    image = images.usual(given)
    yield (
        f"Image: {image.name}, {size(image.values.shape)}, as int16 in a .nii.gz. *Segmentation*: "
        "two probability maps of the image in float32, as -d would find them. CPU seconds are "
        f"medians of {REPEATS}. 1 kB is 1000 bytes."
    )
    yield ""
    yield from head("work", "CPU, s", "kB")
    with tempfile.TemporaryDirectory() as folder:
        raw, out, seg = (Path(folder, name) for name in ("raw", "out", "seg"))
        make(raw, seg, image)
        request = corrected(raw, out, given)
        (job,) = dataset.select(request).jobs
        names = contents.names(job.name, Path(folder))
        for label, found in (("", {}), (", with a segmentation", {"seg": seg})):
            seconds = spent(lambda found=found: image_report.write(job, out, names, found))
            room = sum(path.stat().st_size for path in names.values())
            yield row(f"figures and numbers of the image{label}", figure(seconds), kilobytes(room))
        reports.image(job, request, Path(folder))
        path = out / "sub-01.html"

        def anew() -> None:
            path.unlink(missing_ok=True)
            reports.page("sub-01", request)

        seconds = spent(anew)
        room = path.stat().st_size
        yield row("page of its participant", figure(seconds), kilobytes(room))
        record, _ = next(contents.records(out))
        for n in (20,) if given.quick else (1_000, 10_000):
            records = [varied(record, number) for number in range(n)]
            made = []
            seconds = spent(lambda r=records, m=made: m.append(whole(group, r)), 1)
            room = len(made[-1].encode())
            yield row(f"table and page of {n} images", figure(seconds), kilobytes(room))


def make(raw: Path, seg: Path, image: images.Image) -> None:
    """Write a dataset of one image, and what stands for its segmentation."""
    (raw / NAME).parent.mkdir(parents=True)
    (raw / "dataset_description.json").write_text('{"Name": "one", "BIDSVersion": "1.10.0"}')
    made = nb.Nifti1Image(image.values, image.affine)
    made.set_data_dtype(np.int16)
    made.to_filename(raw / NAME)
    folder = (seg / NAME).parent
    folder.mkdir(parents=True)
    for tissue, quantiles in TISSUES.items():
        low, high = np.quantile(image.values[image.values > image.values.mean()], quantiles)
        inside = ((image.values > low) & (image.values <= high)).astype(np.float32)
        made = nb.Nifti1Image(inside, image.affine)
        made.to_filename(folder / f"sub-01_label-{tissue}_probseg.nii.gz")


def corrected(raw: Path, out: Path, given: argparse.Namespace):
    """Run the App over the dataset without a report; return a request that wants one."""
    from n4ax_bids.app import run
    from n4ax_bids.app.request import Request

    request = Request(raw, out, device=given.device, validate=False, reports=False)
    if run.run(request) != 0:
        raise RuntimeError("the App has failed; its log says why")
    return replace(request, reports=True)


def varied(record: dict, number: int) -> dict:
    """Return the record of an image that differs a little from the others."""
    rng = np.random.default_rng(number)
    measures = {
        name: value * float(rng.lognormal(0, 0.1)) if isinstance(value, float) else value
        for name, value in record["measures"].items()
    }
    name = f"sub-{number:05}_T1w"
    page = f"sub-{number:05}.html#{name}"
    return record | {"image": name, "page": page, "measures": measures}


def whole(group, records: Sequence[dict]) -> str:
    table = group.gather(records, [])
    group.tsv(table)
    return group.html(table, generator="benchmark")


def spent(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median processor time of a call, after a first one where there are several."""
    seconds = []
    for _ in range(repeats + (repeats > 1)):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return median(seconds[-repeats:])


def kilobytes(n_bytes: int) -> str:
    return f"{n_bytes / 1000:.0f}"


if __name__ == "__main__":
    main()
