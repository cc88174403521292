"""What makes a check of evidence, boxes and renderers: settings, the run, its cache, and what a team decided.

`check` runs it, `config` reads pyproject.toml, `baseline` and `suppressions` hold the decisions, `cache` remembers what
was judged. The library imports nothing from here.
"""
