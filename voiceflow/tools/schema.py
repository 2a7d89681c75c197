"""The JSON schema of a function: from its signature and types, with what its docstring says of each one.

A pydantic model is made of the parameters. Its fields have names of their own, so that a parameter may be
called `json` or `model_config`, which a pydantic model keeps for itself.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from voiceflow.errors import DeclarationError
from voiceflow.tools.docstring import read

RECEIVERS = ("self", "cls")
OPAQUE = ("default", "const", "enum", "examples")
"""Keywords of a schema that hold values, not schemas."""


@dataclass(slots=True, frozen=True)
class Parameters:
    """What is known of a function's parameters."""

    schema: Mapping[str, Any]
    description: str
    """What the docstring says of the function itself."""
    model: type[BaseModel]
    names: Mapping[str, str]
    """The parameter of each field of the model."""
    defaults: frozenset[str]
    """Fields that need not be passed on when they were not given: the function has a default."""
    call: str
    """The parameter that is given the call, or ""."""
    threaded: bool
    """The function may block: it is no coroutine function."""
    receiver: bool
    """It is a method and wants an object first."""


def parameters_of(function: Callable[..., Any], name: str, scope: Mapping[str, Any]) -> Parameters:
    """`scope` holds the names that are known where the function was written, besides its module's.

    Raises DeclarationError naming the parameter that a model could not fill.
    """
    parameters, hints = _signature(function, name, scope)
    description, told = read(inspect.getdoc(function) or "", tuple(parameters))
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    defaults: set[str] = set()
    call, receiver = "", False
    for index, (parameter, about) in enumerate(parameters.items()):
        if index == 0 and parameter in RECEIVERS and parameter not in hints:
            receiver = True
            continue
        hint = _hint(about, hints, name)
        if _is_call(hint):
            if call:
                raise DeclarationError(f"{name}({parameter}): there is only one call, and {call} has it")
            call = parameter
            continue
        field = f"p{index}"
        default: Any = ...
        if about.default is not inspect.Parameter.empty:
            default = about.default
            defaults.add(field)
            if default is None:
                hint = typing.Optional[hint]  # noqa: UP045 - `|` refuses an Annotated string
        info = Field(default, alias=parameter, description=told.get(parameter) or _described(hint))
        _check(hint, name, parameter)
        fields[field], names[field] = (hint, info), parameter
    config = ConfigDict(extra="forbid")
    model: type[BaseModel] = create_model("Arguments", __config__=config, **fields)
    schema = model.model_json_schema(schema_generator=_Quiet)
    schema.setdefault("properties", {})
    schema.pop("description", None)
    threaded = not any(
        inspect.iscoroutinefunction(each)
        for each in (function, getattr(function, "__call__", None))  # noqa: B004
    )
    tidy = _inlined(_untitled(schema))
    return Parameters(tidy, description, model, names, frozenset(defaults), call, threaded, receiver)


class _Quiet(GenerateJsonSchema):
    """A default that is no JSON is left out of the schema without a word."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def _signature(
    function: Callable[..., Any], name: str, scope: Mapping[str, Any]
) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    from voiceflow.call import Call

    annotated: Any = inspect.unwrap(function)
    while hasattr(annotated, "func") and not hasattr(annotated, "__annotations__"):  # functools.partial
        annotated = annotated.func
    if not isinstance(annotated, types.FunctionType | types.MethodType):
        annotated = getattr(type(annotated), "__call__", annotated)  # noqa: B004
    # Often imported for the type checker alone, and so unknown here.
    known = {"Call": Call, **getattr(annotated, "__globals__", {})}
    try:
        hints = typing.get_type_hints(annotated, known, dict(scope), include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"{name}: the type {error.name} of a parameter is not known here: import it outside "
            "`if TYPE_CHECKING:`"
        ) from None
    except Exception as error:  # whatever an annotation may raise
        raise DeclarationError(f"{name}: its annotations cannot be read: {error}") from None
    hints.pop("return", None)
    try:
        return inspect.signature(function).parameters, hints
    except (TypeError, ValueError):
        raise DeclarationError(f"{name}: it has no signature: wrap it in a function of yours") from None


def _hint(about: inspect.Parameter, hints: Mapping[str, Any], name: str) -> Any:
    """The type of a parameter that a model can fill."""
    where = f"{name}({about.name})"
    match about.kind:
        case inspect.Parameter.VAR_POSITIONAL | inspect.Parameter.VAR_KEYWORD:
            stars = "*" if about.kind is inspect.Parameter.VAR_POSITIONAL else "**"
            raise DeclarationError(
                f"{name}({stars}{about.name}): a model has to know the arguments: name each one"
            )
        case inspect.Parameter.POSITIONAL_ONLY:
            raise DeclarationError(f"{where}: arguments are given by name: leave out the `/`")
    if isinstance(about.default, FieldInfo):
        raise DeclarationError(f"{where}: write {about.name}: Annotated[..., Field(...)], without a default")
    if about.name not in hints:
        raise DeclarationError(f"{where}: say of what type it is, as in `{about.name}: str`")
    return hints[about.name]


def _is_call(hint: Any) -> bool:
    from voiceflow.call import Call

    return isinstance(hint, type) and issubclass(hint, Call)


def _described(hint: Any) -> str | None:
    """What `Annotated[..., Field(description=...)]` says."""
    found = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, FieldInfo)]
    return next((each.description for each in reversed(found) if each.description), None)


def _check(hint: Any, name: str, parameter: str) -> None:
    try:
        TypeAdapter(hint).json_schema(schema_generator=_Quiet)
    except (PydanticUserError, TypeError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if isinstance(error, PydanticUserError) else str(error)
        reason = reason.partition(". Set `")[0]  # advice for pydantic's own models
        raise DeclarationError(
            f"{name}({parameter}): a model cannot give {_shown(hint)} ({reason[:200]}): use what can be "
            "written in JSON (str, int, float, bool, date, Literal, Enum, list, dict, a BaseModel)"
        ) from None


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _untitled(node: Any) -> Any:
    """A schema without its titles, which repeat the names."""
    if isinstance(node, list):
        return [_untitled(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: value if key in OPAQUE and not isinstance(node.get("properties"), dict) else _untitled(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with what it refers to written in its place: not every server follows `$ref`. One that
    refers to itself stays as it is."""
    definitions = schema.get("$defs", {})

    def resolve(node: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [resolve(each, inside) for each in node]
        if not isinstance(node, dict):
            return node
        if isinstance(reference := node.get("$ref"), str):
            name = reference.removeprefix("#/$defs/")
            if name in inside or name not in definitions:
                raise RecursionError
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return {**resolve(definitions[name], (*inside, name)), **rest}
        return {key: value if key in OPAQUE else resolve(value, inside) for key, value in node.items()}

    try:
        resolved = {key: resolve(value, ()) for key, value in schema.items() if key != "$defs"}
    except RecursionError:
        return schema
    return resolved
