"""Parameters given to a compiled pipeline, and what the pipeline says of itself."""

from pathlib import Path

import pytest

from pud.compiled import checked, read_parameters, read_pipeline, steps_of
from pud.errors import InputError

PIPELINE = Path(__file__).parents[1] / "pipelines" / "pud.yaml"


def test_a_required_parameter_must_be_given() -> None:
    definitions = {"parameters": {"rate": {"parameterType": "NUMBER_DOUBLE"}}}
    with pytest.raises(InputError, match="needs rate"):
        checked({}, {"root": {"inputDefinitions": definitions}}, Path("some.yaml"))


def test_parameters_come_from_a_file_and_from_pairs_which_win(tmp_path: Path) -> None:
    file = tmp_path / "parameters.json"
    file.write_text('{"seed": 1, "train_settings": {"epochs": 2}, "trigger": "blend"}')
    given = read_parameters(["seed=3", "git_commit=12e4567", "data_uri=file:a=b"], file)
    read = checked(given, read_pipeline(PIPELINE), PIPELINE)
    assert read == {
        "seed": 3,
        "train_settings": {"epochs": 2},
        "trigger": "blend",
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
