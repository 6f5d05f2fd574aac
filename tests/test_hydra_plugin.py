"""hydra_plugins: a wrong key or combination fails while the configuration is composed, and says what to write instead."""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import compose_and_dump, get_hydra_sweeps
from omegaconf import OmegaConf

from tools.cli.params import compose
from tools.search.space import values_of
from tunepress.config.data import Data as DataSection
from tunepress.config.plugin.watched import UNUSED
from tunepress.config.plugin.watched import watched as watched_files
from tunepress.core.errors import InputError
from tunepress.core.keys import FORMER
from tunepress.core.params import load


@dataclass
class Rows:
    """What `load` reads of params.yaml."""

    data: DataSection


def refused(*overrides: str) -> str:
    with pytest.raises(InputError) as raised:
        compose(list(overrides))
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("train.learning_rat=1e-4", "did you mean train.learning_rate?"),
        ("adapter.lora_alfa=3", "did you mean adapter.lora_alpha?"),
        ("tarin.bf16=true", "did you mean train?"),
        ("train.evaluation_strategy=steps", "use train.eval_strategy"),
        ("train.group_by_length=true", "use train.train_sampling_strategy=group_by_length"),
        ("train.warmup_ratio=0.1", "use train.warmup_steps, where a value below 1 is a share of all steps"),
        ("adapter.lora_r=8", "use adapter.r"),
        ("evaluate.gate.max_drop=0.1", "unknown key evaluate.gate.max_drop; use gate.max_drop"),
        ("merge.max_shard_size=5GB", "nothing in its place: the merged model's files are cut as the base model's are"),
        ("build.int4_block_size=32", "did you mean build.block_size?"),
        ("build.fuse_qkv=false", "use build.extra_options.fuse_qkv"),
    ],
)
def test_an_unknown_key_says_what_is_meant(plus: str, written: str, meant: str) -> None:
    assert meant in refused(plus + written)


def test_a_key_like_no_other_comes_with_those_there_are() -> None:
    assert "known here: base" in refused("merge.zzzz=1")


def test_what_a_former_name_points_to_is_there() -> None:
    composed = compose()
    for meant in FORMER.values():
        key = meant.partition("=")[0].partition(",")[0]
        if "." in key:
            assert f"\n  {key.partition('.')[2]}:" in composed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapter.init_lora_weights=loftq"], "adapter.init_lora_weights: loftq compensates for quantization"),
        (["adapter=loftq", "merge.base=original"], "set merge.base=dequantized"),
        (["adapter=qlora", "adapter.init_lora_weights=pissa"], "pissa needs float weights"),
        (["adapter=dora", "build.adapters=separate"], "cannot keep the magnitudes of dora; use adapter=lora, or merged here"),
        (["adapter=qlora", "build.adapters=separate"], "set merge.base=original, or build.adapters=merged"),
        (
            ["adapter=loftq", "build.adapters=separate"],
            "loftq fits only the rounded weights; set build.adapters=merged",
        ),
        (["adapter=file"], "adapter.path: must be set for adapter=file"),
        (["adapter=hub", "adapter.repo_id=a/b", "adapter.revision=main"], "adapter.revision: must be a commit (40 hex digits)"),
        (["train.fsdp=true"], "train.num_processes is 1"),
        (["train.early_stopping_patience=2"], "needs train.load_best_model_at_end=true"),
        (["build.precision=fp16"], "build.precision: the builder has no fp16 for cpu, only cpu: fp32, int8, int4; cuda: "),
        (["build.adapters=separate", "build.algo_config=gptq"], "gptq would round it by the rows of one"),
        (["build=cpu_int4_k_quant_mixed", "build.n_samples=64"], "build.n_samples: only algo_config=gptq reads rows"),
        (["build=cpu_fp32", "build.algo_config=gptq"], "build.algo_config: fp32 is not quantized; use null"),
        (["build.n_samples=0"], "build.n_samples: must be at least 1, or null for 128, got 0"),
        (["build.block_size=24"], "build.block_size: must be one of 16, 32, 64, 128, 256, got 24"),
        (["data.labels=[joy,fear,joy]"], "data.labels: 'joy' is in the list twice"),
        (["data.labels=[yes,true]"], "data.labels: true is not text in YAML; quote the label, as in ['yes', '010']"),
        (["data.labels=[joy,10]"], "data.labels: 10 is not text in YAML; quote the label"),
        (["data.labels=[joy,null]"], "data.labels: null is not text in YAML; quote the label"),
        (["data.labels=joy"], "data.labels: must be a list of texts or null, got 'joy'"),
        (["data.labels=[joy,' fear']"], "data.labels: ' fear' is empty or has white space around it"),
        (["+build.extra_options.shared_embeding=true"], "did you mean build.extra_options.shared_embeddings?"),
        (["+build.extra_options.int4_algo_config=rtn"], "is now called algo_config; set build.algo_config"),
        (["+build.extra_options.adapter_path=models/adapter"], "the adapter is in the weights already"),
    ],
)
def test_values_that_cannot_go_together_are_refused_before_any_stage(overrides: list[str], message: str) -> None:
    assert message in refused(*overrides)


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "qlora", "qdora", "loftq", "pissa"])
def test_every_adapter_composes(name: str) -> None:
    assert "method: " in compose([f"adapter={name}"])


