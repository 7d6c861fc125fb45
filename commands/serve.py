"""`supportbot serve`: an option for every setting, made from the settings themselves."""

from __future__ import annotations

from inspect import Parameter, Signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from commands.console import fail
from models.bundle import embedded_bundle
from server.settings import Settings, SettingsError, load_settings, option_of

# What a value looks like, in the help. pydantic parses it, as it does in the environment, so that both have the same errors.
METAVARS: dict[object, str] = {bool: "<true|false>", int: "<int>", float: "<float>", str: "<text>", Path: "<path>"}


def shown_default(field: FieldInfo) -> str:
    """A setting's default, as the help and the documentation say it."""
    if field.default == embedded_bundle():
        return "the built-in model"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return str(field.default) if field.default not in {None, SecretStr("")} else "none"


def serve(**options: object) -> None:
    """Serve a model over HTTP until SIGTERM or Ctrl-C.

    Every option is also an environment variable (--batch-max-texts is BATCH_MAX_TEXTS) and can be set in an .env file in the
    current folder. Options win over the environment, and the environment wins over the file. A wrong value stops the start with
    status 2.

    Example:

        supportbot serve --port 9000 --bundle my-bundle --workers 2
    """
    try:
        settings = load_settings({name: value for name, value in options.items() if value is not None})
        from server.serving import serve as run

        status = run(settings)
    except SettingsError as error:
        fail(str(error))
    raise typer.Exit(status)


def _parameter(name: str, field: FieldInfo) -> Parameter:
    """The option for a setting; None when it is not given."""
    option = typer.Option(
        option_of(name), metavar=_metavar(field.annotation), help=field.description, show_default=shown_default(field)
    )
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option])


def _metavar(kind: object) -> str:
    if get_origin(kind) is Literal:
        return f"<{'|'.join(get_args(kind))}>"
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    return METAVARS[kind]


# A secret is no option: everybody on the machine can read the command lines of processes.
serve.__signature__ = Signature(  # type: ignore[attr-defined]
    [_parameter(name, field) for name, field in Settings.model_fields.items() if field.annotation is not SecretStr]
)
