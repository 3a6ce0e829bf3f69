"""What PromQL expressions ask for: metrics, and the labels that they select and group by. No parser: the few forms that
dashboards and rules of this repository use.
"""

import re
from collections.abc import Iterator

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()")


def metrics(expression: str) -> set[str]:
    """The names of the series that an expression reads."""
    bare = _STRING.sub('""', expression)
    bare = _RANGE.sub("", _GROUPING.sub(" ", re.sub(r"\{[^}]*\}", "", bare)))
    return set(_NAME.findall(bare)) - {"by", "on", "and", "or", "unless", "bool", "offset"}


def selected_labels(expression: str) -> Iterator[tuple[str, str]]:
    """Each metric with each label that is matched on it."""
    for name, matchers in _SELECTOR.findall(_STRING.sub('""', expression)):
        for matcher in filter(None, (each.strip() for each in matchers.split(","))):
            yield name, re.split(r"[=!~]", matcher, maxsplit=1)[0].strip()


def grouped_labels(expression: str) -> set[str]:
    """The labels that an expression groups or joins by."""
    return {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",") if label.strip()}
