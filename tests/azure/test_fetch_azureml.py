"""fetch from Azure ML: models of a registry and a workspace, in each layout, whole or not at all."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from stages.fetch.registered_model import RECORD
from stages.fetch.stage import Config, fetch
from tests.azure.azurite import ACCOUNT, Azurite
from tests.azure.cloud import Answer, Cloud, Request, forward
from tests.azure.machine_learning import CONTAINER, GROUP, REGISTRY, STORE, SUBSCRIPTION, URI, WORKSPACE, MachineLearning, model
from tests.clone import Clone
from tests.stages.outputs import hashes, started
from tests.stages.params import write_params
from tunepress.config.base_model import BaseModel, Source
from tunepress.core.errors import InputError

BLOBS = f"https://{ACCOUNT}.blob.core.windows.net/{CONTAINER}"
SHARED: dict[str, Any] = {"registry_name": REGISTRY}
OWN: dict[str, Any] = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "workspace_name": WORKSPACE}


def base_model(**fields: Any) -> BaseModel:
    fields_set: dict[str, Any] = {"name": "phi", "license": "mit", "source": Source.azureml, "version": "11"}
    return BaseModel(**fields_set | SHARED | fields)


def refusal(chosen: BaseModel, folder: Path) -> str:
    """The one line that fetch refuses a model with; an earlier output stays."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("earlier")
    with pytest.raises(InputError) as refused:
        fetch(chosen, 0, folder)
    assert "\n" not in str(refused.value)
    assert [path.name for path in folder.parent.glob("*base*")] == ["base"]
    assert (folder / "config.json").read_text() == "earlier"
    return str(refused.value)


class Registered:
    """The files of a model in the registry and, the same, in the workspace."""

    def __init__(self, storage: Azurite, service: MachineLearning, folder: str) -> None:
        self.storage, self.folder = storage, folder
        service.shared_models["phi", "11"] = model(f"{BLOBS}/{folder}")
        service.models["phi", "11"] = model(f"{URI}/datastores/{STORE}/paths/{folder}")

    def put(self, path: str, content: bytes) -> None:
        self.storage.upload(CONTAINER, f"{self.folder}/{path}", content)


@pytest.fixture
def registered(storage: Azurite, machine_learning: MachineLearning, request: pytest.FixtureRequest) -> Registered:
    return Registered(storage, machine_learning, f"{request.node.name.replace('[', '-').replace(']', '')}/phi")


def put_model(registered: Registered, tiny: Path, weights: str, tokenizer: str, config: str) -> None:
    """Spreads a model over the folders of a layout."""
    for file in tiny.iterdir():
        place = tokenizer if "token" in file.name else config if file.suffix == ".json" else weights
        registered.put(f"{place}{file.name}", file.read_bytes())


# layouts


@pytest.mark.parametrize(
    ("place", "weights", "tokenizer", "config", "mlmodel"),
    [
        (SHARED, "model/", "components/tokenizer/", "model/", "MLmodel"),
        (OWN, "top/data/model/", "top/data/tokenizer/", "top/data/config/", "top/MLmodel"),
        (SHARED, "data/model/", "data/model/", "data/model/", "MLmodel"),
        (OWN, "", "", "", None),
        (SHARED, "top/", "top/", "top/", None),
    ],
    ids=["transformers", "hftransformersv2", "in_one_folder", "plain", "plain_below"],
)
def test_each_layout_gives_the_same_model(
    place: dict[str, Any],
    weights: str,
    tokenizer: str,
    config: str,
    mlmodel: str | None,
    registered: Registered,
    tiny_phi3: Path,
    tmp_path: Path,
) -> None:
    put_model(registered, tiny_phi3, weights, tokenizer, config)
    if mlmodel:
        registered.put(mlmodel, b"flavors: {}")
    fetch(base_model(**{"registry_name": None} | place), 0, tmp_path / "base")
    written = hashes(tmp_path / "base")
    recorded = json.loads((tmp_path / "base" / RECORD).read_text())
    del written[RECORD]
    assert written == hashes(tiny_phi3)
    assert recorded == place | {
        "name": "phi",
        "version": "11",
        "sha256": dict(sorted(written.items())),
    }


