"""The ``model`` section of a task file: a family with its sizes, or layers written out.

What the data is (labels, values, tokens) decides what the model takes in and puts out; the section says
only how large it is. Guarantee: a size that the family does not have is an error, never ignored.

Source: design section 7 ("families on top").
"""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, model_validator

from offchain.models.families import build_family
from protocol.architecture import Architecture, Output
from protocol.errors import InvalidDocument


class DataForm(Protocol):
    """What a model must know of its data."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        ...

    @property
    def output(self) -> Output:
        """What is to be told."""
        ...

    @property
    def outputs(self) -> int:
        """Classes, tokens, or values of a regression."""
        ...

    @property
    def vocabulary(self) -> int | None:
        """How many token ids there are; none unless samples are tokens."""
        ...

    @property
    def about(self) -> dict[str, Any]:
        """What the numbers stand for; see `Samples.about`."""
        ...


SIZES: Final[dict[str, dict[str, str]]] = {
    "mlp": {"hidden": "hidden"},
    "cnn": {
        "channels": "channels",
        "hidden": "hidden",
        "dropout_permille": "dropout_permille",
    },
    "resnet": {"channels": "channels", "blocks": "blocks"},
    "lstm": {"features": "features", "depth": "layers", "cell": "cell"},
    "transformer": {
        "features": "features",
        "depth": "layers",
        "heads": "heads",
        "dropout_permille": "dropout_permille",
    },
}
"""Per family, the sizes a task file may give, and what `offchain.models.families` calls them."""
SEQUENCES: Final = ("lstm", "transformer")


class Part(BaseModel):
    """A section of a task file: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Part):
    """A family with its sizes, or a list of layers."""

    family: Literal["mlp", "cnn", "resnet", "lstm", "transformer"] | None = None
    hidden: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    blocks: int | None = None
    features: int | None = None
    depth: int | None = None
    heads: int | None = None
    cell: Literal["lstm", "gru"] | None = None
    dropout_permille: int | None = None
    layers: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Model:
        if (self.family is None) == (self.layers is None):
            raise ValueError("say either `family` or `layers`")
        known = SIZES[self.family] if self.family is not None else {}
        for name in self._given():
            if name not in known:
                whose = ", ".join(family for family, sizes in SIZES.items() if name in sizes)
                raise ValueError(f"`{name}` belongs to family {whose}")
        return self

    def _given(self) -> dict[str, Any]:
        return self.model_dump(exclude={"family", "layers"}, exclude_none=True)

    def architecture(self, data: DataForm) -> Architecture:
        """The architecture for this data.

        Raises:
            InvalidDocument: the model does not fit the data, or a size is out of bounds.
        """
        if self.family is None:
            return Architecture.model_validate(
                {"input_shape": data.input_shape, "output": data.output, "layers": self.layers}
            )
        sizes = {SIZES[self.family][name]: value for name, value in self._given().items()}
        if self.family in SEQUENCES:
            sizes["vocabulary"] = data.vocabulary
        elif data.vocabulary is not None:
            raise InvalidDocument(f"model: family {self.family} takes no tokens; use lstm or transformer")
        form = {"input_shape": data.input_shape, "outputs": data.outputs, "output": data.output}
        return build_family({"family": self.family, **form, **sizes})
