"""What all sections of the configuration are made of.

Messages about a field that takes a list, or a section of any keys, show an example: its default, or where that is null
or empty the first of `Field(examples=[...])`. `Field(description=...)` says what such a list is of.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

# Strict numbers: YAML's `true` is no number and a quoted "3" is no integer.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]
PositiveInt = Annotated[Int, Field(ge=1)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegative = Annotated[Float, Field(ge=0)]
Share = Annotated[Float, Field(ge=0, le=1)]
PositiveShare = Annotated[Float, Field(gt=0, le=1)]
Byte = Annotated[Int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
Value = Annotated[Int, Field(ge=0, le=65535)]  # of a mask's pixel
Side = Annotated[Int, Field(ge=32)]
Size = tuple[Side, Side]


def _low_to_high(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[0] > scale[1]:
        raise ValueError("the first number is the smallest scale, the second the largest")
    return scale


Scales = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_low_to_high)]


class Section(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @property
    def unused(self) -> tuple[str, ...]:
        """Keys and sections below this one that have no effect beside its others: no number of a run depends on
        them."""
        return ()

    def all_unused(self) -> tuple[str, ...]:
        """The same of every section below it, too, each as a path from here."""
        below = ((name, value) for name, value in self if isinstance(value, Section))
        return (*self.unused, *(f"{name}.{key}" for name, section in below for key in section.all_unused()))