def test_a_name_may_have_a_slash_as_the_seed_s_has(
    registered: Registered, machine_learning: MachineLearning, tiny_phi3: Path, tmp_path: Path
) -> None:
    put_model(registered, tiny_phi3, "", "", "")
    machine_learning.shared_models["microsoft/Phi-3", "11"] = machine_learning.shared_models.pop(("phi", "11"))
    fetch(base_model(name="microsoft/Phi-3"), 0, tmp_path / "base")
    assert hashes(tmp_path / "base").items() >= hashes(tiny_phi3).items()


def test_code_pickles_and_a_neighbour_of_like_name_are_not_taken(registered: Registered, tiny_phi3: Path, tmp_path: Path) -> None:
    put_model(registered, tiny_phi3, "model/", "model/", "model/")
    for name in ("MLmodel", "model/modeling_phi3.py", "model/pytorch_model.bin", "model/training_args.bin", "conda.yaml"):
        registered.put(name, b"other")
    registered.storage.upload(CONTAINER, f"{registered.folder}-neighbour/MLmodel", b"other")  # Azure lists it: a prefix
    fetch(base_model(), 0, tmp_path / "base")
    assert hashes(tmp_path / "base").keys() == hashes(tiny_phi3).keys() | {RECORD}


def test_a_neighbour_of_like_name_is_never_taken_for_the_model(registered: Registered, tiny_phi3: Path, tmp_path: Path) -> None:
    put_model(registered, tiny_phi3, "top/", "top/", "top/")
    registered.storage.upload(CONTAINER, f"{registered.folder}-neighbour/MLmodel", b"other")
    message = refusal(base_model(), tmp_path / "base")
    assert "its path has several models (phi/phi/-neighbour, phi/phi/top); register one in a folder of its own" in message


def test_a_model_of_pickles_only_is_refused(registered: Registered, tmp_path: Path) -> None:
    for name in ("MLmodel", "model/config.json", "model/pytorch_model.bin"):
        registered.put(name, b"{}")
    message = refusal(base_model(), tmp_path / "base")
    assert message.startswith(
        f"model phi:11 of registry {REGISTRY}: only pickle weights (pytorch_model.bin), which can run code;"
    )


def test_what_is_no_model_is_refused(registered: Registered, tmp_path: Path) -> None:
    registered.put("model.joblib", b"{}")
    assert "has neither MLmodel nor config.json, so" in refusal(base_model(), tmp_path / "base")
    registered.put("config.json", b"{}")
    assert "no weights; register it" in refusal(base_model(), tmp_path / "base")


# not whole


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_was_uploaded_in_part_is_named(name: str, registered: Registered, tiny_phi3: Path, tmp_path: Path) -> None:
    put_model(registered, tiny_phi3, "", "", "")
    registered.put(name, (tiny_phi3 / name).read_bytes()[:-7])
    assert f"{name} is truncated or damaged" in refusal(base_model(), tmp_path / "base")


def test_weights_that_the_index_names_and_are_not_there_are_named(
    registered: Registered, tiny_phi3: Path, tmp_path: Path
) -> None:
    put_model(registered, tiny_phi3, "", "", "")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    registered.put("model.safetensors.index.json", json.dumps(index).encode())
    assert "model.safetensors.index.json names model-2.safetensors, which is missing" in refusal(base_model(), tmp_path / "base")


