"""Providers by the names that other gateways give them: which adapter serves them, where, and in which variable their key
usually is.

Addresses are those of the vendors' own pages on OpenAI compatibility, as of November 2026; ``names`` are globs of the names
of their models, where the vendor is known by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from ..rules.problems import looks_like_key


class Vendor(Struct, frozen=True):
    """A provider that an adapter serves. ``base_url`` None: the adapter knows it; "": only the configuration does.

    ``variable`` is where its key usually is, ``source`` the vendor's page that says so.
    """

    name: str
    base_url: str | None
    variable: str
    source: str
    names: tuple[str, ...] = ()
    adapter: str = "openai"


_ALL: Final = (
    Vendor(
        "openai",
        None,
        "OPENAI_API_KEY",
        "https://platform.openai.com/docs/api-reference",
        names=(
            "gpt-*",
            "chatgpt-*",
            "o1*",
            "o3*",
            "o4*",
        ),
    ),
    Vendor(
        "anthropic",
        None,
        "ANTHROPIC_API_KEY",
        "https://docs.claude.com/en/api/overview",
        names=("claude-*",),
        adapter="anthropic",
    ),
    Vendor("azure", "", "AZURE_API_KEY", "https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle"),
    Vendor(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        "https://ai.google.dev/gemini-api/docs/openai",
        names=("gemini-*",),
    ),
    Vendor("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "https://openrouter.ai/docs/quickstart"),
    Vendor("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", "https://console.groq.com/docs/openai"),
    Vendor(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        "https://docs.mistral.ai/api/",
        names=(
            "mistral-*",
            "codestral-*",
            "devstral-*",
            "magistral-*",
            "ministral-*",
        ),
    ),
    Vendor("codestral", "https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY", "https://docs.mistral.ai/api/"),
    Vendor(
        "deepseek",
        "https://api.deepseek.com/v1",
        "DEEPSEEK_API_KEY",
        "https://api-docs.deepseek.com/",
        names=("deepseek-*",),
    ),
    Vendor(
        "together",
        "https://api.together.xyz/v1",
        "TOGETHER_API_KEY",
        "https://docs.together.ai/docs/openai-api-compatibility",
    ),
    Vendor(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
    ),
    Vendor("xai", "https://api.x.ai/v1", "XAI_API_KEY", "https://docs.x.ai/docs/api-reference", names=("grok-*",)),
    Vendor(
        "moonshot",
        "https://api.moonshot.ai/v1",
        "MOONSHOT_API_KEY",
        "https://platform.moonshot.ai/docs",
        names=(
            "kimi-*",
            "moonshot-*",
        ),
    ),
    Vendor(
        "perplexity",
        "https://api.perplexity.ai",
        "PERPLEXITYAI_API_KEY",
        "https://docs.perplexity.ai/",
        names=("sonar*",),
    ),
    Vendor(
        "cerebras",
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        "https://inference-docs.cerebras.ai/resources/openai",
    ),
    Vendor("nvidia", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY", "https://docs.api.nvidia.com/nim/"),
    Vendor(
        "deepinfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", "https://deepinfra.com/docs/openai_api"
    ),
    Vendor("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", "https://docs.sambanova.ai/"),
    Vendor(
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        "https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope",
        names=("qwen-*",),
    ),
    Vendor(
        "volcengine",
        "https://ark.cn-beijing.volces.com/api/v3",
        "VOLCENGINE_API_KEY",
        "https://www.volcengine.com/docs/82379",
        names=("doubao-*",),
    ),
    Vendor("ollama", "http://127.0.0.1:11434/v1", "", "https://ollama.com/blog/openai-compatibility"),
    Vendor("lm-studio", "http://127.0.0.1:1234/v1", "", "https://lmstudio.ai/docs/app/api/endpoints/openai"),
    Vendor("vllm", "", "", "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"),
    Vendor("llamafile", "http://127.0.0.1:8080/v1", "", "https://github.com/Mozilla-Ocho/llamafile"),
    Vendor("litellm", "", "LITELLM_PROXY_API_KEY", "https://docs.litellm.ai/docs/providers/litellm_proxy"),
)
_BY_NAME: Final[Mapping[str, Vendor]] = {vendor.name: vendor for vendor in _ALL}
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "custom_openai": "openai",
    "openai_like": "openai",
    "azure_openai": "azure",
    "google": "gemini",
    "mistral_ai": "mistral",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "x_ai": "xai",
    "perplexity_ai": "perplexity",
    "nvidia_nim": "nvidia",
    "ollama_chat": "ollama",
    "lm_studio": "lm-studio",
    "lmstudio": "lm-studio",
    "hosted_vllm": "vllm",
    "litellm_proxy": "litellm",
}
_LOCAL: Final = ("ollama", "lm-studio", "llamafile")
_FAMILIES: Final = ("openai", "anthropic")
_ENDPOINTS: Final = re.compile(r"/(?:chat/completions|v1/messages|messages|completions|responses)$")
_HOST: Final = re.compile(r"[A-Za-z0-9._\[\]:-]+")


def vendor_named(name: str) -> Vendor | None:
    """Return the provider that another gateway calls ``name``, or None if no adapter serves it."""
    folded = name.strip().lower().replace("-", "_").replace(".", "_")
    return _BY_NAME.get(_OTHER_NAMES.get(folded, folded)) or _BY_NAME.get(folded.replace("_", "-"))


def vendor_of_model(model: str) -> Vendor | None:
    """Return the provider that a model's name alone tells: OpenAI or Anthropic."""
    for family in _FAMILIES:
        vendor = _BY_NAME[family]
        if any(model.startswith(glob.rstrip("*")) for glob in vendor.names):
            return vendor
    return None


