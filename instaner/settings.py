"""Sections of a config that are ours."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import InstaNERError
from .pipeline import read_config

_Section = TypeVar("_Section", bound=BaseModel)


def read_section(
    kind: type[_Section], name: str, path: Path | None, **values: Any
) -> _Section:
    """Read a section of a config.

    kind (Type[BaseModel]): What it has to be.
    name (str): Its name.
    path (Optional[Path]): The config. None: there is none, and defaults stand.
    values (Any): Values that stand in the place of the config's, where not None.
    RETURNS (BaseModel): The section; defaults, where the config has none.
    RAISES (InstaNERError): On a broken config, a name that the section has not, or a
        value that it cannot have.
    """
    section = dict(read_config(str(path)).get(name, {})) if path is not None else {}
    section.update((key, value) for key, value in values.items() if value is not None)
    try:
        return kind(**section)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{first['msg']}, found {first['input']!r}"
        if first["type"] == "extra_forbidden":
            reason = f"there is no such setting, only {', '.join(kind.model_fields)}"
        of = (
            f"--{where}"
            if values.get(where) is not None
            else f"{path}: [{name}] {where}"
        )
        raise InstaNERError(f"{of}: {reason}.") from err
