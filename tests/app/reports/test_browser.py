"""The pages in a browser: headless Chromium clicks, sorts, and takes the pictures of the docs.

`make screenshots` writes docs/report-subject.webp and docs/report-group.webp.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from PIL import Image

from n4ax_bids.app import cli
from n4ax_bids.phantoms import GREY, WHITE, mni152, mni152_affine

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
SIZE = (1366, 768)
"""of a laptop's screen, pixels"""
N_T1W, N_T2W = 10, 5
WINDOW = "--headless=new --no-sandbox --disable-dev-shm-usage --disable-gpu --hide-scrollbars"


@pytest.fixture(scope="module")
def browser():
    """Start headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium with its driver (Debian: apt-get install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in WINDOW.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def shaded(data: np.ndarray, seed: int, strength: float) -> np.ndarray:
    """An image under a smooth field of its own, with noise."""
    rng = np.random.default_rng(seed)
    x = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in data.shape), indexing="ij"))
    slope = rng.uniform(-1, 1, 3)
    bend = rng.uniform(-0.5, 0.5, 3)
    field = np.tensordot(slope, x, 1) + np.tensordot(bend, x**2, 1)
    noise = rng.normal(0, 0.01 * data.max(), data.shape)
    return np.abs(data * np.exp(strength * field) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The MNI152 head, and small copies of it under many fields, corrected and reported."""
    pytest.importorskip("nilearn", reason="nilearn, which has the template, is not installed")
    folder = tmp_path_factory.mktemp("browser")
    raw, seg, out = folder / "raw", folder / "seg", folder / "out"
    small = {suffix: mni152(suffix, amplitude=0, noise=0, step=4) for suffix in ("T1w", "T2w")}
    for name, head, affine in (
        ("sub-head", mni152(field="coils", amplitude=0.4), mni152_affine()),
        *((f"sub-{number:02}", small["T1w"], mni152_affine(4)) for number in range(1, N_T1W + 1)),
    ):
        tissues = np.select([head.labels == GREY, head.labels == WHITE], [1, 2]).astype(np.uint8)
        put(seg / name / "anat" / f"{name}_dseg.nii.gz", nb.Nifti1Image(tissues, affine))
        if name == "sub-head":
            image = nb.Nifti1Image(1000 * head.image, affine)
            put(raw / name / "anat" / f"{name}_T1w.nii.gz", image)
    for number in range(1, N_T1W + 1):
        name = f"sub-{number:02}"
        for suffix, head in small.items():
            if suffix == "T2w" and number > N_T2W:
                continue
            strength = 0.9 if (number, suffix) == (5, "T1w") else 0.15
            data = head.image[:-1] if suffix == "T2w" else head.image  # not the tissues' grid
            image = nb.Nifti1Image(shaded(data, number, strength), mni152_affine(4))
            put(raw / name / "anat" / f"{name}_{suffix}.nii.gz", image)
    (raw / "sub-09/anat/sub-09_T1w.nii.gz").write_bytes(b"")
    (raw / "sub-head/anat/sub-head_T1w.json").write_text('{"ProtocolName": "MPRAGE_1mm"}')
    (raw / "sub-01/anat/sub-01_T1w.json").write_text(f'{{"ProtocolName": {json.dumps(EVIL)}}}')
    (raw / "dataset_description.json").write_text('{"Name": "heads", "BIDSVersion": "1.10.0"}')
    rows = ["participant_id\tage\tremark", "sub-head\t32\tn/a", f"sub-01\t32\t{EVIL}", ""]
    (raw / "participants.tsv").write_text("\n".join(rows))
    flags = ["--device", "cpu", "-d", f"seg={seg}", "--skip-bids-validation"]
    assert cli.main([str(raw), str(out), "participant", *flags]) == 1  # one is empty
    assert cli.main([str(raw), str(out), "group"]) == 0
    return out


