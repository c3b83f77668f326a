"""What every message has in common: requests refuse what they do not know, answers do not."""

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """Strict: text is never taken for a number, nor a boolean for one. What is no number is sent as what it is."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=True, ser_json_inf_nan="constants"
    )


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


Name = str  # of a tenant or a collection: 1 to 64 of a-z, 0-9, '-' and '_'
