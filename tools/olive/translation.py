"""A whole Olive configuration, section by section."""

from dataclasses import dataclass
from pathlib import Path

from tools.olive import azure, data, evaluators, machine, model, passes, provider
from tools.olive.document import Object, leaves, section
from tools.olive.fate import EMPTY, JOB, Fate, Kind, Line, Value, refused, ruled, values_of

SECTIONS = {  # of Olive's that may be missing, and what then stays as conf/config.yaml has it
    "input_model": "base_model",
    "data_configs": "data",
    "passes": "all stages and their parameters",
}


TESTED = "data.test_size: a share of the rows is kept for evaluate, and Olive trains on all; data.test_files brings others"


@dataclass(frozen=True)
class Translation:
    """An experiment, and the account of it.

    Attributes:
        lines: the fate of each field.
        values: what the experiment sets.
        target: the stage at which it stops; empty for the whole graph.
        absent: what stays as conf/ has it, since the configuration says nothing.
    """

    lines: list[Line]
    values: list[Value]
    target: str
    absent: list[str]

    @property
    def refused(self) -> list[Line]:
        """The fields that nothing here does."""
        return [line for line in self.lines if line.fate.kind is Kind.refused]


def translate(document: Object, folder: Path) -> Translation:
    """Reads all sections of a configuration.

    Args:
        document: the configuration.
        folder: where it lies, from which its paths start.

    Raises:
        InputError: a type that Olive does not have, or a file that is not there.
    """
    named, place = provider.providers_of(document)
    steps = passes.steps(document, provider.known(named[0]))
    lines: list[Line] = []
    values: list[Value] = []
    if "input_model" in document:
        lines += model.lines(section(document["input_model"], "input_model"), folder)
    if document.get("data_configs"):
        of_data, values = data.parts(document["data_configs"], users(document), folder)
        lines += of_data
    lines += steps.lines
    lines += machine.lines(document, place, provider.provider_fate(named, passes.builds(document)))
    if "azureml_client" in document:
        client = leaves(document["azureml_client"], "azureml_client", ("azureml_client",))
        lines += ruled(client, azure.client_rules("azureml_client", JOB), "Azure's client has its own")
    lines = settled([*lines, *evaluators.lines(document.get("evaluators") or {})])
    lines += unread(document, lines)
    values += azure.shared_workspace(document, {value.key for value in values_of(lines)})
    absent = [f"{name}: absent, conf/config.yaml keeps {kept}" for name, kept in SECTIONS.items() if not document.get(name)]
    absent += [TESTED] * bool(document.get("data_configs"))
    return Translation(lines, [*values_of(lines), *values, *steps.values], steps.target, absent)


def settled(lines: list[Line]) -> list[Line]:
    """The same lines; a field whose key a later one sets to another value is not supported, for the later one counts."""
    setters = {key: line for line in lines for key in line.fate.values}

    def fate(line: Line) -> Fate:
        others = [setters[key] for key, value in line.fate.values.items() if setters[key].fate.values[key] != value]
        return refused(f"{others[0].leaf.path} sets the same, and counts") if others else line.fate

    return [Line(line.leaf, fate(line)) for line in lines]


def unread(document: Object, lines: list[Line]) -> list[Line]:
    """The fields that no section has told of, for they are empty."""
    told = {line.leaf.path for line in lines}
    return [Line(leaf, EMPTY) for leaf in leaves(document, "") if leaf.path not in told]


def users(document: Object) -> data.Users:
    """Which data configuration is used for what."""
    fields = list(leaves(document.get("passes", {}), "passes"))
    fields += leaves(document.get("evaluators") or {}, "evaluators")

    def named(ending: str, place: str) -> list[str]:
        return [leaf.value for leaf in fields if leaf.name.endswith(ending) and leaf.path.startswith(place)]

    training, validation = named(".train_data_config", "passes"), named(".eval_data_config", "passes")
    return data.Users(next(iter(training), None), next(iter(validation), None), tuple(named(".data_config", "evaluators")))
