"""Maps a whole Olive configuration, section by section."""

from dataclasses import dataclass
from pathlib import Path

from tools.olive import azure, data, evaluators, machine, model, passes
from tools.olive.document import Object, leaves, section
from tools.olive.mapping import EMPTY, JOB, FieldMapping, MappedField, Status, Value, map_fields, unsupported, values_of

SECTIONS = {  # that may be missing, and what conf/config.yaml then determines
    "input_model": "base_model",
    "data_configs": "data",
    "passes": "all stages and their parameters",
}


TEST_ROWS = "data.test_size: a share of the rows is kept for evaluate, while Olive trains on all; data.test_files uses other rows"


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
        InputError: an unknown type, or a file that does not exist.
    """
    providers, provider_path = machine.providers_of(document)
    steps = passes.map_passes(document, machine.supported(providers[0]))
    provider_mapping = machine.provider_mapping(providers, passes.builds(document))
    fields: list[MappedField] = []
    values: list[Value] = []
    if "input_model" in document:
        fields += model.map_model(section(document["input_model"], "input_model"), folder)
    if document.get("data_configs"):
        data_fields, values = data.map_data(document["data_configs"], users(document), folder)
        fields += data_fields
    fields += steps.fields
    fields += machine.map_machines(document, provider_path, provider_mapping)
    if "azureml_client" in document:
        client = leaves(document["azureml_client"], "azureml_client", ("azureml_client",))
        fields += map_fields(client, azure.client_rules("azureml_client", JOB), "Azure's client has its own")
    fields = without_overridden([*fields, *evaluators.map_evaluators(document.get("evaluators") or {})])
    fields += empty_fields(document, fields)
    values += azure.shared_workspace(document, {value.key for value in values_of(fields)})
    notes = [f"{name}: missing, conf/config.yaml determines {kept}" for name, kept in SECTIONS.items() if not document.get(name)]
    notes += [TEST_ROWS] * bool(document.get("data_configs"))
    return Translation(fields, [*values_of(fields), *values, *steps.values], steps.target, notes)


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


def users(document: Object) -> data.Users:
    """The uses of the data configurations."""
    fields = list(leaves(document.get("passes", {}), "passes"))
    fields += leaves(document.get("evaluators") or {}, "evaluators")

    def names(ending: str, path: str) -> list[str]:
        return [leaf.value for leaf in fields if leaf.name.endswith(ending) and leaf.path.startswith(path)]

    training, validation = names(".train_data_config", "passes"), names(".eval_data_config", "passes")
    return data.Users(next(iter(training), None), next(iter(validation), None), tuple(names(".data_config", "evaluators")))
