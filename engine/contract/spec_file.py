"""Reading a spec from a person: YAML or JSON in, a `RunSpec` or plain sentences out."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError

from engine.contract.errors import RequestError, RequestErrors
from engine.contract.method_settings import METHOD_KINDS
from engine.contract.spec import RunSpec

MAX_SPEC_BYTES = 1_000_000


class _SpecLoader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as text, where people mean a number, and keeps the last of two values."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A group of settings, each given once.

        Raises:
            ComposerError: A setting is given twice.
        """
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"{key.value} is given already, in line {seen[key.value]}"
                raise ComposerError(None, None, problem, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return node


_SpecLoader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_spec(path: Path) -> RunSpec:
    """Read and validate a spec file.

    Raises:
        RequestError: The file cannot be read or is no mapping.
        RequestErrors: One mistake per wrong field.
    """
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise RequestError("spec", f"{path} is larger than 1 MB.", "Is it really a spec?")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise RequestError("spec", f"{path}: {reason}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise RequestError("spec", f"{path} is not UTF-8 text.", "Save it as UTF-8.") from error
    return validate_spec(_parse(text, path))


def _parse(text: str, path: Path) -> Any:
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_given_once)
        return yaml.load(text, Loader=_SpecLoader)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}: {error.msg}"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1 if mark else '?'}: {error.problem}"
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        where = f"line {line}: a character that text cannot hold"
    except RequestError:
        raise
    except Exception as error:
        # A tag such as !!int or a date that is none: PyYAML lets any error of Python's through.
        raise RequestError(
            "spec", f"{path.name} holds a value that cannot be read.", "Put texts in quotes."
        ) from error
    raise RequestError("spec", f"{path.name}, {where}.", "Mend that line.")


def _given_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError("spec", f"{twice} is given twice.", "Keep one of them.")
    return found


def validate_spec(value: Any) -> RunSpec:
    """Make a `RunSpec` of parsed YAML or JSON, or of the setup page's fields.

    Raises:
        RequestError: `value` is no mapping.
        RequestErrors: One mistake per wrong field, in the order of the spec.
    """
    if not isinstance(value, dict):
        raise RequestError(
            "spec", "no settings found.", "Give the groups model, data, method and train."
        )
    try:
        return RunSpec.model_validate(value)
    except ValidationError as error:
        raise RequestErrors(_sentences(error.errors())) from error


def _sentences(details: Sequence[ErrorDetails]) -> list[RequestError]:
    found: dict[str, RequestError] = {}
    for detail in details:
        for mistake in _sentence(detail):
            known = found.get(mistake.field)
            found[mistake.field] = _either(known, mistake) if known else mistake
    return list(found.values())


def _either(first: RequestError, second: RequestError) -> RequestError:
    """A union such as `"auto"` or a boolean reports one mistake per member: it is only one."""
    wish = first.message.partition(", but is ")[0]
    return RequestError(
        first.field, second.message.replace("it should be", f"{wish} or"), second.advice
    )


def _sentence(detail: ErrorDetails) -> list[RequestError]:
    context = detail.get("ctx", {})
    if detail["type"] == "request":
        return [_refusal(field, message) for field, message in context["mistakes"]]
    place = _place_of(detail)
    field = ".".join(place) or "spec"
    if detail["type"] == "extra_forbidden":
        return [RequestError(field, "there is no such setting.", _closest(detail))]
    if detail["type"] == "missing":
        return [RequestError(field, "it is missing.", "Add it.")]
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = ", ".join(METHOD_KINDS)
        return [RequestError(f"{field}.kind", "unknown method.", f"Choose one of {kinds}.")]
    message = _PLAIN_WORDS.get(detail["type"], re.sub(r"^\w+ should", "it should", detail["msg"]))
    cause = f"{message}, but is {_shown(detail['input'])}."
    return [RequestError(field, cause, _way_out(detail))]


