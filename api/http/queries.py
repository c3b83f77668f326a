"""Query parameters, and routes that refuse what they do not know. Parameters are text, from which numbers are read.

None of them is a list, so none may stand there twice.
"""

import re
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Annotated, Any, Literal, get_type_hints

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from penstock.client.wire import DeliveryState, DocumentState, Priority
from penstock.client.wire.problems import worded_problem

from ..errors import Refused


def _checked_place(text: str, shape: re.Pattern[str]) -> str:
    if not shape.fullmatch(text):
        raise PydanticCustomError("no_place", "it is no id: give the `last_id` of the page before")
    return text


LONGEST_STREAM_S = 86_400  # of those that are to end by themselves
LAST_ID = Field(description="`last_id` of the page before")
Place = Annotated[str, AfterValidator(partial(_checked_place, shape=re.compile(r"[a-z0-9_]{1,64}"))), LAST_ID]
# A document may be forgotten between two pages, so its id is not looked for; any other word would be a wrong page.
DocumentPlace = Annotated[str, AfterValidator(partial(_checked_place, shape=re.compile(r"doc_[0-9a-f]{26}"))), LAST_ID]

Word = Annotated[str, Field(max_length=64, pattern=r"^[^\x00]*$")]


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DocumentsQuery(Parameters):
    state: DocumentState | None = Field(default=None, description="only documents whose newest version is so")
    source: str | None = Field(default=None, pattern=r"^[^\x00]*$", description="only the document of this source")
    prefix: str = Field(
        default="", max_length=2048, pattern=r"^[^\x00]*$", description="only documents whose source begins so"
    )
    job_id: Word | None = Field(default=None, description="only dead documents (`state` failed) of this job")
    error_code: Word | None = Field(default=None, description="only dead documents with this code")
    stage: Word | None = Field(default=None, description="only documents that died there: chunk, embed or index")
    filter: str | None = Field(
        default=None, max_length=65_536, description="only dead documents that it accepts: `lang=en,year>2020`, or JSON"
    )
    after: DocumentPlace | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class SubmitQuery(Parameters):
    wait: float = Field(
        default=0.0,
        ge=0,
        le=30,
        description="answer 200 when all is searchable or failed, at most so many seconds later 202 as it is then",
    )


class JobsQuery(Parameters):
    after: Place | None = None
    limit: int = Field(default=20, ge=1, le=100)


class JobQuery(Parameters):
    wait: float = Field(
        default=0.0,
        ge=0,
        le=30,
        description="answer when the job is not running any more, at most so many seconds later",
    )


class EventsQuery(Parameters):
    wait: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_STREAM_S,
        description="end the stream after so many seconds; without it only the end of the job does",
    )


class WebhooksQuery(Parameters):
    state: DeliveryState | None = Field(default=None, description="only those that are so")
    after: Place | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class SchedulesQuery(Parameters):
    collection: Word | None = Field(default=None, description="only those of this collection")


class RunsQuery(Parameters):
    after: Place | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class IndexQuery(Parameters):
    probe: int = Field(
        default=0, ge=0, le=200, description="search for so many rows, for at most a few seconds, and tell the recall"
    )


class QueriesQuery(Parameters):
    limit: int = Field(default=100, ge=1, le=1000)


class JudgementsQuery(Parameters):
    after: str | None = Field(
        default=None, pattern=r"^([0-9a-f]{2}){1,32}$", description="`last_id` of the page before"
    )
    limit: int = Field(default=100, ge=1, le=1000)


class SnapshotsQuery(Parameters):
    before: int | None = Field(default=None, ge=1, le=10**18, description="`last_version` of the page before")
    limit: int = Field(default=100, ge=1, le=1000)


class DiffQuery(Parameters):
    to: str = Field(default="current", min_length=1, max_length=64, description="the later version; any name of it")
    after: DocumentPlace | None = None
    limit: int = Field(default=1000, ge=1, le=10_000)


class RollbackQuery(Parameters):
    wait: float = Field(
        default=0.0, ge=0, le=30, description="answer when it does not wait any more, at most so many seconds later"
    )


class EstimateQuery(Parameters):
    texts: bool = Field(default=False, description="name the texts that would be embedded, to add up several answers")
    model: str | None = Field(default=None, max_length=128, description="of a collection that is not there yet")
    strategy: Literal["auto", "recursive", "tokens"] | None = Field(default=None, description="likewise: its chunking")
    size_tokens: int | None = Field(default=None, ge=4, le=100_000)
    overlap_tokens: int | None = Field(default=None, ge=0, le=100_000)
    priority: Priority = Field(default="normal", description="of the submission; `economy` costs half, within a day")


class ReembeddingQuery(Parameters):
    wait: float = Field(
        default=0.0, ge=0, le=30, description="answer when it rests or stands still, at most so many seconds later"
    )


class UsageQuery(Parameters):
    by: str = Field(
        default="day", max_length=64, description="day, tenant, collection, job or model; several with commas between"
    )
    since: str | None = Field(
        default=None, max_length=40, description="a date, a time in ISO 8601, or seconds since 1970; in UTC"
    )
    until: str | None = Field(default=None, max_length=40, description="likewise; a date is included")
    limit: int = Field(default=1000, ge=1, le=10_000, description="most rows")


class TagQuery(Parameters):
    move: bool = Field(default=False, description="take the name from another version")


class StrictRoute(APIRoute):
    """A route that knows what it takes: any other query parameter, or a body, is refused, and never ignored."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        usual, known = super().get_route_handler(), _parameters_of(self)
        reads_body = "requestBody" in (self.openapi_extra or {})

        async def handler(request: Request) -> Response:
            if not reads_body and request.method != "GET":  # where nobody minds one
                _refuse_body(request)
            if known is None and request.scope["query_string"]:
                place = "the body" if reads_body else "the path"
                raise Refused(
                    f"{request.method} takes no query parameters here: what is asked for stands in {place}",
                    param=next(iter(request.query_params), None),
                )
            if known is not None:
                _refuse_repeated(request, known)
            try:
                return await usual(request)
            except RequestValidationError as error:
                raise _refused(error.errors(), known or Parameters) from error

        return handler


def _refuse_repeated(request: Request, known: type[Parameters]) -> None:
    """Refuse a parameter that is given twice: whichever was taken, the other would be ignored."""
    given = Counter(name for name, _ in request.query_params.multi_items() if name in known.model_fields)
    name = next((name for name, times in given.items() if times > 1), None)
    if name is not None:
        raise Refused(f"query parameter {name!r} is given {given[name]} times: give it once", param=name)


def _refuse_body(request: Request) -> None:
    """Refuse more than ``{}``, which some programs send with every POST."""
    announced = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or (announced.isdigit() and int(announced) > len("{}")):
        raise Refused(f"{request.method} takes no body here: what is asked for stands in the path")


def _parameters_of(route: APIRoute) -> type[Parameters] | None:
    hints = get_type_hints(route.endpoint).values()
    return next((hint for hint in hints if isinstance(hint, type) and issubclass(hint, Parameters)), None)


def _refused(problems: Sequence[Any], known: type[Parameters]) -> Refused:
    first = problems[0]
    name = str(first["loc"][-1])
    message = worded_problem(name, first["type"], first["msg"], known=known.model_fields, noun="query parameter")
    return Refused(message, param=name)
