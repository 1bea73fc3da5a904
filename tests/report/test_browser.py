"""The page in a browser: Debian's Chromium, which playwright drives."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from instaner.report.page import make_report

from .conftest import Report

pytest.importorskip("matplotlib")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

_RULES = {"runOnly": ["wcag2a", "wcag2aa"]}
Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a page, of which errors, requests and dialogs are noted."""
    contexts = []

    def open_(index: Path, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.noted = []
        page.on(
            "console",
            lambda m: page.noted.append(m.text) if m.type == "error" else None,
        )
        page.on("pageerror", lambda error: page.noted.append(str(error)))
        page.on("request", lambda request: page.noted.append(request.url))

        def dismiss(dialog: Any) -> None:
            page.noted.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", dismiss)
        page.goto(index.as_uri())
        # What is folded has to hold too.
        page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def pages(
    whole: Report,
    categories: Report,
    several: Report,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The whole report, one of silver gold, one of many labels and long names, and
    those of categories.
    """
    reports = {name: deepcopy(whole) for name in ("whole", "silver", "many")}
    reports |= {"categories": deepcopy(categories), "several": deepcopy(several)}
    reports["silver"]["comparison"]["gold"]["silver"] = True
    comparison = reports["many"]["comparison"]
    labels = [f"A_{'LONG_' * 12}LABEL_{k}" for k in range(40)]
    comparison["labels"] = labels
    for system in comparison["systems"].values():
        types = system["ents_per_type"]
        system["ents_per_type"] = {label: types["DISH"] for label in labels}
    student = comparison["systems"]["student"]
    for k in range(4):
        comparison["systems"][f"a student of a long name {k}"] = deepcopy(student)
    student["confusion"] = {labels[0]: {labels[1]: 3, labels[0]: 5}}
    folder = tmp_path_factory.mktemp("pages")
    for name, report in reports.items():
        make_report(report.pop("comparison"), folder / name, **report)
    return {name: folder / name / "index.html" for name in reports}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["whole", "silver", "many", "categories", "several"])
def test_page_holds(
    open_page: Open, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page = open_page(pages[name], width, scheme)
    assert page.noted == [pages[name].as_uri()]
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    figures = page.query_selector_all("figure svg")
    assert len(figures) == 4 + (name in ("categories", "several"))
    for figure in figures:
        box = figure.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 100
    # Letters of a figure are about as large as those around it.
    sizes = page.eval_on_selector_all(
        "figure svg text", "all => all.map(t => t.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 10
    result = axe.Axe().run(page, options=_RULES)
    assert result.violations_count == 0, result.generate_report()


@pytest.mark.parametrize("name", ["whole", "many", "categories"])
def test_figures_stay_in_their_boxes(
    open_page: Open, pages: dict[str, Path], name: str
) -> None:
    page = open_page(pages[name], 390)
    out = page.evaluate(
        """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll("text")].filter(text => {
                const it = text.getBoundingClientRect();
                return it.left < box.left - 4 || it.right > box.right + 4;
            }).map(text => text.textContent);
        })"""
    )
    assert out == []


def test_colours_follow_the_scheme(open_page: Open, pages: dict[str, Path]) -> None:
    colours = {
        scheme: open_page(pages["whole"], 390, scheme).evaluate(
            """() => [document.body, document.querySelector("figure svg text")].map(
                it => getComputedStyle(it)).map(it => it.backgroundColor + it.fill)"""
        )
        for scheme in ("light", "dark")
    }
    for light, dark in zip(colours["light"], colours["dark"], strict=True):
        assert light != dark


@pytest.mark.parametrize("report", ["hostile", "hostile_categories"], indirect=True)
def test_nothing_of_the_corpus_runs(
    open_page: Open, report: Report, folder: Path
) -> None:
    make_report(report.pop("comparison"), folder, **report)
    index = folder / "index.html"
    page = open_page(index)
    assert page.noted == [index.as_uri()]
    assert page.query_selector_all("script, img") == []
    assert "<script>alert(1)</script>" in page.inner_text("body")
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]


def test_page_is_printed_on_a4(open_page: Open, pages: dict[str, Path]) -> None:
    page = open_page(pages["whole"], scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    pdf = page.pdf(prefer_css_page_size=True)
    assert b"/MediaBox [0 0 594" in pdf or b"/MediaBox [0 0 595" in pdf