def test_a_schedule_takes_its_own_arguments() -> None:
    assert "num_cycles: 2" in compose(["train.lr_scheduler_type=cosine", "+train.lr_scheduler_kwargs.num_cycles=2"])


@pytest.mark.parametrize(("name", "provider"), [("cuda_int4", "cuda"), ("trt_rtx_fp16", "NvTensorRtRtx")])
def test_a_build_for_another_target_composes(name: str, provider: str) -> None:
    assert f"execution_provider: {provider}\n" in compose([f"build={name}"])


def test_a_file_that_the_builder_reads_is_watched() -> None:
    composed = compose(["+build.extra_options.kv_cache_scale_file=data/raw/tone.jsonl"])
    assert "  build: data/raw/tone.jsonl\n" in composed


# rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["files", "validation_files", "test_files"])
@pytest.mark.parametrize("file", ["data/raw/own.jsonl", "https://example.org/rows.jsonl"])
def test_a_single_file_is_like_a_list_of_one(name: str, file: str, root: Path, tmp_path: Path) -> None:
    single, listed = f"data.{name}='{file}'", f"data.{name}=['{file}']"
    assert compose([single]).replace(f"  {name}: {file}\n", f"  {name}:\n  - {file}\n") == compose([listed])
    compose_and_dump(tmp_path / "params.yaml", str(root / "conf"), None, "config", str(root), [single])
    assert getattr(load(Rows, [], tmp_path / "params.yaml").data, name) == [file]


@pytest.mark.parametrize("value", ["3", "[a.jsonl,3]"])
def test_what_is_not_a_file_or_a_list_of_files_is_refused(value: str) -> None:
    assert "data.files: must be a path, an address or a list of them, got " in refused(f"data.files={value}")


# remote rows

DATASTORE = [f"data.datastore.{name}={name[0]}" for name in ("subscription_id", "resource_group", "workspace_name")]


def data(*overrides: str) -> Any:
    return OmegaConf.create(compose(list(overrides))).data


def watched(*overrides: str) -> Any:
    return OmegaConf.create(compose(list(overrides))).dvc


