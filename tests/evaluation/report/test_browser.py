"""The page in headless Chromium."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
from dataclasses import replace

import pytest
from report_toy import CHROMIUM, browse, drive, make_evaluation, make_model, make_result, needs_chromium

from nnunet_ext.evaluation.report.page import write_report

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A model and two evaluations, the report of the model with the first of them, and the report of both."""
    root = tmp_path_factory.mktemp("site")
    model = make_model(root)
    make_evaluation(root, model / "dataset.json")
    pictures = model / "fold_0" / "pictures"
    pictures.mkdir()
    refused = {"file": "../elsewhere.png", "title": "Refused with a long path", "caption": "", "alt": ""}
    (pictures / "pictures.json").write_text(json.dumps([refused]))
    write_report([model], root / "report.html", evaluation=root / "predictions", images=root / "images")
    both = [f"UCI={model}", f"UCI={root / 'predictions'}", f"Worse={root / 'worse'}"]
    write_report(both, root / "both.html", images=root / "images")
    return root


def cases_in_order(dom):
    table = dom[dom.index('class="sortable') :]
    return re.findall(r'<tr><th scope="row"[^>]*>(case_\w+)', table[: table.index("</table>")])


SORTS = {
    "#sort=DSC": ["case_empty", "case_far", "case_2", "case_10"],
    "#sort=-DSC": ["case_10", "case_2", "case_far", "case_empty"],
    "#sort=HD": ["case_10", "case_2", "case_far", "case_empty"],  # infinite last
    "#sort=-HD": ["case_empty", "case_far", "case_2", "case_10"],
    "#sort=PPV": ["case_far", "case_2", "case_10", "case_empty"],  # undefined last in both orders
    "#sort=-PPV": ["case_10", "case_2", "case_far", "case_empty"],
    "#sort=case": ["case_2", "case_10", "case_empty", "case_far"],  # numbers inside names as numbers
}


def test_table_sorts(site, tmp_path):
    script = f"""found = {json.dumps(list(SORTS))}.map((fragment) => {{
      location.hash = fragment;
      sortFromAddress();
      return [[...document.querySelectorAll(".sortable tbody th")].map((th) => th.textContent),
        [...document.querySelectorAll("[aria-sort]")].map((th) => [th.ariaSort, th.firstChild.dataset.key])];
    }})"""
    found, _, log = drive(site / "report.html", tmp_path, script)
    for (fragment, order), (shown, states) in zip(SORTS.items(), found, strict=True):
        assert shown == order, fragment
        key = fragment.removeprefix("#sort=")
        assert states == [["descending" if key.startswith("-") else "ascending", key.lstrip("-")]]
    assert "CONSOLE" not in log


def test_table_sorts_as_the_address_says(site, tmp_path):
    dom, log = browse(site / "report.html", tmp_path / "profile", fragment="#sort=-HD")
    assert cases_in_order(dom) == SORTS["#sort=-HD"]
    assert "CONSOLE" not in log


def test_clicks_keys_and_checkboxes_work_without_console_errors(site, tmp_path):
    script = """
      const press = (selector, key) =>
        document.querySelector(selector).dispatchEvent(new KeyboardEvent("keydown", { key }));
      const button = document.querySelector("[data-key=DSC]");
      button.click(); button.click();
      press(".chart > svg", "Home"); press(".chart > svg", "ArrowRight");
      press(".strip > svg", "End");
      document.querySelector("[data-outline=p0]").click();
      found = [location.hash, getComputedStyle(document.querySelector(".slice .p0")).display,
        document.querySelector(".strip output").textContent, document.querySelectorAll("circle.on").length,
        document.documentElement.scrollWidth <= innerWidth,
        performance.getEntriesByType("resource").filter((e) => !e.name.startsWith("data:")).length]"""
    found, dom, log = drive(site / "report.html", tmp_path, script, "--window-size=500,900")
    # sorted, hidden, the best case, one point marked, no sideways scrolling, no request
    assert found == ["#sort=-DSC", "none", "case_10: 1.0000", 1, True, 0]
    assert cases_in_order(dom)[0] == "case_10"
    assert '<span class="epoch">Epoch 1</span>' in dom and ">0.95</b>" in dom
    assert "CONSOLE" not in log


def test_slider_shows_one_slice_at_a_time(site, tmp_path):
    script = """
      const figure = document.querySelector(".plane"), slider = figure.querySelector("input");
      const cuts = [...figure.querySelectorAll(".cut")];
      const shown = () => cuts.filter((cut) => getComputedStyle(cut).display !== "none");
      const state = () => [shown().length, shown()[0].dataset.caption === figure.querySelector(".where").textContent,
        slider.ariaValueText ?? slider.getAttribute("aria-valuetext")];
      const before = state();
      slider.focus();
      slider.stepUp();
      slider.dispatchEvent(new Event("input", { bubbles: true }));
      found = [before, state(), document.activeElement === slider, slider.max]"""
    (before, after, focused, last), _, log = drive(site / "report.html", tmp_path, script)
    assert before == [1, True, "slice 3 of 6 from inferior, at 10 mm"]
    assert after == [1, True, "slice 4 of 6 from inferior, at 15 mm"]
    assert focused and last == "5"
    assert "CONSOLE" not in log


