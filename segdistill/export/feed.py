"""What a file has to say of classes and input, in whatever file it stands."""

from collections.abc import Mapping
from typing import Any

from segdistill.data.taxonomy import Taxonomy
from segdistill.normalisation import Normalisation


def to_values(taxonomy: Taxonomy, normalisation: Normalisation) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "class_names": taxonomy.names,
        "class_colours": taxonomy.colours,
        "ignore_index": taxonomy.ignore_index,
        "mean": normalisation.mean,
        "std": normalisation.std,
    }


def from_values(values: Mapping[str, Any]) -> tuple[Taxonomy, Normalisation]:
    """The other way round.

    Raises:
        KeyError: for what is missing.
        ValueError: if they do not fit together.
    """
    names, colours = values["class_names"], values["class_colours"]
    if len(names) != len(colours):
        raise ValueError(f"it has {len(names)} class names and {len(colours)} colours")
    taxonomy = Taxonomy(
        tuple(names), tuple((red, green, blue) for red, green, blue in colours), values["ignore_index"]
    )
    return taxonomy, Normalisation(tuple(values["mean"]), tuple(values["std"]))
