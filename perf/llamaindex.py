"""LlamaIndex's part of peers.py, which runs it in an environment of its own: texts from a file, one JSON line out."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import chromadb
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.chroma import ChromaVectorStore

from penstock.pipeline.embedding import EmbeddingOptions, open_embedder

EMBED_BATCH = 256
AT_ONCE = 200  # documents: its Chroma store refuses more than 5,461 chunks in one run


class SameEmbedder(BaseEmbedding):
    """Penstock's embedder behind LlamaIndex's interface, whose vectors are lists."""

    def __init__(self, model: str) -> None:
        super().__init__(embed_batch_size=EMBED_BATCH)
        self._embedder = open_embedder(model, EmbeddingOptions(threads=1))

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed_passages(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.embed_query(query).reshape(-1).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory(prefix="penstock-peers-") as folder:
        collection = chromadb.PersistentClient(folder).create_collection("perf")
        pipeline = IngestionPipeline(
            transformations=[
                SentenceSplitter(chunk_size=given["chunk_tokens"], chunk_overlap=given["overlap_tokens"]),
                SameEmbedder(given["model"]),
            ],
            docstore=SimpleDocumentStore(),
            docstore_strategy=DocstoreStrategy.UPSERTS,
            cache=IngestionCache(),
            vector_store=ChromaVectorStore(chroma_collection=collection),
        )
        first_s = timed(pipeline, given["first"])
        chunks = collection.count()
        again_s = timed(pipeline, given["again"])
    versions = " ".join(f"{name} {version(name)}" for name in ("llama-index-core", "chromadb"))
    print(json.dumps({"chunks": chunks, "first_s": first_s, "again_s": again_s, "versions": versions}))


def timed(pipeline: Any, texts: Sequence[str]) -> float:
    documents = [Document(text=text, id_=f"text-{number}") for number, text in enumerate(texts)]
    began = time.perf_counter()
    for first in range(0, len(documents), AT_ONCE):
        pipeline.run(documents=documents[first : first + AT_ONCE], show_progress=False)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