def test_rows_that_lie_here_ask_for_no_stage() -> None:
    assert (watched().remote, watched().collected) == ([], "stages/prepare/stage.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "remote", "collected", "rows"),
    [
        (["data.files=[abfs://rows/a.jsonl]"], ["files"], "data/collected/files", []),
        (["data.test_files=[s3://rows/a.csv]"], ["test_files"], "data/collected/test_files", ["data/raw/tone.jsonl"]),
        (["data.files=[abfs://rows/a.jsonl,own/b.jsonl]"], ["files"], "data/collected/files", ["own/b.jsonl"]),
        (
            ["data.files=[abfs://rows/a.jsonl]", "data.test_files=['https://example.org/a.csv.gz']"],
            ["files", "test_files"],
            "data/collected",
            [],
        ),
        (
            ["data.validation_files=abfs://rows/a.tsv", "data.test_files=b.csv"],
            ["validation_files"],
            "data/collected/validation_files",
            ["data/raw/tone.jsonl", "b.csv"],
        ),
    ],
)
def test_rows_from_elsewhere_are_watched_where_they_are_collected(
    overrides: list[str], remote: list[str], collected: str, rows: list[str]
) -> None:
    composed = watched(*overrides)
    assert (composed.remote, composed.collected, watched_rows(*overrides)) == (remote, collected, rows)


def watched_rows(*overrides: str) -> list[str]:
    """The paths of rows that DVC watches, without the files that fill the other dependencies."""
    paths = list(watched(*overrides).data)
    assert len(paths) == len(set(paths)) == len(UNUSED)
    return [path for path in paths if path not in UNUSED]


def test_unused_dependencies_on_rows_are_modules_of_prepare() -> None:
    assert all(Path(path).is_file() for path in UNUSED)


def test_a_folder_of_rows_is_watched_where_it_is_read(tmp_path: Path) -> None:
    folder = f"data.path={tmp_path}"
    assert watched_rows("data.files=[]", folder) == [str(tmp_path)]
    assert watched_rows("data.files=[]", folder, f"data.test_files=[{tmp_path}/test.csv]") == [str(tmp_path)]
    assert watched_rows(folder) == ["data/raw/tone.jsonl"]
    assert watched_rows("data.files=[]", "data.path=someone/rows") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "rows"),
    [
        ("/else/a.csv,/else/b.csv", ["/else/a.csv", "/else/b.csv"]),
        ("a.csv,b.csv,a.csv", ["a.csv", "b.csv"]),
        ("data/a.csv,data/b.csv", ["data/a.csv", "data/b.csv"]),
        ("rowsA/,./rowsB", ["rowsA", "rowsB"]),
        ("/else/a.csv,own/b.csv,../c.csv", ["/else/a.csv", "own/b.csv", "../c.csv"]),
        ("data/raw,data/raw/tone.jsonl", ["data/raw"]),
        ("data/raw/*.jsonl,data/own/**/*.csv", ["data/raw", "data/own"]),
        ("a/1.csv,a/2.csv,a/3.csv,4.csv,b/5.csv,b/6.csv,7.csv", ["a", "4.csv", "b/5.csv", "b/6.csv", "7.csv"]),
    ],
)
def test_each_file_of_rows_is_watched(files: str, rows: list[str]) -> None:
    assert watched_rows(f"data.files=[{files}]") == rows
    assert watched_rows(f"data.files={files.split(',')[0]}", f"data.test_files=[{files}]") == rows


def test_a_file_of_this_project_is_watched_by_its_relative_path(root: Path) -> None:
    assert watched_rows(f"data.files={root}/data/raw/tone.jsonl") == ["data/raw/tone.jsonl"]


def test_a_pattern_beside_outputs_is_watched_by_the_files_that_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [path for path in watched_files("*.csv") if path not in UNUSED] == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            "data/prepared/train.jsonl",
            "is written by the pipeline, in data/prepared; copy it to another folder, such as data/own",
        ),
        ("data", "the folder also has data/collected, which the pipeline writes; put the rows in a folder such as data/own"),
        (".", "the folder also has data/collected, which the pipeline writes; put the rows in a folder such as data/own"),
        ("*.csv", "no file matches this pattern (data.files)"),
        (
            "1.csv,2.csv,3.csv,4.csv,5.csv,6.csv,7.csv",
            "7 paths are more than the 6 that DVC watches; put the files in a folder of",
        ),
    ],
)
def test_rows_that_cannot_be_watched_are_refused_with_the_cure(files: str, problem: str) -> None:
    name = "data.files" if "," in files else files
    assert f"{name}: {problem}" in refused(f"data.files=[{files}]")


