"""`xbat report` on the demonstration run."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_it_opens_from_disk_without_network_and_prints_to_few_pages(demo_run, demo_client, tmp_path):
    """By a real browser; what it prints is what a person would keep."""
    from browser import browser

    from xbat_live.archive import open_run
    from xbat_live.report import make_report

    file = tmp_path / "report.html"
    file.write_text(make_report(open_run(demo_client, demo_run.result["uid"])), encoding="utf-8")
    with browser() as new_page:
        page = new_page(offline=True).open(file.as_uri())
        assert page.page.locator("svg").count() >= 8
        assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert not page.console
        assert [url for url in page.outside if url != file.as_uri()] == []
        printed = page.page.pdf(format="A4", print_background=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 3 <= pages <= 12


def test_the_report_of_the_demo_shows_all_parts(demo_run, demo_client):
    from xbat_live.archive import open_run
    from xbat_live.report import make_report

    page = make_report(open_run(demo_client, demo_run.result["uid"]))
    assert "could not be made" not in page
    assert page.count("<figure>") >= 1
    assert page.count("<svg") >= 8
    assert 'alt="dose map"' in page
    assert f"{demo_run.result['relocations']} relocations" in page
    assert "threshold" in page
    assert not re.search(r"<script|<link", page)
