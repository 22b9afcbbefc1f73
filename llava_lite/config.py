"""Configuration: a YAML file and `key=value` overrides become one strict, frozen pydantic model.

A model stands next to what it configures, a subclass of `Strict` with a docstring under every field; a recipe composes
several into its own `Config`. All complaints about a configuration are collected and raised once, each with its place.
"""

import difflib
import json
import re
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import pydantic
import yaml
from pydantic.fields import FieldInfo

Model = type[pydantic.BaseModel]
T = TypeVar("T", bound=pydantic.BaseModel)
Key = tuple[str | int, ...]
Place = Callable[[int], str]
Field = tuple[tuple[str, ...], FieldInfo, Any]

MAX_LINES = 5


class ConfigError(ValueError):
    """A configuration that cannot be used: one complaint a line, each saying what, where and the remedy."""


class Strict(pydantic.BaseModel):
    """Base of every configuration model: unknown keys are errors, values never change, docstrings become help."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: pydantic.ValidationInfo) -> object:
        # Python counts True as 1, and YAML 1.1 reads yes, on and y as true: `epochs: yes` must not mean one epoch.
        kinds = set(_parts(cls.model_fields[str(info.field_name)].annotation))
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("should be a number")
        return value


def read_config(kind: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file (and the `base:` it names), apply `a.b.c=value` overrides, and check the whole against `kind`.

    A file says only what differs: a mapping is merged into what stood there before (the default, the base), anything
    else replaces it. Raises ConfigError.
    """
    draft = _Draft(kind)
    if path is not None:
        draft.add_file(path)
    for override in overrides:
        draft.add_override(override)
    config = None
    try:
        config = kind.model_validate(draft.tree)
    except pydantic.ValidationError as error:
        draft.complaints += draft.explain(kind, error)
    if config is None or draft.complaints:
        lines = draft.complaints
        hidden = len(lines) - MAX_LINES + 1
        raise ConfigError("\n".join(lines if hidden < 2 else [*lines[:-hidden], f"... and {hidden} more like these"]))
    return config


def dump_config(config: pydantic.BaseModel) -> str:
    """Write every value as YAML that `read_config` reads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe(kind: Model) -> str:
    """List the keys of `kind` with their types, defaults and docstrings, for `--help`."""
    width = max(len(_dotted(key)) for key, *_ in _fields(kind))
    lines = []
    for key, field, default in _fields(kind):
        given = ", required" if default is ... else f" = {json.dumps(default, default=str)}"
        lines.append(f"  {_dotted(key):<{width}}  {_type_name(field.annotation)}{given}")
        lines += textwrap.wrap(field.description or "", 112, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def nearest(word: str, names: Sequence[str]) -> str | None:
    """Return the one of `names` that `word` was probably meant to be."""
    return next(iter(difflib.get_close_matches(word, names, n=1)), None)


class _Draft:
    """A configuration being put together: the tree of values, the place each came from, and the complaints so far."""

    def __init__(self, kind: Model) -> None:
        self.tree = _defaults(kind)
        self.places: dict[Key, str] = {}
        self.complaints: list[str] = []

    def add_file(self, path: Path, readers: tuple[Path, ...] = ()) -> None:
        if path.resolve() in readers:
            raise ConfigError(f"{path}: `base:` leads round in a circle; remove one of the `base:` lines")
        if not path.is_file():
            raise ConfigError(_no_such_file(path))
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not a text file in UTF-8") from None
        places: dict[Key, str] = {}
        values = self._parse(text, (), lambda line: f"{path}, line {line + 1}", places)
        if not isinstance(values, dict | None):
            raise ConfigError(f"{path}: should hold `key: value` lines, not {_short(values)}")
        base = (values or {}).pop("base", None)
        if base is not None:
            self.add_file(path.parent / str(base), (*readers, path.resolve()))
        self.tree = _merge(self.tree, values or {})
        self.places |= {**places, (): str(path)}

    def add_override(self, override: str) -> None:
        name, equals, text = override.partition("=")
        key = tuple(name.strip().split("."))
        if not equals or not all(key):
            self.complaints.append(f"override {override!r}: should read key=value, as in optim.lr=1e-5")
            return
        try:
            values = self._parse(text, key, lambda line: f"override {override}", self.places)
        except ConfigError as error:
            self.complaints.append(str(error))
            return
        for n in range(len(key), 0, -1):
            self.places.setdefault(key[:n], f"override {override}")
            values = {key[n - 1]: values}
        self.tree = _merge(self.tree, values)

    def _parse(self, text: str, key: Key, place: Place, places: dict[Key, str]) -> Any:
        """Parse YAML into plain values and note where each stands."""
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            return self._plain(loader, node, key, place, places) if node else None
        except yaml.YAMLError as error:
            mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
            reason = error.problem if isinstance(error, yaml.MarkedYAMLError) else " ".join(str(error).split())
            raise ConfigError(f"{place(mark.line if mark else 0)}: not valid YAML: {reason}") from None

    def _plain(self, loader: yaml.SafeLoader, node: yaml.Node, key: Key, place: Place, places: dict[Key, str]) -> Any:
        places.setdefault(key, place(node.start_mark.line))
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(loader, item, (*key, i), place, places) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return node.value if node.tag.endswith(":timestamp") else loader.construct_object(node)  # a date is text
        for i, (name, _) in enumerate(node.value):
            if not isinstance(name, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key should be a word", name.start_mark)
            if name.value in [earlier.value for earlier, _ in node.value[:i]]:
                where = f"{_dotted((*key, name.value))} ({place(name.start_mark.line)})"
                self.complaints.append(f"{where}: given twice; keep one of them")
            places[(*key, name.value)] = place(name.start_mark.line)
        loader.flatten_mapping(node)  # `<<: *anchor`
        # A key is text as it is written: YAML 1.1 would read `on` as true and `1` as a number.
        return {name.value: self._plain(loader, value, (*key, name.value), place, places) for name, value in node.value}

    def explain(self, kind: Model, error: pydantic.ValidationError) -> Iterator[str]:
        problems: dict[Key, list[str]] = {}  # the branches of a union complain one by one about the same key
        for item in error.errors(include_url=False):
            key = self._key(item["loc"], item["type"])
            problems.setdefault(key, []).append(_problem(kind, key, item["type"], item["msg"], item["input"]))
        for key, texts in problems.items():
            place = next((self.places[key[:n]] for n in range(len(key), -1, -1) if key[:n] in self.places), "")
            where = _dotted(key) + (f" ({place})" if key and place else place)
            yield f"{where}{': ' * bool(where)}{' or '.join(dict.fromkeys(texts))}"

    def _key(self, loc: Key, problem: str) -> Key:
        """Drop from pydantic's location what is no key of the tree: the names of union branches."""
        key: list[str | int] = []
        node: Any = self.tree
        for part in loc:
            if isinstance(part, int) if isinstance(node, list) else isinstance(node, dict) and part in node:
                node = node[part]
                key.append(part)
        return (*key, loc[-1]) if problem == "missing" else tuple(key)


