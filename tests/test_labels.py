import pytest

from hfseg import LabelSet, UserError


def test_maps_go_both_ways() -> None:
    labels = LabelSet(["road", "sky"])
    assert labels.num_labels == 2
    assert {labels.label2id[name]: name for name in labels.names} == labels.id2label == {0: "road", 1: "sky"}


def test_default_colours_are_distinct_for_many_classes() -> None:
    palette = LabelSet([str(index) for index in range(150)]).palette
    assert palette is not None
    assert len(set(palette)) == len(palette) == 150
    assert all(0 <= value <= 255 for colour in palette for value in colour)


@pytest.mark.parametrize(("num_labels", "ignore_index"), [(1, 255), (255, 255), (256, 65535)])
def test_the_default_ignore_index_is_no_class(num_labels: int, ignore_index: int) -> None:
    assert LabelSet([str(index) for index in range(num_labels)]).ignore_index == ignore_index


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"names": []}, "0 names"),
        ({"names": ["a", "b", "a"]}, "['a']"),
        ({"names": ["a", "b"], "ignore_index": 2**31}, "32 bits"),
        ({"names": ["a", "b"], "palette": [(0, 0, 0)]}, "1 colours for 2 classes"),
    ],
)
def test_bad_label_sets_are_named(arguments: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        LabelSet(**arguments)
    assert said in str(error.value)