@pytest.mark.parametrize(
    ("labels", "value"), [("[yes, no]", "true"), ("[010, 020]", "8"), ("[1.50, 2]", "1.5"), ("[joy, ~]", "null")]
)
def test_labels_of_a_file_that_yaml_does_not_read_as_text_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str, value: str
) -> None:
    shutil.copytree(root / "conf", tmp_path / "conf")
    file = tmp_path / "conf/data/tone.yaml"
    text = file.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    file.write_text(text.replace("labels: [joy, sadness, fear, surprise]", f"labels: {labels}"), encoding="utf-8")
    assert f"data.labels: {value} is not text in YAML; quote the label, as in ['yes', '010']" in refused()
    file.write_text(text.replace("labels: [joy, sadness, fear, surprise]", "labels: ['yes', '010']"), encoding="utf-8")
    assert data().labels == ["yes", "010"]


BOTH = "data.datasets=[{path: a.csv, name: a, weight: 2}, {path: rows/*.csv, name: b}]"


def test_datasets_are_watched_instead_of_files() -> None:
    assert watched_rows("data.files=[]", BOTH, "data.test_files=t.csv") == ["a.csv", "rows", "t.csv"]
    assert [(part.name, part.get("weight", 1)) for part in data("data.files=[]", BOTH).datasets] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([BOTH], "data.datasets: is used instead of data.files and data.path; set data.files=[] and data.path=null"),
        (["data.files=[]", BOTH.replace("name: b", "name: a")], "data.datasets: each needs a name of its own, got 'a', 'a'"),
        (["data.files=[]", BOTH.replace("2", "0")], "data.datasets: the weight of a must be above 0, got 0"),
        (["data.files=[]", BOTH.replace("a.csv", "s3://b/a.csv")], "data.datasets: the path of a must be on this machine"),
        (
            ["data.files=[]", BOTH.replace("weight", "wieght")],
            "format: messages}, got {'path': 'a.csv', 'name': 'a', 'wieght': 2}",
        ),
        (["data.files=[]", "data.datasets=[{path: a.csv}]"], "format: messages}, got {'path': 'a.csv'}"),
        (
            ["data.files=[]", "data.datasets=[{path: a.csv, name: 1}]"],
            "must be a list of {path: rows/a.csv, name: a, weight: 1.0, format: messages}",
        ),
        (
            ["data.files=[]", "data.datasets=[{path: a.csv, name: a, format: chat}]"],
            "data.datasets: format must be one of template, messages, sharegpt, alpaca, prompt_completion, got 'chat'",
        ),
        (
            ["data.files=[]", "data.datasets=a.csv"],
            "must be a list of {path: rows/a.csv, name: a, weight: 1.0, format: messages}, got a.csv",
        ),
    ],
)
def test_datasets_that_cannot_be_used_are_refused(overrides: list[str], problem: str) -> None:
    assert problem in refused(*overrides)


def test_no_rows_are_refused() -> None:
    assert "data.files: is empty; name a file, or a dataset in data.path" in refused("data.files=[]")
    assert "data.files: must be a path, an address or a list of them, got ['']" in refused("data.files=['']")