def _level(kind: Model, default: object) -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, field in kind.model_fields.items():
        own = ... if field.is_required() else field.get_default(call_default_factory=True)
        yield name, field, getattr(default, name) if isinstance(default, kind) else own


def _fields(kind: Model, default: object = ..., prefix: tuple[str, ...] = ()) -> Iterator[Field]:
    """Yield (key, field, default) of every key of `kind` and of the models within it; `*` stands for an item."""
    for name, field, value in _level(kind, default):
        if not _is_model(field.annotation):
            yield (*prefix, name), field, value
        single = _is_model(field.annotation) or get_origin(field.annotation) in (Union, types.UnionType)
        for model in filter(_is_model, _parts(field.annotation)):
            yield from _fields(model, value, (*prefix, name) if single else (*prefix, name, "*"))


def _defaults(kind: Model, default: object = ...) -> dict[str, Any]:
    """Return the tree that a file merges into: `optim: {warmup: 0.1}` must not reset a recipe's default `optim.lr`."""
    tree = {}
    for name, field, value in _level(kind, default):
        if _is_model(field.annotation):
            tree[name] = _defaults(cast(Model, field.annotation), value)
        elif isinstance(default, kind) or isinstance(value, dict):
            tree[name] = value
    return tree


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(name), dict)
        merged[name] = _merge(old[name], value) if both else value
    return merged


_PLAINER = {
    "missing": "missing, and it has no default",
    "model_type": "should be a mapping of keys",
    "path_type": "should be a path",
}


def _problem(kind: Model, key: Key, problem: str, message: str, value: object) -> str:
    if problem != "extra_forbidden":
        text = message.removeprefix("Input ").removeprefix("Value error, ").split(", unable to")[0]
        text = _PLAINER.get(problem, text)
        return text if isinstance(value, dict) else f"{text}, not {_short(value)}"
    names = [name for name, *_ in _fields(kind)]
    level = tuple("*" if isinstance(part, int) else part for part in key[:-1])
    here = list(dict.fromkeys(name[len(level)] for name in names if name[:-1][: len(level)] == level))
    anywhere = {name[-1]: name for name in reversed(names)}
    if word := nearest(str(key[-1]), here):
        return f"unknown key; did you mean {_dotted((*key[:-1], word))}?"
    if word := nearest(str(key[-1]), list(anywhere)):
        return f"unknown key; did you mean {_dotted(anywhere[word])}?"
    return f"unknown key; known here: {', '.join(here)}"


def _no_such_file(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f"{path}: no such file; the folder {folder} does not exist"
    files = sorted(file.name for file in folder.iterdir() if file.suffix in (".yaml", ".yml"))
    word = nearest(path.name, files)
    remedy = f"did you mean {folder / word}?" if word else f"{folder} holds: {', '.join(files) or 'no YAML file'}"
    return f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; {remedy}"


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def _type_name(annotation: Any) -> str:
    plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__name__ if plain else re.sub(r"\b([a-z_]+\.)+(?=[A-Z])", "", str(annotation))


def _dotted(key: Key) -> str:
    return ".".join(map(str, key))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