def put(path: Path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


def opened(browser, path: Path, anchor: str = "") -> None:
    browser.set_window_size(*SIZE)
    browser.get(path.as_uri() + anchor)


def one(browser, css: str):
    return browser.find_element("css selector", css)


def shot(browser, element) -> np.ndarray:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    png = element.screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def keep(browser, name: str, height: int) -> None:
    """Take a picture from the top of the page down; for the docs where that was asked for."""
    browser.set_window_size(SIZE[0], height)  # that of the page depends on it
    length = "return Math.ceil(document.body.getBoundingClientRect().height)"
    frame = height - browser.execute_script("return window.innerHeight")
    browser.set_window_size(SIZE[0], min(height, browser.execute_script(length) + frame))
    browser.execute_script("window.scrollTo(0, 0)")
    made = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    assert made.size[0] == SIZE[0]
    folder = os.environ.get("N4AX_SCREENSHOTS")
    if folder:
        small = made.resize((1000, round(made.height * 1000 / made.width)), Image.LANCZOS)
        small.save(Path(folder) / name, "WEBP", quality=80, method=6)


def all_seen(browser) -> None:
    """Every picture of the page is there, and no panel is empty."""
    for image in browser.find_elements("css selector", "img"):
        browser.execute_script("arguments[0].scrollIntoView()", image)
        loaded = "const i = arguments[0]; return i.decode().then(() => i.naturalWidth);"
        assert browser.execute_script(loaded, image) > 0, image.get_attribute("src")
    for figure in browser.find_elements("css selector", "figure > img, figure svg, .flicker"):
        assert shot(browser, figure).std() > 5


def test_flicker(browser, out):
    opened(browser, out / "sub-head.html")
    flicker = one(browser, ".flicker")
    label = one(browser, ".flicker b")
    before = shot(browser, flicker)
    assert label.text == "before"
    flicker.click()
    assert (flicker.get_attribute("data-state"), label.text) == ("after", "after")
    after = shot(browser, flicker)
    assert before.shape == after.shape and (np.abs(before - after) > 8).mean() > 0.05
    flicker.send_keys(" ")
    assert label.text == "before" and (shot(browser, flicker) == before).mean() > 0.999
    flicker.send_keys("\ue014")  # arrow to the right
    assert label.text == "after"

    browser.execute_script("arguments[0].dataset.gain = 0.5", flicker)
    one(browser, "input[name=level]").click()
    assert shot(browser, flicker).mean() > 1.2 * after.mean()
    one(browser, "input[name=level]").click()
    width = flicker.size["width"]
    one(browser, "input[name=zoom]").click()
    assert label.text == "after" and flicker.size["width"] > 2 * width  # a zoom changes no state
    frame = one(browser, ".frame").size
    assert frame["width"] == width and frame["height"] <= 0.9 * SIZE[1] + 1
    one(browser, "input[name=zoom]").click()
    assert flicker.size["width"] == width
    one(browser, "input[name=auto]").click()
    seen = browser.execute_async_script(
        "const done = arguments[0], b = document.querySelector('.flicker b'), seen = [];"
        "const note = () => { seen.push(b.textContent); if (seen.length > 2) done(seen); };"
        "new MutationObserver(note).observe(b, {childList: true});"
    )
    assert seen == ["before", "after", "before"]
    assert browser.get_log("browser") == []


def test_page_of_a_participant(browser, out):
    opened(browser, out / "sub-head.html")
    all_seen(browser)
    one(browser, "details summary").click()
    assert "MPRAGE_1mm" in one(browser, "details").text
    one(browser, "details summary").click()
    one(browser, ".flicker").click()
    keep(browser, "report-subject.webp", 2750)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= SIZE[0]
    assert browser.get_log("browser") == []


def test_group(browser, out):
    opened(browser, out / "group.html")
    all_seen(browser)
    heads = browser.find_elements("css selector", "#images th")
    column = [head.text for head in heads].index("field CV")

    def values():
        script = (
            "return [...document.querySelectorAll('#images tbody tr')]"
            f".map(row => parseFloat(row.cells[{column}].dataset.value))"
        )
        return browser.execute_script(script)

    unsorted = values()
    assert len(unsorted) == N_T1W + N_T2W  # with the head, without the empty one
    button = heads[column].find_element("css selector", "button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert values() == sorted(unsorted) != unsorted
    button.click()
    assert values() == sorted(unsorted, reverse=True)
    first = one(browser, "#images tbody tr")
    assert "sub-05_T1w" in first.text and first.find_elements("css selector", ".odd-cell")

    tissue = [head.text for head in heads].index("CJV after")  # the T2w have none
    heads[tissue].find_element("css selector", "button").click()
    cells = (
        "return [...document.querySelectorAll('#images tbody tr')].map(r => r.cells[%d].innerText)"
    )
    texts = browser.execute_script(cells % tissue)
    assert texts[-N_T2W:] == ["n/a"] * N_T2W and "n/a" not in texts[:-N_T2W]
    button.click()
    button.click()

    one(browser, "#filter").send_keys("T2w")
    shown = (
        "return [...document.querySelectorAll('#images tbody tr')].filter(r => !r.hidden).length"
    )
    assert browser.execute_script(shown) == N_T2W
    one(browser, "#filter").clear()
    one(browser, "#filter").send_keys(" ")  # what is cleared by a script tells nobody
    assert browser.execute_script(shown) == N_T1W + N_T2W
    keep(browser, "report-group.webp", 2750)
    assert browser.get_log("browser") == []


def test_the_pages_are_linked_with_each_other(browser, out):
    opened(browser, out / "sub-01.html")
    one(browser, "a[rel=next]").click()
    assert browser.title == "sub-02"
    one(browser, "a[rel=prev]").click()
    assert browser.title == "sub-01" and not browser.find_elements("css selector", "a[rel=prev]")
    files = browser.find_elements("css selector", ".files a")
    targets = [out / each.get_attribute("href").rpartition("/out/")[2] for each in files]
    assert len(targets) >= 2 * 4 and all(target.is_file() for target in targets)
    one(browser, "a[href='./group.html']").click()
    assert browser.title == "All images"


def test_an_odd_dot_leads_to_its_image(browser, out):
    opened(browser, out / "group.html", "#distributions")
    dots = browser.find_elements("css selector", "svg a")
    (dot, *_) = [d for d in dots if d.find_elements("css selector", ".odd")]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", dot)
    dot.find_element("css selector", "circle").click()
    page, _, anchor = browser.current_url.rpartition("/")[2].partition("#")
    assert page == f"{anchor.split('_')[0]}.html"
    assert one(browser, f"[id='{anchor}'] h2").text == anchor


def test_text_of_the_dataset_does_not_run(browser, out):
    opened(browser, out / "sub-01.html")
    browser.execute_script("document.querySelector('details').open = true")
    assert browser.title == "sub-01"
    body = one(browser, "body").text
    assert body.count(EVIL) == 2  # the sidecar's and the participant's
    assert browser.get_log("browser") == []


def test_no_script_but_our_own_runs(browser, out):
    """Even if text came into a page unescaped."""
    source = (out / "sub-01.html").read_text().replace("</main>", f"{EVIL}</main>")
    path = out / "taken.html"
    path.write_text(source)
    opened(browser, path)
    assert browser.title == "sub-01"
    assert "Content Security Policy" in str(browser.get_log("browser"))
    one(browser, ".flicker").click()  # ours does
    assert one(browser, ".flicker b").text == "after"
    path.unlink()


def test_of_very_many_rows_the_first_are_shown(browser, out):
    head, body, tail = re.split(r"(?<=<tbody>)|(?=</tbody>)", (out / "group.html").read_text())[
        -3:
    ]
    path = out / "many.html"
    start = (out / "group.html").read_text().removesuffix(head + body + tail)
    path.write_text(start + head + body * 100 + tail)
    opened(browser, path, "#table")
    shown = (
        "return [...document.querySelectorAll('#images tbody tr')].filter(r => !r.hidden).length"
    )
    n_rows = 100 * (N_T1W + N_T2W)
    assert browser.execute_script(shown) == 1000
    assert one(browser, "#shown").text == f"The first 1000 of {n_rows} rows are shown."
    one(browser, "#filter").send_keys("sub-head")
    assert browser.execute_script(shown) == 100 and one(browser, "#shown").text == ""
    path.unlink()
