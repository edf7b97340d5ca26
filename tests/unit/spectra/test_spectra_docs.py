"""The Python of the page on XAS runs as written and prints what stands under it."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "xas.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def test_examples_print_what_stands_under_them():
    names = {}
    for source, expected in EXAMPLE.findall(PAGE.read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, str(PAGE), "exec"), names)
        assert printed.getvalue() == expected, source
    assert names["threshold"].found