def test_columns_and_rows_are_switched(site, tmp_path):
    script = """
      const visible = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length);
      const keys = () => visible(".sortable thead button").map((b) => b.dataset.key);
      const before = keys();
      document.querySelector("[data-columns=lesions]").click();
      const after = keys();
      document.querySelector("[data-columns=lesions]").click();
      const filter = document.querySelector("[data-filter]");
      filter.value = "Worse";
      filter.dispatchEvent(new Event("change"));
      found = [before, after, keys(), visible(".sortable tbody tr").map((row) => row.cells[1].textContent)]"""
    (before, after, again, rows), _, log = drive(site / "both.html", tmp_path, script, "--window-size=1200,900")
    assert before == again == ["case", "method", "DSC", "NSD", "HD95", "SEN", "PPV", "reference_ml", "prediction_ml"]
    counts = ["reference_lesions", "prediction_lesions", "missed_lesions", "false_lesions"]
    assert after == [*before, "LSEN", "LPPV", "LF1", *counts]
    assert rows == ["Worse"] * 4
    assert "CONSOLE" not in log


@pytest.mark.parametrize("name", ["report.html", "both.html"])
def test_a_phone_needs_no_sideways_scrolling(site, tmp_path, name):
    """In a frame 360 pixels wide, since Chromium's own window is not that narrow."""
    say = """<script>
      for (const box of document.querySelectorAll("[data-columns]")) box.click();
      for (const details of document.querySelectorAll("details")) details.open = true;
      const { scrollWidth, clientWidth } = document.documentElement;
      const wide = [...document.querySelectorAll("main *, header *")].filter((e) =>
        !e.closest(".scroll") && !e.closest("svg") && e.getBoundingClientRect().right > clientWidth);
      parent.postMessage([innerWidth, scrollWidth - clientWidth, wide.map((e) => e.outerHTML)], "*");
      </script></body>"""
    framed, outer = tmp_path / "framed.html", tmp_path / "outer.html"
    framed.write_text((site / name).read_text(encoding="utf-8").replace("</body>", say), encoding="utf-8")
    outer.write_text(
        """<script>addEventListener("message", (event) => (document.title = JSON.stringify(event.data)));</script>
        <iframe src="framed.html" style="width: 360px; height: 800px; border: 0"></iframe>"""
    )
    dom, log = browse(outer, tmp_path / "profile", "--virtual-time-budget=2000")
    assert json.loads(re.search("<title>(.*)</title>", dom)[1]) == [360, 0, []]
    assert "CONSOLE" not in log


def test_dark_mode_looks_different(site, tmp_path):
    def look(name, *flags):
        picture = tmp_path / f"{name}.png"
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        shot = [f"--screenshot={picture}", "--window-size=800,600", (site / "report.html").as_uri()]
        subprocess.run([*command, *flags, *shot], check=True, capture_output=True, timeout=120)
        return mean_of(picture)

    light = look("light", "--blink-settings=preferredColorScheme=1")
    dark = look("dark", "--blink-settings=preferredColorScheme=0")
    assert light > 200 and dark < 80


def mean_of(picture):
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(picture).convert("L")).mean()


def test_a_script_error_would_be_seen(site, tmp_path):
    broken = tmp_path / "broken.html"
    html = (site / "report.html").read_text(encoding="utf-8")
    broken.write_text(html.replace("</body>", "<script>absent()</script></body>"), encoding="utf-8")
    assert "CONSOLE" in browse(broken, tmp_path / "profile")[1]


def test_fifty_cases_of_two_classes_and_two_methods_open_quickly(tmp_path):
    numbers = random.Random(0)
    for method in ("first", "second"):
        lesion, lung = (
            make_result({f"case_{i:03d}": numbers.random() for i in range(50)}, name) for name in ("lesion", "lung")
        )
        lesion.rows.extend(lung.rows)
        replace(lesion, labels={"lesion": 1, "lung": 2}).save(tmp_path / method)
    write_report([tmp_path / "first", tmp_path / "second"], tmp_path / "page.html")
    timed = tmp_path / "timed.html"
    script = """<script>addEventListener("load", () => { document.body.offsetHeight;
      document.title = JSON.stringify([performance.now(), document.querySelectorAll(".sortable tbody tr").length]); });
      </script></body>"""
    timed.write_text((tmp_path / "page.html").read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    dom, log = browse(timed, tmp_path / "profile")
    milliseconds, rows = json.loads(re.search("<title>(.*)</title>", dom)[1])
    assert rows == 200
    assert milliseconds < 2000
    assert "CONSOLE" not in log


def test_three_methods_fit_a_desktop(site, tmp_path):
    """Their differences are not cut off; counts of what means leave out stand in parentheses."""
    numbers = random.Random(0)
    for name in ("nnU-Net", "UCI", "Mine"):
        scores = {f"case_{i:02d}": numbers.random() for i in range(20)}
        make_result(scores | {"case_90": math.nan, "case_91": 0.0}).save(tmp_path / name)
    write_report([tmp_path / name for name in ("nnU-Net", "UCI", "Mine")], tmp_path / "page.html")
    script = """
      const tables = [...document.querySelectorAll("#comparison .scroll")];
      found = [tables.map((e) => e.scrollWidth - e.clientWidth), document.querySelector(".ranked td").textContent]"""
    (widths, cell), _, log = drive(tmp_path / "page.html", tmp_path, script, "--window-size=1280,900")
    assert widths == [0, 0]
    assert re.search(r"± 0\.\d{4} \(1 undef\.\)$", cell)
    assert "CONSOLE" not in log
