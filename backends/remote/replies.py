"""What servers answer, as far as it is used: types that `Http` decodes replies into.

Strings are `ServerText`, so that none reaches a message as it came. Only what a model wrote or is to read is `str`.
"""

from __future__ import annotations

from msgspec import Raw, Struct, field

from tts_tui.backends.remote.untrusted import ServerText
from tts_tui.protocols import TokenCount, TokenId

# -- SGLang ------------------------------------------------------------------------------------------------------------


class Model(Struct):
    """What is served: `/model_info`."""

    model_path: ServerText
    model_type: ServerText | None = None
    tokenizer_path: ServerText | None = None
    architectures: list[ServerText] | None = None
    is_generation: bool | None = None


class Settings(Struct):
    """How a server was started, and what follows from it: `/server_info`."""

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


class Tokens(Struct):
    """Token ids of a text or a chat: `/tokenize`, also of vLLM."""

    tokens: list[TokenId]
    max_model_len: int | None = None


class Texts(Struct):
    """Texts of several sequences of token ids: `/detokenize`."""

    text: list[str]


class Worker(Struct):
    """A server behind a router."""

    url: ServerText | None = None
    is_healthy: bool | None = None


class Workers(Struct):
    """All servers behind a router: `/workers`."""

    workers: list[Worker]


class WorkerList(Struct):
    """All servers behind an older router: `/list_workers`."""

    urls: list[ServerText]


class Memory(Struct):
    """What a server keeps in memory."""

    weight_gb: float | None = None


class Load(Struct):
    """What a server is doing."""

    num_running_reqs: int = 0
    memory: Memory | None = None


class Loads(Struct):
    """What all parts of a server are doing: `/v1/loads`."""

    loads: list[Load]


class TokenCounts(Struct):
    """Tokens of a request so far."""

    prompt_tokens: TokenCount = 0
    cached_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0

    def __post_init__(self) -> None:
        if self.cached_tokens > self.prompt_tokens:
            raise ValueError("more tokens are cached than the prompt has")


class Counts(TokenCounts):
    """Tokens of a request, and what else was asked for."""

    hidden_states: list[list[list[float] | float]] | None = None
    output_token_ids_logprobs: list[list[tuple[float, int, Raw]]] | None = None


class Generated(Struct):
    """The answer to a request to `/generate` that is no stream."""

    meta_info: Counts


class Embedding(Struct):
    """The outputs of a model with a head."""

    embedding: list[float]


class EmbeddingUsage(Struct):
    """Tokens of a request for outputs."""

    prompt_tokens: TokenCount = 0


class Embeddings(Struct):
    """Outputs for each input: `/v1/embeddings`."""

    data: list[Embedding]
    usage: EmbeddingUsage = field(default_factory=EmbeddingUsage)


# -- OpenAI's protocol -------------------------------------------------------------------------------------------------


class ServedMeta(Struct):
    """What llama.cpp says of a model."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None


class Named(Struct):
    """A model in a list, of which nothing else is understood."""

    id: ServerText


class Served(Named):
    """A model in a list."""

    root: ServerText | None = None
    max_model_len: int | None = None
    context_length: int | None = None
    meta: ServedMeta | None = None


class Listed(Struct):
    """All models of a server: `/v1/models`."""

    data: list[Raw]


class ChatText(Struct):
    """A text that a model is to read: `/detokenize` and `/apply-template`."""

    text: str | None = None
    prompt: str | None = None
