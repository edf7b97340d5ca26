"""`xbat report` on the demonstration run."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


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