def vendor_within(text: str) -> Vendor | None:
    """Return the provider whose name stands in ``text``, such as a key's name; the longest name counts."""
    folded = text.lower().replace("_", "-")
    found = [name for name in (*_BY_NAME, *_OTHER_NAMES) if name.replace("_", "-") in folded]
    return vendor_named(max(found, key=len)) if found else None


def base_url_for(vendor: Vendor, address: str) -> str | None:
    """Return an address as another gateway takes it in the spelling of our adapter; None if it is no address.

    One with a user, a password, a query or a key in it is none.
    """
    text = address.strip()
    if looks_like_key(text):
        return None
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port  # a bad port raises on being read
    except ValueError:
        return None
    is_azure = vendor.name == "azure" or (vendor.adapter == "openai" and (host or "").endswith(".openai.azure.com"))
    if is_azure:
        parts = parts._replace(query="")  # an old address names its deployment and version
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        return None
    if not _HOST.fullmatch(parts.netloc) or not parts.path.isascii() or not re.fullmatch(r"[!-~]*", parts.path):
        return None
    path = _ENDPOINTS.sub("", parts.path.rstrip("/")).rstrip("/")
    if vendor.adapter == "anthropic":
        path = path.removesuffix("/v1")
    elif is_azure:
        path = re.sub(r"/openai(?:/v1|/deployments(?:/[^/]+)?)?$", "", path) + "/openai/v1"
    elif vendor.name == "gemini":
        path = re.sub(r"(?:/openai|/models)$", "", path) or "/v1beta"
        path += "/openai"
    elif vendor.name in _LOCAL:
        path = path or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_loopback(address: str | None) -> bool:
    """Whether an address is on this machine."""
    try:
        host = urlsplit(address or "").hostname or ""
    except ValueError:
        return False
    return host in ("localhost", "::1") or host.startswith("127.")


NOT_SERVED: Final[Mapping[str, str]] = {
    "bedrock": "AWS Bedrock signs its requests, and no adapter does",
    "bedrock_converse": "AWS Bedrock signs its requests, and no adapter does",
    "sagemaker": "AWS SageMaker signs its requests, and no adapter does",
    "sagemaker_chat": "AWS SageMaker signs its requests, and no adapter does",
    "vertex_ai": "Vertex AI wants tokens of a service account, which no adapter fetches",
    "vertex_ai_beta": "Vertex AI wants tokens of a service account, which no adapter fetches",
    "vertex": "Vertex AI wants tokens of a service account, which no adapter fetches",
}


def why_not_served(name: str) -> str:
    """Return why no adapter serves the provider that another gateway calls ``name``."""
    return NOT_SERVED.get(name.strip().lower().replace("-", "_"), f'no adapter serves the provider "{name}"')
