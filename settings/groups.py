"""What the tables of the settings file have in common. Data only, like all of them."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _listed(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _from_the_root(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    if any(not folder.is_absolute() or ".." in folder.parts for folder in folders):
        raise ValueError(
            "must be folders from the root, without '..', such as /srv/notes; several with commas between them"
        )
    return folders


# Comma-separated in a variable.
Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_from_the_root)]


class Group(BaseModel):
    """A table of the settings file."""

    # An error shows no input: it may hold a password that somebody wrote where none belongs.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)
