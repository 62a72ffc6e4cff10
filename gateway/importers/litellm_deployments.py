"""LiteLLM's deployments: what each entry of ``model_list`` says of a provider and of the model there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ..rules.problems import looks_like_key
from .draft import Draft, Upstream, is_name
from .source import Cursor
from .vendors import Vendor, vendor_named, vendor_of_model, why_not_served

MAX_RETRIES: Final = 10
_CHAT_MODES: Final = ("chat", "responses", "completion")


class Deployment(Struct, frozen=True, eq=False):
    """One entry of ``model_list``. ``model`` is the name at the provider, ``upstream`` all but what the group decides."""

    cursor: Cursor
    group: str
    vendor: Vendor
    model: str
    upstream: Upstream
    identity: str | None
    order: float | None
    weight: float | None
    rpm: float | None
    tpm: float | None
    retries: int | None


class Deployments:
    """Reads deployments; addresses that stand in variables are looked up in ``environment``."""

    def __init__(self, draft: Draft, environment: Mapping[str, str]) -> None:
        self._draft = draft
        self._environment = environment

    def read(self, cursor: Cursor) -> Deployment | None:
        """Return a deployment, or None if it cannot be served, which is reported."""
        if not cursor.is_table:
            cursor.leave("expected a mapping")
            return None
        name, params = cursor.get("model_name"), cursor.get("litellm_params")
        group = "" if name is None or name.is_table or name.is_items else str(name.value).strip()
        model = None if params is None else params.get("model")
        if params is None or model is None or model.is_table or model.is_items or not is_name(group):
            cursor.leave("it needs model_name and litellm_params.model, both texts")
            return None
        info = cursor.table("model_info")
        mode = None if info is None else info.get("mode")
        if mode is not None and mode.value not in _CHAT_MODES:
            cursor.leave(f"Headgate serves chat, not {_word(mode.value)}")
            return None
        provider = params.get("custom_llm_provider")
        vendor, called, why = _vendor(str(model.value).strip(), None if provider is None else str(provider.value))
        if vendor is None or not is_name(called):
            why = (
                why if vendor is None else "it names no model" if not called else "its name cannot stand in a rule file"
            )
            cursor.leave(why, "its model is without it")
            return None
        return self._known(cursor, group, vendor, called, params, info)

    def _known(
        self, cursor: Cursor, group: str, vendor: Vendor, called: str, params: Cursor, info: Cursor | None
    ) -> Deployment | None:
        base_url = self._draft.address(params.get("api_base", "base_url"), vendor, self._environment)
        if base_url == "":
            cursor.leave("nobody knows where it is: it has no api_base that is an address", "add it as an upstream")
            return None
        identity = None if info is None else info.get("id")
        mode = None if info is None else info.get("mode")
        for each in (cursor.get("model_name"), params.get("model"), params.get("custom_llm_provider"), mode, identity):
            if each is not None:
                each.carry()
        name = vendor.name
        headers = self._draft.headers(params.table("extra_headers"), name)
        organization = params.get("organization")
        if organization is not None and not (organization.is_table or organization.is_items):
            reference = self._draft.secret(organization, "OPENAI_ORGANIZATION", "the organization's id")
            headers.setdefault("openai-organization", reference)
        if (version := params.get("api_version")) is not None:
            version.leave("the provider's v1 address wants none")
        retries = params.number("num_retries") if params.get("num_retries") else params.number("max_retries")
        upstream = Upstream(
            adapter=vendor.adapter,
            base_url=base_url,
            key=self._draft.key(params.get("api_key"), vendor, group, base_url),
            headers=headers,
            timeout=seconds_of({"total": params.get("timeout"), "first_token": params.get("stream_timeout")}),
        )
        if upstream.key is None and params.get("api_key") is None and vendor.variable:
            upstream = replace(upstream, key=f"env:{vendor.variable}?")
        return Deployment(
            cursor,
            group,
            vendor,
            called,
            upstream,
            None if identity is None else str(identity.value),
            params.number("order"),
            _share(params, "weight"),
            _share(params, "rpm"),
            _share(params, "tpm"),
            None if retries is None else max(0, min(int(retries), MAX_RETRIES)),
        )


def _vendor(model: str, provider: str | None) -> tuple[Vendor | None, str, str]:
    """Return who serves ``model`` as LiteLLM names it, the name there, and why nobody does."""
    head, slash, rest = model.partition("/")
    if provider:
        vendor = vendor_named(provider)
        return vendor, rest if slash and vendor_named(head) is vendor else model, why_not_served(provider)
    if slash and (vendor := vendor_named(head)) is not None:
        return vendor, rest, ""
    if slash:
        return None, model, why_not_served(head if not looks_like_key(head) else "?")
    vendor = vendor_of_model(model)
    return vendor, model, "the model's name does not say which provider it is of"


def seconds_of(found: Mapping[str, Cursor | None]) -> dict[str, float]:
    """Return time-outs in seconds; what is none is reported."""
    seconds: dict[str, float] = {}
    for name, cursor in found.items():
        number = None if cursor is None else cursor.as_number()
        if cursor is None or number is None:
            continue
        if not 0 < number < 1e7:
            cursor.leave("no time that one could wait")
            continue
        seconds[name] = number
        if name == "total":
            cursor.change("it bounds the whole of an answer, a stream's too", "raise `total` if streams take longer")
    return seconds


def _share(params: Cursor, name: str) -> float | None:
    """Read a number that may become a weight; what becomes of it is said when the group is known."""
    found = params.get(name)
    if found is None or found.is_table or found.is_items:
        return None
    try:
        number = float(str(found.value))
    except ValueError:
        return None
    return number if 0 <= number < 1e12 else None


def _word(value: object) -> str:
    return str(value) if isinstance(value, str) and value.isidentifier() and not looks_like_key(value) else "this mode"
