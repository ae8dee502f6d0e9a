"""Parameters given to a compiled pipeline, and what the pipeline says of itself."""

from pathlib import Path

import pytest

from pud.base.errors import InputError
from pud.platform.compiled import (
    BUNDLED,
    checked,
    default_pipeline,
    pipeline_called,
    read_parameters,
    read_pipeline,
    root_of,
    steps_of,
)

PIPELINE = Path(__file__).parents[1] / "pipelines" / "pud.yaml"


def test_a_required_parameter_must_be_given() -> None:
    definitions = {"parameters": {"rate": {"parameterType": "NUMBER_DOUBLE"}}}
    with pytest.raises(InputError, match="needs rate"):
        checked({}, {"root": {"inputDefinitions": definitions}}, Path("some.yaml"))


def test_parameters_come_from_a_file_and_from_pairs_which_win(tmp_path: Path) -> None:
    file = tmp_path / "parameters.json"
    file.write_text('{"seed": 1, "train_settings": {"epochs": 2}, "attack": "blend"}')
    given = read_parameters(["seed=3", "git_commit=12e4567", "data_uri=file:a=b"], file)
    read = checked(given, read_pipeline(PIPELINE), PIPELINE)
    assert read == {
        "seed": 3,
        "train_settings": {"epochs": 2},
        "attack": "blend",
        "git_commit": "12e4567",
        "data_uri": "file:a=b",
    }


@pytest.mark.parametrize(("pairs", "content"), [(["seed"], "{}"), (["=3"], "{}"), ([], "[1]"), ([], "{"), ([], None)])
def test_parameters_that_cannot_be_read_are_refused(tmp_path: Path, pairs: list[str], content: str | None) -> None:
    file = tmp_path / "parameters.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=r"NAME=VALUE|name: value|JSON object"):
        read_parameters(pairs, file)


def test_a_whole_number_serves_where_any_number_does_and_becomes_one() -> None:
    read = checked({"poison_rate": "0", "seed": "2.0"}, read_pipeline(PIPELINE), PIPELINE)
    assert repr(read) == "{'poison_rate': 0.0, 'seed': 2}"
    with pytest.raises(InputError, match=r"poison_rate is .*: give a number"):
        checked({"poison_rate": 10**400}, read_pipeline(PIPELINE), PIPELINE)


def test_the_steps_are_the_tasks_that_run_a_container() -> None:
    steps = steps_of(read_pipeline(PIPELINE))
    assert {"poison", "train", "detect-2", "evaluate", "finish"} <= steps
    assert not steps & {"defence", "exit-handler-1", "root"}


@pytest.mark.parametrize("seed", ["-1", str(2**53 + 1), 2**53 + 1, str(2**63), "1e400", "[" * 100_000])
def test_a_whole_number_that_a_pipeline_cannot_hand_over_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match=r"parameter seed is .*: give a whole number from 0 to 2\^53") as refused:
        checked({"seed": seed}, read_pipeline(PIPELINE), PIPELINE)
    assert len(str(refused.value)) < 500


def test_the_largest_whole_number_is_exact() -> None:
    assert checked({"seed": str(2**53)}, read_pipeline(PIPELINE), PIPELINE) == {"seed": 2**53}


def test_a_file_of_parameters_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "parameters.json").write_text('{"attack": "blend"}', "utf-8-sig")
    assert read_parameters([], tmp_path / "parameters.json") == {"attack": "blend"}


def test_the_pipeline_of_this_folder_comes_before_the_package_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_pipeline() == BUNDLED / "pipelines" / "pud.yaml"
    assert default_pipeline().is_file()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "pud.yaml").touch()
    assert default_pipeline().resolve() == tmp_path / "pipelines" / "pud.yaml"


def test_the_components_are_those_beside_the_pipeline_else_the_package_s(tmp_path: Path) -> None:
    assert root_of(PIPELINE) == PIPELINE.parents[1]
    assert root_of(tmp_path / "pipelines" / "pud.yaml") == BUNDLED
    assert (BUNDLED / "components" / "guard.py").is_file()


@pytest.mark.parametrize("text", ["", "a", "[1]", "[" * 5000, "root: {dag: {}}\npipelineInfo: {name: a}", "\0"])
def test_a_file_that_is_no_compiled_pipeline_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "pud.yaml").write_text(text)
    with pytest.raises(InputError, match="is not a compiled pipeline"):
        read_pipeline(tmp_path / "pud.yaml")


@pytest.mark.parametrize("name", ["pud", "scan", "defend"])
def test_a_pipeline_is_found_by_its_name_in_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_pipeline(pipeline_called(name))["pipelineInfo"]["name"] == name


def test_the_name_of_no_pipeline_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="choose one of defend, pud, scan"):
        pipeline_called("purify")
