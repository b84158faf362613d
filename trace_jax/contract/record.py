"""The base of every record that crosses a stage boundary."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, field_validator


class Part(BaseModel):
    """A value inside a record: immutable, strict about types, and closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def replace(self, **changes: Any) -> Self:
        """A validated copy with ``changes`` applied."""
        return type(self).model_validate({**dict(self), **changes})


class Record(Part):
    """A record that is written to a file. A reader knows one schema version, the default of the field."""

    schema_version: int = 1

    # A "before" validator of the whole model would turn JSON into Python objects, whose lists strict mode refuses.
    @field_validator("schema_version", mode="before")
    @classmethod
    def _known_version(cls, found: Any) -> Any:
        if found != cls.version():
            raise ValueError(
                f"{cls.__name__} has schema_version {found!r}; this build reads {cls.version()}: "
                "use the build that wrote it, or start a new work directory"
            )
        return found

    @classmethod
    def version(cls) -> int:
        """The one schema version that this build reads and writes."""
        version: int = cls.model_fields["schema_version"].default
        return version
