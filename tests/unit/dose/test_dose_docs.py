"""The Python of the dose pages runs as written and prints the figures that stand under it."""

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = [DOCS / "how-to" / "dose-rate-map.md", DOCS / "explanation" / "dose-model.md"]
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_examples_print_what_stands_under_them(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    examples = EXAMPLE.findall(page.read_text())
    assert examples
    for source, expected in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, str(page), "exec"), names)
        assert printed.getvalue() == expected, source
