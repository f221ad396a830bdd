"""``kerneldiff demo --data``: from a table to a model, and what it says about bad ones."""

import csv
import importlib.util
import re
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from support.processes import run_python

import kerneldiff
from kerneldiff import _table, cli
from kerneldiff._files import InputError


def values(X):
    """A function of two columns in other units, and its gradient."""
    u, v = X[:, 0], X[:, 1] / 10
    return 5 + 3 * np.sin(u) + v**2, np.column_stack([3 * np.cos(u), v / 5])


def write(path, columns, delimiter=","):
    """Write a table; columns by their names."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def columns(n=60, *, noise=0.0, gradients=False):
    rng = np.random.default_rng(0)
    X = rng.uniform([-3, -20], [3, 20], size=(n, 2))
    y, dy = values(X)
    table = {"angle": X[:, 0], "load": X[:, 1], "drag": y + noise * rng.normal(size=n)}
    if gradients:
        table |= {"d_angle": dy[:, 0], "d_load": dy[:, 1]}
    return {name: column.tolist() for name, column in table.items()}


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "table.csv", columns())


def demo(path, *arguments, target="drag"):
    return cli.main(["demo", "--data", str(path), "--target", target, *map(str, arguments)])


def refused(capsys, path, *arguments, target="drag"):
    """What is said about a mistake, in a sentence and with status 2."""
    with pytest.raises(SystemExit) as stopped:
        demo(path, *arguments, target=target)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.err.startswith("usage: kerneldiff demo")
    assert "Traceback" not in said.err
    return said.err.split("kerneldiff demo: error: ")[1]


# ------------------------------------------------------------------------------------ the job


def number(pattern, text):
    return float(re.search(pattern, text)[1])


def test_values(table, capsys):
    """A smooth function without noise is predicted nearly exactly."""
    assert demo(table) == 0
    said = capsys.readouterr()
    assert "60 rows, 2 features, target 'drag'" in said.out
    assert "48 rows to learn from, 12 held out" in said.out
    assert number(r"R² +(\S+)", said.out) > 0.99
    assert "--output DIR saves the model" in said.out
    assert "nan" not in said.out
    assert said.err == ""


def test_noise_is_found(tmp_path, capsys):
    demo(write(tmp_path / "noisy.csv", columns(300, noise=0.5)))
    said = capsys.readouterr().out
    # The standard deviation of 240 normal numbers is known to 5 %, and that of a fit to 10 % or so.
    assert 0.4 < number(r"noise of the target (\S+),", said) < 0.6
    # Of 60 rows 95 % are inside, with a standard deviation of 2.8 %.
    assert 85 <= number(r"95 % band +(\S+)%", said) <= 100


def test_feature_without_influence(tmp_path, capsys):
    # Neither the last column nor the last name.
    table = {"a": np.random.default_rng(1).normal(size=60).tolist(), **columns()}
    demo(write(tmp_path / "table.csv", table))
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("feature "))
    assert [line.split()[0] for line in lines[first + 1 : first + 4]][-1] == "a"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """All that is written for a table with gradients, some of which are missing."""
    folder = tmp_path_factory.mktemp("outcome")
    content = columns(50, gradients=True)
    content["d_load"][7] = ""
    path = write(folder / "table.csv", content)
    options = ["--gradient", "d_angle", "d_load", "--max-points", "25"]
    arguments = [*options, "--output", folder / "out", "--plot", folder / "pictures"]
    assert demo(path, *arguments) == 0
    return folder


def test_files(outcome):
    pictures = {"sensitivities.png", "predictions.png", "slices.png", "field.png"}
    assert {path.name for path in (outcome / "pictures").iterdir()} == pictures
    names = {path.name for path in (outcome / "out").iterdir()}
    assert names in ({"held_out.csv", "model.skops"}, {"held_out.csv", "model.joblib"})


def test_held_out_rows(outcome):
    """They are rows of the table, beside what the saved model predicts for them."""
    with open(outcome / "out" / "held_out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    with open(outcome / "table.csv", newline="", encoding="utf-8") as file:
        lines = [None, *csv.reader(file)]
    for row in rows:
        found = [row[name] for name in ("angle", "load", "drag", "d_angle", "d_load")]
        assert found == lines[int(row["line"])]

    def column(name):
        return np.array([float(row[name]) for row in rows])

    X = pd.DataFrame({"angle": column("angle"), "load": column("load")})
    model = load(outcome / "out")
    # To the last bit but for the order of sums, which depends on how many rows are predicted.
    mean, std = model.predict(X, return_std=True)
    slopes, slopes_std = model.predict_gradient(X, return_std=True)
    for a, name in enumerate(["angle", "load"]):
        assert np.allclose(column(f"d(drag)/d({name})"), slopes[:, a], rtol=1e-9, atol=1e-9)
        found = column(f"std of d(drag)/d({name})")
        assert np.allclose(found, slopes_std[:, a], rtol=1e-5, atol=1e-6)
    assert np.allclose(column("predicted drag"), mean, rtol=1e-9)
    assert np.allclose(column("std of drag"), std, rtol=1e-5, atol=1e-6)
    # It has learned the function, and its gradient.
    y, dy = values(X.to_numpy())
    assert np.abs(mean - y).max() < 0.05 * np.ptp(y)
    assert (np.abs(slopes - dy).max(axis=0) < 0.05 * np.ptp(dy, axis=0)).all()


def load(folder):
    """A saved model, by what it was saved with."""
    if (folder / "model.joblib").exists():
        return joblib.load(folder / "model.joblib")
    import skops.io as skops

    file = folder / "model.skops"
    return skops.load(file, trusted=skops.get_untrusted_types(file=file))


def test_saved_model_is_an_ordinary_one(outcome):
    """It needs nothing that belongs to the demo, and can be cloned and fitted anew."""
    model = load(outcome / "out")
    assert type(model) is kerneldiff.GaussianProcessRegressor
    assert model.optimizer == "fmin_l_bfgs_b"
    assert len(model.X_train_) == 25
    assert model.feature_names_in_.tolist() == ["angle", "load"]
    with pytest.raises(ValueError, match="same order as they were in fit"):
        model.predict(pd.DataFrame({"load": [1.0], "angle": [0.5]}))


@pytest.mark.exhaustive
@pytest.mark.parametrize("installed", [True, False])
def test_ways_to_save(installed, table, tmp_path, monkeypatch, capsys):
    """skops if it is there, else joblib; and what it takes to load the file is right."""
    if installed:
        pytest.importorskip("skops")
    else:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "skops" else find(name)
        )
    demo(table, "--output", tmp_path / "out")
    said = capsys.readouterr().out
    code = "".join(re.findall(r"^    (.*\n)", said.split("To use the model:")[1], re.MULTILINE))
    assert ("skops" in code) == installed
    found = run_python(f"X = [[0.5, 1.0], [1.0, 2.0]]\n{code}print(slopes.shape, len(mean))")
    assert found == "(2, 2) 2\n"


def test_gradients_help(tmp_path, capsys):
    """Twelve points with gradients tell more than without."""
    path = write(tmp_path / "table.csv", columns(60, gradients=True))
    options = ["--features", "angle", "load", "--max-points", "12"]
    demo(path, *options)
    plain = number(r"R² +(\S+)", capsys.readouterr().out)
    demo(path, *options, "--gradient", "d_angle", "d_load")
    said = capsys.readouterr().out
    assert "12 rows to learn from, with their gradients" in said
    assert number(r"R² +(\S+)", said) > max(plain, 0.9)
    assert "slope error" in said


def test_same_again(table, capsys):
    """Nothing depends on anything but the seed."""

    def said(*arguments):
        demo(table, *arguments)
        text = capsys.readouterr().out
        return re.sub(r"\d+\.\d s", "", text)

    assert said() == said("--seed", 0) != said("--seed", 1)


@pytest.mark.parametrize("kernel", ["rbf", "matern"])
def test_kernels(kernel, table, capsys):
    demo(table, "--kernel", kernel)
    assert {"rbf": "RBF kernel", "matern": "Matérn 5/2 kernel"}[kernel] in capsys.readouterr().out


def test_many_rows(tmp_path, capsys):
    path = write(tmp_path / "table.csv", columns(6000))
    demo(path, "--max-points", 50)
    said = capsys.readouterr().out
    # A fifth is held out, but not more than 1000.
    assert "50 rows to learn from, 1000 held out" in said
    assert "4950 rows are not used" in said


def test_progress(monkeypatch, capsys):
    progress = _table.Progress(every=0.0)
    progress.say("predicting: 1 of 2 rows")
    assert re.fullmatch(r"predicting: 1 of 2 rows, \d+ s\n", capsys.readouterr().err)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = _table.Progress()
    progress.last -= 1
    progress.say("fitting")
    progress.say("too early")
    progress.done()
    assert re.fullmatch(r"\rfitting, \d+ s +\r +\r", capsys.readouterr().err)


def test_interrupted(table, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_table, "predict", interrupted)
    assert demo(table, "--output", tmp_path / "out") == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert not (tmp_path / "out").exists()


def test_no_warnings_of_libraries(table):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        demo(table)
    assert caught == []


# ------------------------------------------------------------------------------ ways to write


def numbers(path, **options):
    data = _table.choose(_table.read(path), "drag", **options)
    return data.X, data.y


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_dialects(delimiter, ending, encoding, tmp_path):
    content = columns(12)
    path = write(tmp_path / "table.csv", content, delimiter)
    path.write_bytes(path.read_bytes().decode().replace("\r\n", ending).encode(encoding))
    X, y = numbers(path)
    assert np.array_equal(X, np.column_stack([content["angle"], content["load"]]))
    assert np.array_equal(y, content["drag"])


def test_decimal_commas(tmp_path):
    lines = ["angle;load;drag", *(f"{i},5;{i};1e{i % 3}" for i in range(12))]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    X, y = numbers(path)
    assert np.array_equal(X, [[i + 0.5, i] for i in range(12)])
    assert np.array_equal(y, [10.0 ** (i % 3) for i in range(12)])


def test_quotes_spaces_and_blank_lines(tmp_path):
    path = tmp_path / "table.csv"
    lines = [
        '\n"angle, deg" , load,drag',
        *(f' {i} ,"{i * i}",  {-i}' for i in range(12)),
        "",
        " , ,",
    ]
    path.write_text("\n".join(lines))
    table = _table.read(path)
    assert table.names == ["angle, deg", "load", "drag"]
    assert len(table.lines) == 12
    X, y = numbers(path)
    assert np.array_equal(X, [[i, i * i] for i in range(12)])
    assert np.array_equal(y, -np.arange(12.0))


def test_letters_of_another_encoding(tmp_path, capsys):
    path = write(tmp_path / "table.csv", {"länge": range(20), "drag": range(20)})
    path.write_bytes(path.read_bytes().decode().encode("latin-1"))
    demo(path)
    assert "read as Latin-1" in capsys.readouterr().out
    assert _table.read(path).names == ["länge", "drag"]


def test_column_without_a_name(tmp_path):
    """As data frames write their index."""
    content = {"": range(20), **columns(20)}
    table = _table.read(write(tmp_path / "table.csv", content))
    assert table.names == ["angle", "load", "drag"]
    assert table.notes == ["left out: 1 column without a name (number 1)"]


@pytest.mark.parametrize("word", ["", "NA", "nan", " NULL ", "?", "n/a", "None"])
def test_missing_values(word, tmp_path, capsys):
    content = columns(20)
    content["load"][3] = word
    content["drag"][5] = word
    path = write(tmp_path / "table.csv", content)
    said = refused(capsys, path)
    assert "2 of 20 rows have no value in columns 'drag', 'load' (the first is line 5)" in said
    assert "--missing drop" in said
    X, y = numbers(path, missing="drop")
    kept = [i for i in range(20) if i not in (3, 5)]
    assert np.array_equal(X, [[content["angle"][i], content["load"][i]] for i in kept])
    assert np.array_equal(y, [content["drag"][i] for i in kept])


def test_missing_values_elsewhere(tmp_path):
    """Columns that are not used may hold anything."""
    content = {**columns(20), "remark": ["", "text"] * 10}
    X, _ = numbers(write(tmp_path / "table.csv", content), drop=["remark"])
    assert X.shape == (20, 2)
    X, _ = numbers(tmp_path / "table.csv", features=["load"])
    assert X.shape == (20, 1)


def test_order_of_features(tmp_path):
    content = columns(20, gradients=True)
    path = write(tmp_path / "table.csv", content)
    data = _table.choose(
        _table.read(path), "drag", features=["load", "angle"], gradient=["d_load", "d_angle"]
    )
    assert data.features == ["load", "angle"]
    assert np.array_equal(data.X[:, 0], content["load"])
    assert np.array_equal(data.dy[:, 1], content["d_angle"])


# ------------------------------------------------------------------------------------ mistakes


def test_no_target(table, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "--data", str(table)])
    assert stopped.value.code == 2
    assert "--data needs --target" in capsys.readouterr().err


def test_target_without_data(capsys):
    with pytest.raises(SystemExit):
        cli.main(["demo", "--max-points", "20"])
    assert "--max-points needs --data" in capsys.readouterr().err


def test_no_file(tmp_path, capsys):
    said = refused(capsys, tmp_path / "missing.csv")
    assert said.endswith("missing.csv': No such file or directory.\n")
    assert "directory" in refused(capsys, tmp_path).lower()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty."),
        (b" \n\r\n", "is empty."),
        (b"PK\x03\x04\x00\x00", "which is no text; save a spreadsheet as CSV first."),
        (b"drag\n1\n2\n", "has one column, 'drag'; there must be more, separated by commas"),
        (b"drag load\n1 2\n", "has one column, 'drag load'"),
        (b"1,2,3\n4,5,6\n", "has no header: its first line holds numbers"),
        (b"1,,NA\n4,5,6\n", "has no header"),
        (b"drag,load,load\n1,2,3\n", "has column 'load' more than once."),
        (b"drag,load\n1,2\n1,2,3\n", "line 3: 3 values, where the header has 2 names."),
        (b'drag,load\n1,"2\n3,4\n', "column 'load' holds text, such as '2\\n3,4' in"),
        (b'drag,load\n1,"' + b"2" * 200_000, "is no CSV file: line 2: field larger than"),
        (b"drag,load\n", "has 0 rows to use; there must be at least 10."),
        (b"drag,load\n1,2\n2,3\n", "has 2 rows to use; there must be at least 10."),
    ],
)
def test_bad_files(content, message, tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    assert message in refused(capsys, path, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


CHANGES = {
    "text": ({"city": ["Rome"] * 20, "b d": ["x"] * 20}, [], "'Rome' in 'city'; features are"),
    "how": ({"city": ["Rome"] * 20, "b d": ["x"] * 20}, [], "--drop city 'b d'\n"),
    "how, too": ({"a": ["x"] * 20, "b": ["x"] * 20}, ["--drop", "a"], "--drop a b\n"),
    "underscores": ({"code": ["1_000"] * 20}, [], "column 'code' holds text, such as '1_000'"),
    "infinite": ({"load": [1.0] * 19 + ["inf"]}, [], "column 'load' is infinite in line 21."),
    "constant": ({"load": [1.0] * 20}, [], "column 'load' has the same value in all rows"),
    "constants": ({"a": [1] * 20, "b": [2] * 20}, [], "columns 'a', 'b' have the same value"),
    "flat": ({"drag": [1.0] * 20}, [], "the target, 'drag', has the same value in all rows"),
    "words": ({"drag": ["low"] * 20}, [], "column 'drag' holds text, such as 'low', not numbers"),
    "none left": ({}, ["--drop", "angle", "load"], "no features are left to predict from"),
    "dropped": ({}, ["--drop", "drag"], "--drop names 'drag', which is the target"),
    "both": ({}, ["--features", "drag"], "--features names 'drag', which is the target"),
    "unknown": ({}, ["--drop", "Angel"], "--drop names 'Angel', which .* Did you mean 'angle'\\?"),
    "twice": ({}, ["--drop", "load", "load"], "--drop names column 'load' more than once"),
    "too few": (
        {"g": [1.0] * 20},
        ["--gradient", "g"],
        "--gradient names 1 column; there must be 2, .* in this order: columns 'angle', 'load'",
    ),
    "a feature": (
        {"g": [1.0] * 20},
        ["--gradient", "g", "--features", "g", "load"],
        "--gradient and --features both name column 'g'",
    ),
    "no numbers": (
        {"g": [""] * 20, "h": ["NA"] * 20},
        ["--gradient", "g", "h"],
        "there is no number in columns 'g', 'h' of --gradient",
    ),
    "text slopes": (
        {"g": ["x"] * 20, "h": [1.0] * 20},
        ["--gradient", "g", "h"],
        "column 'g' holds text, such as 'x', not numbers",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_bad_columns(name, tmp_path, capsys):
    """Nothing is written, and no time is spent on a fit."""
    change, options, message = CHANGES[name]
    path = write(tmp_path / "table.csv", {**columns(20), **change})
    said = refused(capsys, path, "--output", tmp_path / "out", *options)
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "hint"),
    [("dragg", " Did you mean 'drag'?"), ("DRAG", " Did you mean 'drag'?"), ("price", "")],
)
def test_no_such_target(target, hint, table, capsys):
    said = refused(capsys, table, target=target)
    assert said == (
        f"--target names {target!r}, which {str(table)!r} does not have.{hint} It has columns "
        "'angle', 'load', 'drag'.\n"
    )


def test_output_that_is_a_file(table, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert re.search(r"--output is '.*', but", refused(capsys, table, "--output", tmp_path / "out"))


def test_no_place_to_write(table, tmp_path, capsys):
    """A folder where a file should be: what was there stays, and nothing else is left."""
    (tmp_path / "out" / "held_out.csv").mkdir(parents=True)
    said = refused(capsys, table, "--output", tmp_path / "out")
    assert "cannot be written" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["held_out.csv"]


def test_singular(table, tmp_path, monkeypatch, capsys):
    def singular(*arguments, **options):
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(kerneldiff.GaussianProcessRegressor, "fit", singular)
    said = refused(capsys, table, "--output", tmp_path / "out")
    assert "no Gaussian process could be fitted" in said


def test_too_many_rows(tmp_path, monkeypatch):
    def too_large(*arguments, **options):
        raise MemoryError("the covariance matrix needs 100 GiB")

    monkeypatch.setattr(kerneldiff.GaussianProcessRegressor, "fit", too_large)
    data = _table.choose(_table.read(write(tmp_path / "t.csv", columns(20))), "drag")
    with pytest.raises(InputError, match="20 rows to learn from are too many: the covariance"):
        _table.fit(data, np.arange(20), "rbf", 0, _table.Progress())