def test_a_datastore_becomes_an_address() -> None:
    composed = data("data=azureml_datastore", *DATASTORE, "data.datastore.relative_path=/a/tone.jsonl")
    prefix = "azureml://subscriptions/s/resourcegroups/r/workspaces/w/datastores/workspaceblobstore/paths"
    assert composed.files == [f"{prefix}/a/tone.jsonl"]
    assert composed.labels == data().labels
    assert watched("data=azureml_datastore", *DATASTORE, "data.datastore.relative_path=/a/tone.jsonl").remote == ["files"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=azureml_datastore"], "data.datastore.relative_path: has no value"),
        (["data=azureml_datastore", *DATASTORE], "set it with -S data.datastore.relative_path=..."),
        (["data.files=['https://a.blob.core.windows.net/c/a.csv?sig=x']"], "write abfs://c@a.dfs.core.windows.net/a.csv and"),
        (["data.test_files=['gs://rows/a.csv']"], "unknown kind of address gs://"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_is_refused_before_any_stage(overrides: list[str], message: str) -> None:
    assert message in refused(*overrides)


# templates

TEMPLATES = [
    (r'"Review: {review text}\nStars:\n{stars}"', "Review: {review text}\nStars:\n{stars}"),
    (r"'{a}\n{b}'", "{a}\n{b}"),
    (r'"{a}\t{b}"', "{a}\t{b}"),
    (r'"{a} \\n {b}"', r"{a} \n {b}"),
    (r'"{a} \d \u00e9 {b}"', r"{a} \d \u00e9 {b}"),
    ('"{a}\n{b}"', "{a}\n{b}"),
    (r'"{a}: \"{b}\""', '{a}: "{b}"'),
    (r'"{a} C:\\new {b}\\"', "{a} C:\\new {b}\\"),
]


@pytest.mark.parametrize(("written", "template"), TEMPLATES)
def test_a_template_on_the_command_line_has_line_breaks(written: str, template: str) -> None:
    assert data(f"data.text_template={written}").text_template == template


def test_a_template_is_the_same_for_dvc_for_make_params_and_for_a_stage(root: Path, tmp_path: Path) -> None:
    written, template = TEMPLATES[0]
    for override in (f"data.text_template={written}", f"++data.text_template={written}"):
        compose_and_dump(tmp_path / "params.yaml", str(root / "conf"), None, "config", str(root), [override])
        assert (tmp_path / "params.yaml").read_text(encoding="utf-8") == compose([override])
        assert load(Rows, [], tmp_path / "params.yaml").data.text_template == template
        shutil.copy(root / "params.yaml", tmp_path)
        assert load(Rows, [override], tmp_path / "params.yaml").data.text_template == template


def test_templates_of_a_queue_have_line_breaks() -> None:
    sweep = get_hydra_sweeps({"params.yaml": [r'data.text_template="{a}\n{b}","{a} \\n{b}"']})
    overrides = [override for chosen in sweep for override in chosen["params.yaml"]]
    assert [data(override).text_template for override in overrides] == ["{a}\n{b}", r"{a} \n{b}"]


def test_a_template_in_a_file_is_what_yaml_says(root: Path, tmp_path: Path) -> None:
    text = compose().replace("text_template: '### Text: {phrase}", r"text_template: '### \n Text: {phrase}")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    template = load(Rows, ["data.labels=null"], tmp_path / "params.yaml").data.text_template
    assert template
    assert template.startswith(r"### \n Text: {phrase}")


def test_readmes_own_command_gives_the_rows_that_it_shows(root: Path) -> None:
    command = (root / "README.md").read_text(encoding="utf-8").split("## Your rows")[1].split("```")[1]
    words = shlex.split(command)
    assert words[:3] == ["dvc", "exp", "run"]
    chosen = data(*(words[place + 1] for place, word in enumerate(words) if word == "-S"))
    assert chosen.text_template == "Review: {review text}\nStars:\n{stars}"
    assert chosen.labels == ["1", "2", "3", "4", "5"]


def test_a_search_tries_the_templates_that_its_file_has() -> None:
    templates = [r"{a} \n {b}", "{a}\n{b}", "{a} \\"]
    choices = values_of("data.text_template", templates)
    assert [data(f"data.text_template={choice}").text_template for choice in choices.choices] == templates
