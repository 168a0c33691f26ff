"""Types that `Http` decodes replies into, limited to the fields that are used.

Strings are `ServerText`, so that none reaches a message unredacted. Only a model's input and output are `str`.
"""

from __future__ import annotations

from msgspec import Raw, Struct, field

from tts_tui.backends.remote.untrusted import ServerText
from tts_tui.protocols import TokenCount, TokenId

# -- SGLang ------------------------------------------------------------------------------------------------------------


class Model(Struct):
    """The served model, as returned by `/model_info`."""

    model_path: ServerText
    model_type: ServerText | None = None
    tokenizer_path: ServerText | None = None
    architectures: list[ServerText] | None = None
    is_generation: bool | None = None


class ServerSettings(Struct):
    """A server's settings and the limits derived from them, as returned by `/server_info`."""

    version: ServerText | None = None
    dtype: ServerText | None = None
    context_length: int | None = None
    max_req_input_len: int | None = None
    max_running_requests: int | None = None
    max_total_num_tokens: int | None = None
    page_size: int | None = None
    is_embedding: bool | None = None
    disable_radix_cache: bool | None = None
    enable_return_hidden_states: bool | None = None
    enable_return_aux_hidden_states: bool | None = None
    speculative_algorithm: ServerText | None = None


class TokenIds(Struct):
    """Token ids of a text or a chat, as returned by `/tokenize` (SGLang and vLLM)."""

    tokens: list[TokenId]
    max_model_len: int | None = None


class Texts(Struct):
    """Texts of several sequences of token ids, as returned by `/detokenize`."""

    text: list[str]


class Worker(Struct):
    """A server behind a router."""

    url: ServerText | None = None
    is_healthy: bool | None = None


class Workers(Struct):
    """All servers behind a router, as returned by `/workers`."""

    workers: list[Worker]


class WorkerList(Struct):
    """All servers behind an older router, as returned by `/list_workers`."""

    urls: list[ServerText]


class Memory(Struct):
    """A server's memory usage: the size of the weights in GiB."""

    weight_gb: float | None = None


class Load(Struct):
    """The load of one part of a server."""

    num_running_reqs: int = 0
    memory: Memory | None = None


class Loads(Struct):
    """The load of all parts of a server, as returned by `/v1/loads`."""

    loads: list[Load]


class ReplyTokenCounts(Struct):
    """Token counts of a request so far; decoding fails if more tokens are cached than the prompt has."""

    prompt_tokens: TokenCount = 0
    cached_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0

    def __post_init__(self) -> None:
        if self.cached_tokens > self.prompt_tokens:
            raise ValueError("more tokens are cached than the prompt has")


class Counts(ReplyTokenCounts):
    """Token counts of a request, with the hidden states or log-probabilities that were requested."""

    hidden_states: list[list[list[float] | float]] | None = None
    output_token_ids_logprobs: list[list[tuple[float, int, Raw]]] | None = None


class Generated(Struct):
    """The reply to a request to `/generate` that is not a stream."""

    meta_info: Counts


class Embedding(Struct):
    """The outputs of a model's head for one input."""

    embedding: list[float]


class EmbeddingUsage(Struct):
    """Token counts of a request to `/v1/embeddings`."""

    prompt_tokens: TokenCount = 0


class Embeddings(Struct):
    """The outputs for each input, as returned by `/v1/embeddings`."""

    data: list[Embedding]
    usage: EmbeddingUsage = field(default_factory=EmbeddingUsage)


# -- OpenAI's protocol -------------------------------------------------------------------------------------------------


class ServedMeta(Struct):
    """The context lengths that llama.cpp reports for a model."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None


class Named(Struct):
    """A listed model of which only the id could be decoded."""

    id: ServerText


class Served(Named):
    """A listed model; which fields are set depends on the server."""

    root: ServerText | None = None
    max_model_len: int | None = None
    context_length: int | None = None
    meta: ServedMeta | None = None


class Listed(Struct):
    """All models of a server, as returned by `/v1/models`; each is decoded separately."""

    data: list[Raw]


class ChatText(Struct):
    """A model's input as text, as returned by `/detokenize` and `/apply-template`."""

    text: str | None = None
    prompt: str | None = None