# Where pydantic's own sentence speaks to programmers.
_PLAIN_WORDS = {
    "model_type": "it should be a group of settings",
    "model_attributes_type": "it should be a group of settings",
    "invalid_key": "the name of a setting should be text",
    "string_unicode": "it should be text without half characters",
    "string_pattern_mismatch": "it should be auto, cpu, cuda, cuda:N or mps",
}


def _refusal(field: str, message: str) -> RequestError:
    cause, _, advice = message.partition("; ")
    return RequestError(field, cause.rstrip(".") + ".", advice[:1].upper() + advice[1:])


def _place_of(detail: ErrorDetails) -> list[str]:
    """`("method", "qft", "rounding")` is `method.rounding` to a person."""
    parts = [str(part) for part in detail["loc"]]
    if len(parts) > 2 and parts[0] == "method" and parts[1] in METHOD_KINDS:
        del parts[1]
    # A union such as `"auto" or a boolean` reports one place per member; the field comes first.
    return parts[:2]


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a group"
    if isinstance(value, list | tuple | set):
        return "a list"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _closest(detail: ErrorDetails) -> str:
    """Where a setting of that name is, or which of this group comes near."""
    *groups, key = _place_of(detail)
    group = ".".join(groups)
    kind = str(detail["loc"][1]) if group == "method" else None
    known = sorted(_keys_of(group, kind))
    close = difflib.get_close_matches(key, known, n=1)
    elsewhere = [other for other in RunSpec.model_fields if key in _keys_of(other)]
    if elsewhere and elsewhere != [group]:
        return f"Write it under {elsewhere[0]}."
    if close:
        return f"Did you mean {close[0]}?"
    return f"Known here: {', '.join(known)}."


def _keys_of(group: str, kind: str | None = None) -> set[str]:
    """The settings of a group; of `method` those of one kind, or of all."""
    if not group:
        return set(RunSpec.model_fields)
    return {
        name
        for member in _members_of(group)
        if kind is None or member.model_fields["kind"].default == kind
        for name in member.model_fields
    }


def _members_of(group: str) -> list[type[BaseModel]]:
    """The class of a group; of `method` one for each kind."""
    annotation = RunSpec.model_fields[group].annotation if group in RunSpec.model_fields else None
    members = getattr(annotation, "__args__", (annotation,))
    return [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]


def _way_out(detail: ErrorDetails) -> str:
    """What to write instead: from the field's choices, its bounds, its default or what it means."""
    group, *rest = [str(part) for part in detail["loc"]] or [""]
    members = _members_of(group)
    if members and not rest:
        return f"Write it as {group}: {{{next(iter(members[0].model_fields))}: ...}}."
    if len(members) > 1:  # pydantic names the kind between the group and the setting
        members = [m for m in members if m.model_fields["kind"].default == rest[0]]
        del rest[0]
    field = members[0].model_fields.get(rest[0]) if members and rest else None
    return _allowed(field) if field else ""


def _allowed(field: FieldInfo) -> str:
    choices = list(_choices(field.annotation))
    if choices:
        return f"Choose {', '.join(choices[:-1])} or {choices[-1]}."
    members = get_args(field.annotation) or (field.annotation,)
    if int in members or float in members:
        return f"Use a {'whole ' if int in members else ''}number{_range_of(field)}."
    if field.is_required() and field.description:
        return f"Use {field.description[:1].lower()}{field.description[1:]}"
    return "Leave it out." if field.default is None else f"Use {field.default}."


def _choices(annotation: Any) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    else:
        for member in get_args(annotation):
            yield from _choices(member)


def _range_of(field: FieldInfo) -> str:
    """` from 1 to 4096`, as far as there are bounds."""
    bounds = {
        name: str(value)
        for bound in field.metadata
        for name in ("ge", "gt", "le")
        if (value := getattr(bound, name, None)) is not None
    }
    if "gt" in bounds:
        return f" above {bounds['gt']}" + (f", at most {bounds['le']}" if "le" in bounds else "")
    if {"ge", "le"} <= set(bounds):
        return f" from {bounds['ge']} to {bounds['le']}"
    return f" of {bounds['ge']} or more" if "ge" in bounds else ""
