"""What a new collection is: the request's words and the settings' defaults, resolved against the embedding model."""

from dataclasses import dataclass
from typing import Any

from penstock.client.wire import NewCollection, NewReembedding
from penstock.pipeline.chunking import ChunkingConfig, check_size, resolve
from penstock.pipeline.embedding import DIMENSIONS_SETTING, ModelCard
from penstock.pipeline.errors import EmbeddingError, InvalidChunking
from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage.catalog.generations import GenerationInfo

from ..errors import Refused


@dataclass(frozen=True)
class Configuration:
    """Everything that decides what a generation holds. ``chunking`` has every choice made."""

    model: str
    dimensions: int
    metric: str
    quantization: str
    chunking: dict[str, Any]

    def __str__(self) -> str:
        chunking = ", ".join(f"{key} {value}" for key, value in self.chunking.items())
        stored = f"{self.metric}, quantization {self.quantization}"
        return f"model {self.model} ({self.dimensions} dimensions), {stored}, {chunking}"


def configuration(new: NewCollection, settings: Settings) -> Configuration:
    """Return what ``new`` asks for.

    Raises:
        Refused: the model is not known, or its vectors cannot have so many dimensions; those that can are listed.
        InvalidChunking: the sizes contradict each other, or exceed what the model reads.
    """
    card = _card(new.model or settings.embedding.model, settings, dimensions=new.dimensions)
    asked = ChunkingConfig.model_validate((new.chunking or settings.chunking).model_dump())
    check_size(asked, input_limit=card.input_limit_tokens, model=card.name)
    chunking = resolve(asked, limit=card.input_limit_tokens)
    return Configuration(
        card.name, card.dimensions, new.metric or card.metric, new.quantization or "none", chunking.model_dump()
    )


def other_configuration(asked: NewReembedding, there: GenerationInfo, settings: Settings) -> Configuration:
    """Return what another generation of a collection is to be; what is left out is as it is ``there``.

    Raises:
        Refused: the model is not known, or does not read chunks as long as those that are there.
        InvalidChunking: the sizes contradict each other, or exceed what the model reads.
    """
    stays = asked.model in {None, there.model}
    dimensions = asked.dimensions or (there.dimensions if stays else None)
    card = _card(asked.model or there.model, settings, dimensions=dimensions)
    wanted = asked.chunking.model_dump() if asked.chunking else dict(there.chunking)
    config = ChunkingConfig.model_validate(wanted)
    try:
        check_size(config, input_limit=card.input_limit_tokens, model=card.name)
    except InvalidChunking as error:
        if asked.chunking:
            raise
        told = f"the chunks that are there are too long: {error}. Give chunking (--chunk-size), and they are cut anew"
        raise Refused(told, code="invalid_chunking", param="chunking") from error
    chunking = resolve(config, limit=card.input_limit_tokens)
    quantization = asked.quantization or there.quantization
    return Configuration(card.name, card.dimensions, there.metric, quantization, chunking.model_dump())


def _card(model: str, settings: Settings, *, dimensions: int | None = None) -> ModelCard:
    try:
        return wiring.card_of(settings, model, dimensions=dimensions)
    except EmbeddingError as error:
        if dimensions is not None and getattr(error, "setting", None) == DIMENSIONS_SETTING:
            raise Refused(str(error), code="invalid_dimensions", param="dimensions") from error
        raise Refused(str(error), code="unknown_model", param="model") from error
