"""Class files as programs write them: each says what it says, or is refused by its line."""

from pathlib import Path

import pytest

from hfseg import UserError
from hfseg.data.classes import ClassTable, find_class_file, named_classes, read_class_table

NAMES = ("sky", "tree house", "road")
COLOURS = (((0, 0, 0), 0), ((255, 0, 0), 1), ((0, 255, 9), 2))
CVAT = "# label:color_rgb:parts:actions\nsky:0,0,0::\ntree house:255,0,0::\nroad:0,255,9:wheel,door:run\n"


def read(folder: Path, name: str, text: str, encoding: str = "utf-8", **options: int) -> ClassTable:
    (folder / name).write_text(text, encoding=encoding)
    return read_class_table(folder / name, **options)


def complaint(folder: Path, name: str, text: str, **options: int) -> str:
    with pytest.raises(UserError) as error:
        read(folder, name, text, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labelmap.txt", CVAT),
        ("labelmap.txt", CVAT.replace("\n", "\r\n")),
        ("label_colors.txt", "0 0 0\tsky\n255 0 0\t\ttree house\n0 255 9\troad\n"),
        ("label_colors.txt", "sky 0 0 0\ntree house 255 0 0\n\n# by hand\nroad 0 255 9  \n"),
        ("label_colors.txt", "1 tree house 255 0 0\n0 sky 0 0 0\n2 road 0 255 9\n"),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,0\ntree house,255,0,0\nroad,0,255,9\n"),
        ("class_dict.csv", "id;red;green;blue;class name\n2;0;255;9;road\n0;0;0;0;sky\n1;255;0;0;tree house\n"),
        ("classes.json", '{"sky": [0, 0, 0], "tree house": [255, 0, 0], "road": [0, 255, 9]}'),
        ("classes.json", '{"0": {"name": "sky", "color": [0, 0, 0]}, "2": {"name": "road", "color": [0, 255, 9]}, '
         '"1": {"name": "tree house", "color": [255, 0, 0]}}'),
    ],
)  # fmt: skip
def test_names_and_colours(tmp_path: Path, name: str, text: str) -> None:
    table = read(tmp_path, name, text)
    assert table.labels.names == NAMES
    assert table.colours == COLOURS
    assert table.void == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labelmap.txt", "# label:color_rgb:parts:actions\nsky:::\ntree house:::\nroad:::\n"),
        ("_classes.csv", "Pixel Value, Class\n0, sky\n1, tree house\n2, road\n"),
        ("_classes.csv", 'Pixel Value,Class\n2,road\n0,sky\n1,"tree house"\n'),
        ("_classes.csv", "0,sky\n1,tree house\n2,road\n"),
        ("classes.txt", "id name\n0 sky\n1 tree house\n2 road\n"),
        ("classes.txt", "Idx\tRatio\tStuff\tName\n0\t.2\t1\tsky\n1\t.1\t0\ttree house\n2\t.3\t0\troad\n"),
        ("classes.txt", "sky: 0\nroad: 2\ntree house: 1\n"),
        ("classes.txt", "sky 0\nroad 2\ntree house 1\n"),
        ("classes.txt", "0=sky\n1=tree house\n2=road\n"),
        ("classes.txt", "0. sky\n2. road\n1. tree house\n"),
        ("classes.txt", "0) sky\n1) tree house\n2) road\n"),
        ("classes.txt", "  sky \r\n\r\n# comment\r\ntree house\t\r\nroad"),
        ("classes.json", '{"sky": 0, "tree house": 1, "road": 2}'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    table = read(tmp_path, name, text, encoding)
    assert table.labels.names == NAMES
    assert table.colours == ()


@pytest.mark.parametrize("name", ["labels.txt", "classes.txt"])
def test_labelme(tmp_path: Path, name: str) -> None:
    table = read(tmp_path, name, "__ignore__\n_background_\ncar\ntree\n")
    assert table.labels.names == ("_background_", "car", "tree")
    assert (table.labels.ignore_index, table.void) == (255, (255,))
    assert "line 3: '__ignore__'" in complaint(tmp_path, name, "_background_\ncar\n__ignore__\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Class\nsky\nroad\n", "line 1: 'Class' looks like a heading"),
        ("\nnames:\nsky\nroad\n", "line 2: 'names:' looks like a heading"),
        ("code description\n0 sky\n1 road\n2 car\n", "line 1: 'code description' is not written like '0 sky'"),
        ("sky:0,0,0::\nroad\ncar:255,0,0::\n", "line 2: 'road' is not written like 'sky:0,0,0::'"),
        ("sky 0 0 0\nroad 1 1 1\ncar\n", "line 3: 'car' is not written like 'sky 0 0 0'"),
        ("- sky\n- road\n", "line 1: '- sky' is not the name of one class"),
        ('["sky", "road"]\n', "is not the name of one class"),
        ("'sky',\n'road',\n", "is not the name of one class"),
        ("* sky\n* road\n", "line 1: '* sky' is not the name of one class"),
        ("sky, road, car\n", "looks like a row of columns"),
        ("background;sky;road\n", "looks like a row of columns"),
        ("\nfilename, sky, road\nx.png, 1, 0\n", "line 2: 'filename, sky, road' looks like a row of columns"),
        ("name,hex\nsky,#0000ff\nroad,#ff0000\n", "line 1: 'name,hex' looks like a row of columns"),
        ("sky|blue\nroad|grey\n", "line 1: 'sky|blue' looks like a row of columns"),
        ("item {\n  id: 1\n  name: 'sky'\n}\n", "line 1: 'item {' is not the name of one class"),
        ("sky  # the upper part\nroad\n", "line 1: 'sky  # the upper part' is not the name of one class"),
        ("Pixel Value, Class\n0, sky\n1\n", "line 3: '1' does not fit the columns pixel value,class"),
        ("id,name\n0,sky\n-1,road\n", "line 3: '-1,road' does not fit"),
        ("name,r,g,b\nsky,0,0\n", "line 2: 'sky,0,0' does not fit"),
        ("name,r,g,b\nsky,0,0,0\nroad,0,0,256\n", "less than or equal to 255 (got '256')"),
        ("name,r,g,b\n", "names no class"),
        ("caf\u00e9\nsky\ncafe\u0301\n", "is the name of more than one class"),
        ("1 sky\n2 road\n", "the ids begin with 1"),
    ],
)
def test_what_is_no_class_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    message = complaint(tmp_path, "classes.txt", text)
    assert said in message
    assert str(tmp_path / "classes.txt") in message


