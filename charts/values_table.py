"""Writes the table of the chart's values into its README.md, from the comments of values.yaml; --check only compares.

A comment "# -- …" above a key describes it and everything below it. Every value has to be described.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "modelmuxer"
BEGIN, END = "<!-- values: written by charts/values_table.py -->\n", "<!-- end of values -->\n"
KEY = re.compile(r"( *)([\w-]+):(?: |$)")
MAX_DEFAULT_CHARS = 60


def main() -> int:
    readme = CHART / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    text = before + BEGIN + table((CHART / "values.yaml").read_text()) + END + after
    if "--check" not in sys.argv:
        readme.write_text(text)
    elif readme.read_text() != text:
        print("charts/modelmuxer/README.md is stale: run `make generate`", file=sys.stderr)
        return 1
    return 0


def table(values: str) -> str:
    """The table. Raises ValueError for a value that nothing describes."""
    described = dict(_described(values))
    content = yaml.safe_load(values)
    if missing := [
        path for path in _leaves(content, ()) if not any(path[:n] in described for n in range(len(path) + 1))
    ]:
        raise ValueError(f"values.yaml does not describe {', '.join('.'.join(path) for path in missing)}")
    rows = [f"| `{'.'.join(path)}` | {_default(_at(content, path))} | {text} |\n" for path, text in described.items()]
    return "| value | default | what it is |\n| --- | --- | --- |\n" + "".join(rows)


def _described(values: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each described key's path and description, in order."""
    path: list[tuple[int, str]] = []
    comment = ""
    for line in values.splitlines():
        if line.strip().startswith("# -- "):
            comment = line.strip().removeprefix("# -- ")
        elif key := KEY.match(line):
            indent = len(key[1])
            path = [*(step for step in path if step[0] < indent), (indent, key[2])]
            if comment:
                yield tuple(name for _, name in path), comment
            comment = ""


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _leaves(each, (*path, key))
    else:
        yield path


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _default(value: Any) -> str:
    text = json.dumps(value)
    return f"`{text}`" if len(text) <= MAX_DEFAULT_CHARS else "see values.yaml"


if __name__ == "__main__":
    sys.exit(main())
