"""Where a model is that a job asks: a reference that several kinds share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from espalier_api.common import Endpoint, Rule
from espalier_api.meta import Model
from espalier_api.modelserver import ModelServerSpec

MAX_TOKENS = "Bound of one answer, in tokens."
TEMPERATURE = "0 always takes the likeliest token."
_ONE_MODEL_NAME = Rule(
    rule="!has(self.model) || !has(self.endpoint)",
    message="an endpoint's model stands in endpoint.model: remove model",
)


class ServerRef(Model):
    """Where a model is: an existing server, or any endpoint."""

    model_server: str | None = Field(
        default=None, max_length=253, description="Name of a ModelServer of this namespace."
    )
    endpoint: Endpoint | None = None
    model: str | None = Field(
        default=None, max_length=253, description="Which of the server's models; default its first."
    )
    max_tokens: int = Field(default=800, ge=16, le=8192, description=MAX_TOKENS)
    temperature: float = Field(default=0.1, ge=0, le=2, description=TEMPERATURE)
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Sent with every call, for answers that repeat.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="has(self.modelServer) != has(self.endpoint)",
            message="this model reference needs either modelServer or endpoint",
        ),
        _ONE_MODEL_NAME,
    )


class ModelRef(ServerRef):
    """Where a model is: an existing server, a template of one for the life of the job, or any endpoint."""

    template: ModelServerSpec | None = Field(
        default=None, description="A ModelServer that the job itself puts on the Macs."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="[has(self.modelServer), has(self.template), has(self.endpoint)].filter(x, x).size() == 1",
            message="a model reference needs exactly one of modelServer, template or endpoint",
        ),
        Rule(
            rule="!has(self.template) || self.template.replicas > 0",
            message="a template with replicas 0 never answers: set template.replicas to 1 or more",
        ),
        _ONE_MODEL_NAME,
        Rule(
            rule="!has(self.model) || !has(self.template) || self.template.models.exists(m, m.name == self.model)",
            message="model names none of template.models",
        ),
    )


def template_of(ref: ServerRef) -> ModelServerSpec | None:
    """The server that the job itself makes, if it does."""
    return ref.template if isinstance(ref, ModelRef) else None
