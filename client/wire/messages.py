"""What every message has in common: requests refuse what they do not know, answers do not."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """Strict: text is never taken for a number, nor a boolean for one. What is no number is sent as what it is."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=True, ser_json_inf_nan="constants"
    )


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


Budget = Annotated[float, Field(ge=0, le=1e9)]  # in US dollars
Name = str  # of a tenant or a collection: 1 to 64 of a-z, 0-9, '-' and '_'
