"""A variant is a method with its knobs, as an experiment compares it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method with its knobs, to be trained, or only asked otherwise, with each seed."""

    label: str
    """The method and its knobs, as the table has them."""
    family: str
    """What the variants have in common of which the validation problems choose one."""
    value: str
    """What tells the variant from the others of its family; empty where it is alone."""
    trained: bool
    """False: the model before training, with another prompt."""
