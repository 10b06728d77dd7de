"""Which group, field and dish each input is in, by its path and not by its name alone."""

import pytest

from cytovox.errors import InputError
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.sources import find_sources

PLACES = ("control/d1", "control/d2", "LPS/d1", "LPS/d2")


@pytest.fixture
def dish(tmp_path):
    for place in PLACES:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "f1.tif").write_bytes(b"")
    return tmp_path


def found(dish, groups):
    sources = find_sources(AnalyzeConfig(inputs=[str(dish / place / "f1.tif") for place in PLACES], groups=groups))
    return {str(s.path.parent.relative_to(dish)): (s.group, s.field, s.dish) for s in sources}


def by_table(dish, *lines):
    (dish / "groups.csv").write_text("\n".join(lines) + "\n")
    return found(dish, str(dish / "groups.csv"))


@pytest.mark.parametrize("groups", [None, "*/{group}/*/f1.tif"])
def test_files_of_one_name_in_several_folders_are_several_fields(dish, groups):
    output = found(dish, groups)
    assert len({field for _, field, _ in output.values()}) == 4
    if groups:
        assert {place: group for place, (group, _, _) in output.items()} == {p: p.split("/")[0] for p in PLACES}


def test_a_table_names_files_by_their_paths_and_each_is_a_field(dish):
    output = by_table(dish, "file,group", *(f"{place}/f1.tif,{place.split('/')[0]}" for place in PLACES))
    assert {place: group for place, (group, _, _) in output.items()} == {p: p.split("/")[0] for p in PLACES}
    assert len({field for _, field, _ in output.values()}) == 4


def test_a_name_that_several_inputs_have_is_refused_and_they_are_named(dish):
    with pytest.raises(InputError) as error:
        by_table(dish, "file,group", "f1.tif,control")
    assert "f1.tif names 4 inputs" in str(error.value)
    assert str(dish / "control/d1/f1.tif") in str(error.value)


def test_a_file_at_the_path_from_the_table_is_meant_alone(dish):
    (dish / "control/d1/groups.csv").write_text(
        "file,group\nf1.tif,control\n../d2/f1.tif,control\n" + "".join(f"{dish / p}/f1.tif,LPS\n" for p in PLACES[2:])
    )
    output = found(dish, str(dish / "control/d1/groups.csv"))
    assert [output[place][0] for place in PLACES] == ["control", "control", "LPS", "LPS"]


@pytest.mark.parametrize(
    ("second", "what"),
    [("control,2,a", "field 1"), ("control,1,b", "dish a"), ("LPS,1,a", "group control")],
)
def test_a_file_with_two_lines_that_disagree_is_refused(dish, second, what):
    lines = [f"{place}/f1.tif,control,1,a" for place in PLACES]
    with pytest.raises(InputError, match=f"line 6: f1.tif is in {what}, too"):
        by_table(dish, "file,group,field,dish", *lines, f"{PLACES[0]}/f1.tif,{second}")