def test_a_repeated_key_and_other_encodings(tmp_path: Path) -> None:
    assert "entry 0.name" in complaint(tmp_path, "classes.json", '{"sky": false, "road": true}')
    assert "a key occurs twice" in complaint(tmp_path, "classes.json", '{"0": "sky", "0": "road"}')
    (tmp_path / "classes.txt").write_bytes("ciel\nr\u00e9seau\n".encode("latin-1"))
    with pytest.raises(UserError, match="Save it as UTF-8"):
        read_class_table(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("sky\nroad\n", encoding="utf-16-le")
    with pytest.raises(UserError, match="Save it as UTF-8"):
        read_class_table(tmp_path / "classes.txt")


def test_plain_names_stay_what_they_are(tmp_path: Path) -> None:
    for names in (
        ["class 0", "class 1", "class 2"],
        ["zone 1", "route 66"],
        ["building, edifice", "door;double door"],
    ):
        assert list(read(tmp_path, "classes.txt", "\n".join(names)).labels.names) == names
        assert list(named_classes(names).labels.names) == names


def test_one_class_is_refused_with_lines_that_work(tmp_path: Path) -> None:
    for text in ("road\n", "0 road\n255 unlabelled\n"):
        message = complaint(tmp_path, "classes.txt", text)
        assert "For masks of 0 and 1: `background`, `road`;" in message
        assert "`background 0 0 0`, `road 255 255 255`" in message
    table = read(tmp_path, "classes.txt", "background 0 0 0\nroad 255 255 255\n")
    assert (table.labels.names, table.colours) == (("background", "road"), (((0,) * 3, 0), ((255,) * 3, 1)))
    with pytest.raises(UserError, match="only one class counts"):
        named_classes(["road"])


def test_the_ignore_index_may_be_listed(tmp_path: Path) -> None:
    table = read(tmp_path, "classes.txt", "0 sky\n1 road\n7 void\n255 edge\n", ignore_index=7)
    assert (table.labels.names, table.labels.ignore_index, table.void) == (("sky", "road"), 7, (7, 255))
    assert "told by data.ignore_index" in complaint(tmp_path, "classes.txt", "0 sky\n1 road\n7 void\n")
    assert named_classes(["sky", "road"]).void == ()  # nothing is said of 255
    assert named_classes(["sky", "road"], ignore_index=255).void == (255,)


def test_several_class_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    (tmp_path / "labelmap.txt").write_text("sky:0,0,0::\nroad:255,0,0::\n")
    assert find_class_file(tmp_path, None).name == "labelmap.txt"  # they agree, and it has colours too
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n0, sky\n1, tree\n")
    assert find_class_file(tmp_path, None).name == "classes.txt"  # hfseg's own counts
    assert "not read: labelmap.txt, _classes.csv. data.classes chooses" in caplog.text
    assert find_class_file(tmp_path, Path("_classes.csv")).name == "_classes.csv"
    (tmp_path / "classes.json").write_text('["sky", "car"]')
    with pytest.raises(UserError, match=r"id 1 is 'road' in classes.txt, but 'car' in classes.json. Set data.classes"):
        find_class_file(tmp_path, None)
    for name in ("classes.txt", "classes.json"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"id 1 is 'road' in labelmap.txt, but 'tree' in _classes.csv"):
        find_class_file(tmp_path, None)
    (tmp_path / "_classes.csv").unlink()
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nsky,0,0,0\nroad,0,0,255\n")
    with pytest.raises(UserError, match=r"the colours in labelmap.txt and class_dict.csv do not agree"):
        find_class_file(tmp_path, None)
