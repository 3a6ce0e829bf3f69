"""Catalogue files as plain documents: reading them, laying one over another, and saying whose fault an error is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails


class CatalogueError(Exception):
    """What is wrong with the catalogue: one sentence per problem, which names the file and the place."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Document:
    """A file and what it says."""

    path: Path
    content: dict[str, Any]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice, of which the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [
            key.value
            for key, _ in node.value
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
        ]
        if twice := next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None:
            raise yaml.constructor.ConstructorError(None, None, f'the key "{twice}" is there twice', node.start_mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def read(path: Path) -> Document:
    """Reads a file. Raises CatalogueError where it cannot be read or is no YAML mapping of mappings."""
    try:
        content = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - derived from the safe loader
    except OSError as error:
        raise CatalogueError([f"{path}: cannot be read ({error.strerror}); check MODELMUXER_CONFIG"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CatalogueError([f"{path}: is not valid YAML: {' '.join(str(error).split())}"]) from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise CatalogueError([f"{path}: must be a mapping with models, providers, deployments or aliases in it"])
    problems = [
        f"{path}: {section}: must be a mapping" for section, entries in content.items() if isinstance(entries, list)
    ]
    if problems:
        raise CatalogueError(problems)
    return Document(path, content)


def merge(documents: Iterable[Document]) -> dict[str, Any]:
    """Later documents over earlier ones: an entry's fields replace their namesakes, an empty entry removes it."""
    merged: dict[str, Any] = {}
    for document in documents:
        for section, entries in document.content.items():
            if not isinstance(entries, Mapping):
                merged[section] = entries
                continue
            into = merged.setdefault(section, {})
            for name, entry in entries.items():
                if entry is None:
                    into.pop(name, None)
                elif isinstance(entry, Mapping) and isinstance(into.get(name), Mapping):
                    into[name] = {**into[name], **entry}
                else:
                    into[name] = entry
    return merged


def sentences(error: ValidationError, documents: list[Document]) -> Iterator[str]:
    """What pydantic found, by file and place."""
    for each in error.errors(include_url=False):
        where = [part for part in each["loc"] if part != "[key]"]
        yield f"{blame(documents, where)}: {_path(where) or 'the file'}: {_advice(each)}"


def blame(documents: list[Document], where: list[int | str]) -> Path:
    """The file that has the last word on a place."""
    for depth in range(min(3, len(where)), 0, -1):
        for document in reversed(documents):
            if _says(document.content, where[:depth]):
                return document.path
    return documents[-1].path


def _says(content: Any, where: list[int | str]) -> bool:
    for part in where:
        if not isinstance(content, Mapping) or part not in content:
            return False
        content = content[part]
    return True


def _path(where: list[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")


def _advice(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is missing"
    message = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]
