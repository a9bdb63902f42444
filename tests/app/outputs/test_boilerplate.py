"""The methods text follows the options."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.outputs import boilerplate
from n4ax_bids.app.outputs.provenance import Way
from n4ax_bids.app.reports import contents
from n4ax_bids.app.request import Request
from n4ax_bids.options import PRESETS, N4Options, TissueOptions

REQUEST = Request(
    Path("/raw"),
    Path("/out"),
    derivatives={"fmriprep": Path("/prep")},
    preset="ants",
    options=N4Options(),
)


def markdown(request: Request) -> str:
    return boilerplate.markdown([Way.asked(request)])


CHANGED = N4Options(
    shrink_factor=3,
    n_iterations=(7, 6),
    convergence_threshold=1e-4,
    bspline_order=2,
    histogram_sharpening=(0.2, 0.03, 150),
    over_relaxation=1.4,
    refine=False,
    convergence_statistic="exact",
    itk_version="6",
    shrink_start=(0, 2, 1),
    precision="float64",
)
SPECIAL = {
    "shrink_mm": 3.5,
    "bspline_fitting_distance": 120.0,
    "n_control_points": (5, 6, 7),
    "adapt": True,
}


@pytest.mark.parametrize("item", fields(N4Options), ids=lambda item: item.name)
def test_every_solver_option_is_in_the_text(item):
    value = SPECIAL.get(item.name, getattr(CHANGED, item.name))
    told = replace(REQUEST, options=N4Options(convergence_threshold=2e-3))
    changed = replace(told, options=replace(told.options, **{item.name: value}))
    assert markdown(changed) != markdown(told)
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, int | float) and not isinstance(number, bool):
            assert re.search(rf"\b{re.escape(f'{number:g}')}\b", markdown(changed))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": "otsu"}, "above Otsu's threshold (Otsu, 1979)"),
        ({"mask": "auto"}, "the brain where one was found with confidence, or else the head"),
        ({"mask": "head"}, "inside the head, which was found"),
        ({"mask": "brain"}, "inside the brain, which was found"),
        ({"mask": "synthstrip"}, "the brain that SynthStrip (Hoopes et al., 2022) found"),
        ({"mask": "hd-bet", "mask_program": "hd-bet 2.0.1"}, "(the program hd-bet 2.0.1) found"),
        ({"mask": "none"}, "in all voxels."),
        ({"mask": "derivatives"}, "inside the brain masks of fmriprep"),
        ({"weight": "WM"}, "weighted by the probability of WM tissue of fmriprep"),
        ({"rescale": True, "mask": "derivatives"}, "rescaled to the range"),
        ({"output_dtype": "source"}, "stored in the type of the source"),
        ({"sloppy": True}, "are no result"),
        ({"modalities": ("T1w", "FLAIR")}, "The T1w and FLAIR images"),
        ({"preset": "robust", "options": PRESETS["robust"]}, "those of the preset robust."),
        ({"preset": "standard", "options": PRESETS["standard"]}, "those of the preset standard."),
        ({"options": PRESETS["standard"]}, "from voxels about 4 mm apart, as B-splines"),
        ({"preset": "robust"}, "those of the preset robust, some of them changed."),
    ],
)
def test_the_text_says_what_was_done(change, words):
    assert words in markdown(replace(REQUEST, **change))


def test_what_is_cited_is_listed_and_nothing_else():
    for mask in ("otsu", "auto", "head", "brain", "none"):
        request = replace(REQUEST, mask=mask)
        text, bib = markdown(request), boilerplate.bibtex([Way.asked(request)])
        cited, listed = text.split("## References")
        names = set(re.findall(r"\(([A-Z]\w+)(?: et al\.)?, (\d{4})\)", cited))
        assert names == set(re.findall(r"^- (\w+).*[ .](\d{4})\.", listed, flags=re.MULTILINE))
        assert ("otsu" in bib) == (mask != "none") == (("Otsu", "1979") in names)
        assert bib.count("@") == len(names) + 1  # and the software's own
        assert bib.count("{") == bib.count("}")


def test_a_threshold_that_ends_no_level_is_not_told():
    text = markdown(replace(REQUEST, options=N4Options(n_iterations=(7, 6))))
    assert "The 2 levels had 7 and 6 iterations." in text
    assert "ended early" not in text and "multiplied" not in text


def test_several_works_are_cited_at_one_place():
    request = replace(REQUEST, method="tissue", preset="default", options=TissueOptions())
    text, bib = markdown(request), boilerplate.bibtex([Way.asked(request)])
    assert "(Wells et al., 1996; Van Leemput et al., 1999; Ashburner and Friston, 2005)" in text
    assert "@" not in text
    assert all(f"@article{{{key}," in bib for key in ("wells", "vanleemput", "unified"))


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.found.append(data)


def test_the_page_says_the_same_and_escapes_names():
    request = replace(
        REQUEST, mask="derivatives", derivatives={"<script>x</script>": Path("/prep")}
    )
    page = boilerplate.html([Way.asked(request)])
    assert "<script>" not in page
    reader = _Text()
    reader.feed(page)
    assert reader.open == []
    words = " ".join("".join(reader.found).split())
    for paragraph in markdown(request).split("\n\n")[1:4]:
        assert paragraph in words


def test_a_dry_run_writes_no_boilerplate(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([str(tmp_path), str(tmp_path), "participant", "--dry-run", "--boilerplate-only"])
    assert "--dry-run writes nothing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_boilerplate_only(make_dataset, tmp_path, fake_node):
    root, out = make_dataset("sub-01/anat/sub-01_T1w.nii.gz"), tmp_path / "out"
    words = [str(root), str(out), "participant", "--boilerplate-only", "--preset", "fast"]
    assert cli.main(words) == 0
    assert not fake_node
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == ["logs/CITATION.bib", "logs/CITATION.html", "logs/CITATION.md"]
    assert "preset fast" in (out / "logs/CITATION.md").read_text()


NAMES = [f"sub-0{n}/anat/sub-0{n}_{suffix}.nii" for n in (1, 2) for suffix in ("T1w", "T2w")]


def main(root, out, *flags):
    return cli.main([str(root), str(out), "participant", "--no-reports", *flags])


def text_of(out):
    return (out / "logs/CITATION.md").read_text()


@pytest.mark.usefixtures("finishing_node")
def test_the_text_is_about_what_was_done_and_not_about_what_was_asked_for(make_dataset, tmp_path):
    root, out = make_dataset(*NAMES), tmp_path / "out"
    assert main(root, out, "-m", "T2w", "--preset", "robust") == 0
    assert "The T2w images" in text_of(out) and "preset robust." in text_of(out)
    # The other images, in another way: both ways are told.
    assert main(root, out, "-m", "T1w", "--mask", "none") == 0
    text = text_of(out)
    assert text.count("## 2 of the images: sub-01_T1w and 1 more\n") == 1
    assert text.count("## 2 of the images: sub-01_T2w and 1 more\n") == 1
    assert "preset robust." in text and "preset standard." in text
    # All of them, and each fails: nothing has been done, so nothing has changed.
    for name in NAMES:
        (root / name).write_bytes(b"no image")
    assert main(root, out, "--preset", "fast", "--accept-new-source") == 1
    assert text_of(out) == text


@pytest.mark.usefixtures("finishing_node")
def test_an_interrupted_run_tells_what_it_has_done(make_dataset, tmp_path, monkeypatch):
    from n4ax_bids.app.images import attempt

    root, out, correct = make_dataset(*NAMES), tmp_path / "out", attempt.correct

    def interrupted(job, **given):
        if "sub-02_T2w" in job.relative:
            raise KeyboardInterrupt
        return correct(job, **given)

    monkeypatch.setattr(attempt, "correct", interrupted)
    assert main(root, out, "-m", "T1w", "--mask", "none", "--nprocs", "1") == 0
    assert main(root, out, "-m", "T2w", "--nprocs", "1") == 130
    assert "## 1 of the images: sub-01_T2w\n" in text_of(out)


@pytest.mark.usefixtures("finishing_node")
def test_the_page_of_a_participant_tells_its_own_images_alone(make_dataset, tmp_path):
    root, out = make_dataset(*NAMES), tmp_path / "out"
    assert main(root, out, "--participant-label", "01", "--preset", "robust") == 0
    assert main(root, out, "--participant-label", "02") == 0
    found = {s: contents._methods(out, s) for s in ("sub-01", "sub-02", "sub-03")}
    assert "preset robust." in found["sub-01"] and "preset standard." in found["sub-02"]
    assert found["sub-03"] == ""


@pytest.mark.usefixtures("finishing_node")
def test_records_that_cannot_be_read_or_tell_less_are_no_fault(make_dataset, tmp_path):
    root, out = make_dataset(*NAMES), tmp_path / "out"
    assert main(root, out) == 0
    folder = out / "logs/images/sub-01/anat"
    content = json.loads((folder / "sub-01_T1w.json").read_text())
    for key in ("preset", "sloppy", "jax"):
        del content[key]
    (folder / "sub-01_T1w.json").write_text(json.dumps(content))
    (folder / "sub-01_T2w.json").write_text("[" * 100_000)
    (out / "logs/images/sub-02/anat/sub-02_T1w.json").write_text('{"source": "x", "settings": 7}')
    boilerplate.write(out)
    assert text_of(out).count("of the images: ") == 2
    assert text_of(out).count("preset standard.") == 2


@pytest.mark.usefixtures("finishing_node")
def test_boilerplate_only_of_corrected_images_tells_what_was_done(make_dataset, tmp_path):
    root, out = make_dataset(*NAMES), tmp_path / "out"
    assert main(root, out, "--preset", "robust") == 0
    assert main(root, out, "--boilerplate-only", "--preset", "fast") == 0
    assert "preset robust." in text_of(out)
