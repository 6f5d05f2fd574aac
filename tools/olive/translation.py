"""Maps a whole Olive configuration, section by section."""

from dataclasses import dataclass
from pathlib import Path

from tools.olive import data, engine, model, passes, places
from tools.olive.document import Object, leaves, section
from tools.olive.mapping import (
    EMPTY,
    EMPTY_VALUES,
    JOB,
    FieldMapping,
    MappedField,
    Status,
    Value,
    covered,
    map_fields,
    unsupported,
    values_of,
)

SECTIONS = {  # that may be missing, and what conf/config.yaml then determines
    "input_model": "base_model",
    "data_configs": "data",
    "passes": "all stages and their parameters",
}
OWN_ROWS = covered("data.validation_files")


@dataclass(frozen=True)
class Translation:
    """The result of mapping a configuration.

    Attributes:
        fields: all fields with their mappings.
        values: of the experiment.
        target: the last stage; empty for the whole graph.
        notes: what the configuration does not determine.
    """

    fields: list[MappedField]
    values: list[Value]
    target: str
    notes: list[str]

    @property
    def unsupported(self) -> list[MappedField]:
        return [field for field in self.fields if field.mapping.status is Status.unsupported]


def translate(document: Object, folder: Path) -> Translation:
    """Maps all sections of a configuration.

    Args:
        document: the configuration.
        folder: of the configuration, to which its paths are relative.

    Raises:
        InputError: an unknown type of model or system, or a value that cannot be used.
    """
    whole, document = document, {name: value for name, value in document.items() if value not in EMPTY_VALUES}
    providers, provider_path = engine.providers_of(document)
    steps = passes.map_passes(document, engine.supported(providers[0]))
    fields: list[MappedField] = []
    values: list[Value] = []
    notes = [f"{name}: missing, conf/config.yaml determines {kept}" for name, kept in SECTIONS.items() if name not in document]
    if "input_model" in document:
        fields += model.map_model(section(document["input_model"], "input_model"), folder)
    if "data_configs" in document:
        rows = data.map_data(document["data_configs"], users(document, steps.trains), folder)
        fields, values, notes = fields + rows.fields, rows.values, notes + rows.notes
    own_validation = any("data.validation_files" in field.mapping.values for field in fields)
    is_validation = [own_validation and field.leaf.name.endswith("eval_data_config") for field in steps.fields]
    fields += [
        MappedField(field.leaf, OWN_ROWS) if own else field for field, own in zip(steps.fields, is_validation, strict=True)
    ]
    fields += engine.map_machines(document, provider_path, engine.provider_mapping(providers, steps.builds))
    if "azureml_client" in document:
        client = leaves(document["azureml_client"], "azureml_client", ("azureml_client",))
        fields += map_fields(client, places.client_rules("azureml_client", JOB), "Azure's client has its own")
    fields = without_overridden([*fields, *engine.map_evaluators(document.get("evaluators", {}))])
    fields += empty_fields(whole, fields)
    values = [*values_of(fields), *values, *steps.values]
    values += places.shared_workspace(document, {value.key for value in values})
    notes += [field.mapping.note for field in fields if field.mapping.note]
    return Translation(fields, values, steps.target, notes)


def without_overridden(fields: list[MappedField]) -> list[MappedField]:
    """The fields; those whose key a later field sets to another value become unsupported."""
    setters = {key: field for field in fields for key in field.mapping.values}

    def mapping(field: MappedField) -> FieldMapping:
        others = [setters[key] for key, value in field.mapping.values.items() if setters[key].mapping.values[key] != value]
        return unsupported(f"overridden by {others[0].leaf.path}") if others else field.mapping

    return [MappedField(field.leaf, mapping(field)) for field in fields]


def empty_fields(document: Object, fields: list[MappedField]) -> list[MappedField]:
    """The fields that no section has mapped, because they are empty."""
    paths = {field.leaf.path for field in fields}
    return [MappedField(leaf, EMPTY) for leaf in leaves(document, "") if leaf.path not in paths]


def users(document: Object, trains: bool | None) -> data.Users:
    """The uses of the data configurations.

    Args:
        document: the configuration.
        trains: whether a pass trains; None without passes.
    """
    fields = [leaf for name in ("passes", "evaluators") for leaf in leaves(document.get(name, {}), name)]

    def names(ending: str, path: str = "") -> list[str]:
        return [str(leaf.value) for leaf in fields if leaf.name.endswith(ending) and leaf.path.startswith(path)]

    training, validation = names(".train_data_config", "passes"), names(".eval_data_config", "passes")
    evaluation = names(".data_config", "evaluators")
    others = set(names("data_config")) - {*training, *validation, *evaluation}
    return data.Users(next(iter(training), None), next(iter(validation), None), tuple(evaluation), tuple(others), trains)
