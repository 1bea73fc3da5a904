"""Take docs/report.png, the README's picture: the top of the last run's report, in
Debian's Chromium (apt install chromium; pip install playwright)."""

import shutil
from pathlib import Path

import typer
from playwright.sync_api import sync_playwright

from instaner.files import write_whole

REPORT = Path("training/report/index.html")
WIDTH, HEIGHT = 1100, 1110  # down to the labels


def main(output: Path = Path("docs/report.png")) -> None:
    """Take the picture."""
    with sync_playwright() as playwright, write_whole(output) as part:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5
        )
        page.goto(REPORT.resolve().as_uri())
        page.screenshot(path=part, type="png")
        browser.close()


if __name__ == "__main__":
    typer.run(main)