def test_a_connection_cut_in_the_middle_of_a_file_gives_no_model(
    registered: Registered, in_cloud: Cloud, storage: Azurite, tiny_phi3: Path, tmp_path: Path
) -> None:
    put_model(registered, tiny_phi3, "", "", "")

    def cut(request: Request) -> Answer:
        whole = forward(request, storage)
        return Answer(whole.status, whole.body[: len(whole.body) // 2], whole.headers | {"Connection": "close"})

    in_cloud.route("GET", f"{BLOBS}/{registered.folder}/model.safetensors", cut)
    message = refusal(base_model(), tmp_path / "base")
    assert message.startswith(f"model phi:11 of registry {REGISTRY}: no connection, or it was interrupted")
    in_cloud.routes.pop()
    fetch(base_model(), 0, tmp_path / "base")
    assert hashes(tmp_path / "base").items() >= hashes(tiny_phi3).items()


def test_a_kill_in_the_middle_of_a_download_leaves_no_model_and_the_next_run_is_whole(
    registered: Registered, in_cloud: Cloud, storage: Azurite, tiny_phi3: Path, tmp_path: Path
) -> None:
    put_model(registered, tiny_phi3, "", "", "")
    requested, killed = threading.Event(), threading.Event()

    def hold(request: Request) -> Answer:
        requested.set()
        killed.wait(60)
        return forward(request, storage)

    in_cloud.route("GET", f"{BLOBS}/{registered.folder}/model.safetensors", hold)
    write_params(Config(base_model(), 0), tmp_path)
    setup = f"import os; os.environ |= {in_cloud.environment}"
    first = started("fetch", tmp_path, before=setup)
    assert requested.wait(120)
    first.kill()
    first.communicate(timeout=10)
    killed.set()
    assert list((tmp_path / "models/.base.partial").rglob("config.json"))
    assert not (tmp_path / "models/base").exists()
    fetch(base_model(), 0, tmp_path / "models/base")
    assert hashes(tmp_path / "models/base").items() >= hashes(tiny_phi3).items()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["base"]


# what is asked for


def test_a_model_that_is_not_there_is_named(registered: Registered, tmp_path: Path) -> None:
    message = refusal(base_model(version="12"), tmp_path / "base")
    assert message.startswith(f"model phi:12 of registry {REGISTRY}: not found; check the names and the access of your account")


@pytest.mark.parametrize("version", ["latest", "11@latest", "labels/latest", ""])
def test_a_label_is_no_version(version: str, tmp_path: Path) -> None:
    assert refusal(base_model(version=version), tmp_path / "base") == (
        f"base_model.version: must be a version such as 11, not a label, which can move, got {version!r}"
    )


def test_a_registry_and_a_workspace_at_once_are_refused(tmp_path: Path) -> None:
    assert "base_model.registry_name: set either this or" in refusal(base_model(**OWN), tmp_path / "base")


def test_dvc_asks_azure_once(registered: Registered, in_cloud: Cloud, tiny_phi3: Path, root: Path, tmp_path: Path) -> None:
    put_model(registered, tiny_phi3, "", "", "")
    clone = Clone.of(root, tmp_path / "clone")
    fields = {".name": "phi", ".version": "11", **{f".{name}": value for name, value in OWN.items()}}
    chosen = [f"base_model{key}={value}" for key, value in {"": "azureml", **fields}.items()]
    assert clone.ran("dvc", "exp", "run", *(part for choice in chosen for part in ("-S", choice)), "fetch") == ["fetch"]
    assert hashes(clone.folder / "models/base").items() >= hashes(tiny_phi3).items()
    in_cloud.reachable = False
    assert clone.ran("dvc", "repro", "fetch") == []


# the default environment


def test_no_package_of_azure_is_imported_where_no_configuration_names_it(root: Path, tiny_phi3: Path, tmp_path: Path) -> None:
    write_params(Config(BaseModel("model", "mit", Source.folder, path=str(tiny_phi3)), 0), tmp_path)
    before = (
        "import sys; sys.modules |= dict.fromkeys(('azure', 'adlfs', 'msal', 'tunepress.remote.workspace'))"  # None: no import
    )
    fetched = started("fetch", tmp_path, before=before)
    assert fetched.communicate(timeout=120)[0].startswith("fetch: model in models/base"), fetched.returncode


def test_missing_packages_are_told_with_the_command_that_brings_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.ai.ml", None)
    for name in ("tunepress.remote.workspace", "stages.fetch.registered_model"):
        monkeypatch.delitem(sys.modules, name)
    assert refusal(base_model(), tmp_path / "base") == "no package azure.ai.ml, which Azure needs; run `make setup-azure`"
