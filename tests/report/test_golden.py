"""Each renderer's output, word for word. After a change that is meant: VERDIGRIS_GOLDEN=write pytest tests/report."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.sample import sample
from verdigris.checklist.verdict import Verdict
from verdigris.report import renderer
from verdigris.report.page import terminal as page_on_terminal
from verdigris.report.style import Style

GOLDEN = Path(__file__).parent / "golden"
PAGE = """## engine/sample

**Holds when** every engine is created with `sample=True`, which is a sentence long enough to be wrapped at the width.

**Do**

- one thing, or
- *another*: [the manual](https://example.org/manual)

```python fails off
engine = create_engine(url)
```

```json recording
{"engines": []}
```

```python holds
engine = create_engine(url, sample=True)
```
"""


def held():
    whole = sample()
    return replace(
        whole,
        boxes=tuple(box for box in whole.boxes if box.verdict is Verdict.HOLDS and not box.findings),
        unread=(),
        ignored=(),
        notices=(),
    )


CASES = {
    "terminal.txt": lambda: renderer("terminal")(sample(), Style()),
    "terminal-colour.txt": lambda: renderer("terminal")(sample(), Style(colour=True, width=80)),
    "terminal-ascii.txt": lambda: renderer("terminal")(sample(), Style(unicode=False)),
    "terminal-held.txt": lambda: renderer("terminal")(held(), Style()),
    "full.txt": lambda: renderer("full")(sample(), Style()),
    "concise.txt": lambda: renderer("concise")(sample(), Style()),
    "quiet.txt": lambda: renderer("quiet")(sample(), Style()),
    "report.json": lambda: renderer("json")(sample(), Style()),
    "report.sarif": lambda: renderer("sarif")(sample(), Style()),
    "junit.xml": lambda: renderer("junit")(sample(), Style()),
    "github.txt": lambda: renderer("github")(sample(), Style()),
    "report.html": lambda: renderer("html")(sample(), Style()),
    "page.txt": lambda: page_on_terminal(PAGE, "1.9", Style(width=80)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_renderer_writes_what_its_golden_text_says(name):
    text = CASES[name]()
    golden = GOLDEN / name
    if os.environ.get("VERDIGRIS_GOLDEN") == "write":
        golden.write_text(text, "utf-8")

    expected = golden.read_text("utf-8")

    assert expected == text
