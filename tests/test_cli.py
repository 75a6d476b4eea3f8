"""The command line, as a user types it."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from rich.console import Console
from typer.main import get_command

import chiasm
from chiasm.cli import app, main
from chiasm.conversation import Reply
from chiasm.recipe import about, load_recipe, recipes
from chiasm.terminal.chat import _Answer


def run(capsys, *arguments, rc=0):
    """Run one command; its exit status must be `rc`. Returns what it printed."""
    sys.argv = ["chiasm", *map(str, arguments)]
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code or 0
    captured = capsys.readouterr()
    assert code == rc, captured.out + captured.err
    return captured.out + captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the quickstart's tiny overlay, trained and evaluated once for all tests here."""
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    for command in (["train", "quickstart", "--tiny", "--out", folder], ["eval", folder]):
        sys.argv = ["chiasm", *map(str, command)]
        main()
    return folder


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['chiasm', '--help']\nfrom chiasm.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'PIL', 'numpy', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout


def test_train_and_eval_leave_a_run_that_can_be_retold(trained):
    for name in (
        "recipe.yaml",
        "run.json",
        "metrics.jsonl",
        "eval.json",
        "report.html",
        "final/model.safetensors",
    ):
        assert (trained / name).is_file(), name
    tasks = json.loads((trained / "eval.json").read_text())["tasks"]
    assert set(tasks) == {"questions", "phrasings", "generation", "text"}
    assert {"score", "blind", "shuffled", "ci", "n", "by_type"} <= tasks["questions"].keys()
    assert {"object", "count", "place", "all", "diversity", "ci", "n"} <= tasks["generation"].keys()


def test_the_same_command_again_finds_a_finished_run(capsys, trained):
    assert "finished run" in run(capsys, "train", "quickstart", "--tiny", "--out", trained)


def test_another_recipe_in_the_folder_is_an_error(capsys, trained):
    told = run(capsys, "train", "quickstart", "--tiny", "--out", trained, "seed=5", rc=1)
    assert "error:" in told
    assert "seed" in told
    assert "Traceback" not in told


def test_chat_once_with_a_picture(capsys, trained, tmp_path):
    Image.new("RGB", (96, 96), "white").save(tmp_path / "a.png")
    told = run(
        capsys,
        "chat",
        trained,
        "-p",
        tmp_path / "a.png",
        "-m",
        "Is there a dog?",
        "--save",
        tmp_path / "drawn",
    )
    assert told.startswith("model ")


def test_chat_takes_options_of_words_and_images(capsys, trained, monkeypatch):
    class Options(list):
        calls, cut = (), False

    monkeypatch.setattr("chiasm.terminal.chat.Turn", lambda *_, **options: Options([repr(options)]))
    words = ["--word-temperature", 0.5, "--word-top-k", 3, "--word-top-p", 0.9, "--repetition-penalty", 1.5]
    others = ["--stop", ".", "--stop", "!", "--tokens", 9, "--guidance", 2, "--temperature", 0, "--top-k", 4]
    printed = run(capsys, "chat", trained, "-m", "Hello", *words, *others, "--seed", 5)
    for option in (
        "'word_temperature': 0.5", "'word_top_k': 3", "'word_top_p': 0.9", "'repetition_penalty': 1.5",
        "'stop': ['.', '!']", "'tokens': 9", "'guidance': 2.0", "'temperature': 0.0", "'top_k': 4", "'seed': 5",
    ):  # fmt: skip
        assert option in printed


def test_chat_names_an_option_out_of_range(capsys, trained):
    assert "word_top_p: " in run(capsys, "chat", trained, "-m", "Hello", "--word-top-p", 2, rc=1)


def test_chat_names_a_picture_that_is_missing(capsys, trained):
    told = run(capsys, "chat", trained, "-m", "What is in none.png ?", rc=1)
    assert "there is no picture at none.png" in told


def test_generate_saves_pictures(capsys, trained, tmp_path):
    run(
        capsys,
        "generate",
        trained,
        "Draw: a dog at the center.",
        "Draw: a cat at the center.",
        "--out",
        tmp_path,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture-001.png", "picture-002.png"]
    assert Image.open(tmp_path / "picture-001.png").size == (96, 96)


def test_show_tells_shapes_parameters_and_cost(capsys):
    told = run(capsys, "show", "quickstart", "--tiny", "model.connector.type=mlp", "--recipe")
    for word in (
        "chiasm/connectors/mlp.py:",
        "type: mlp",
        "grid 3 x 3 of width 432",
        "9 visual tokens",
        "GFLOP",
        "36 positions an image",
    ):
        assert word in told, word


def test_check_tells_what_is_learnt(capsys):
    told = run(capsys, "check", "quickstart", "--tiny", "--samples", "3")
    assert "read: 9" in told
    assert "scene 0 of world" in told


def test_check_marks_in_letters_what_colours_would_tell(capsys):
    told = run(capsys, "check", "quickstart", "--tiny", "--samples", "20")
    assert "{+learnt+}  given  [image read]  {+[image written]+}" in told
    assert "[read: 9]" in told
    assert "{+[written: 36]+}" in told
    answers = re.findall(r"<\|answer\|>\{\+(.*?)<\|end\|>\+\}", told)
    assert answers, told
    assert "\x1b[" not in told


def test_parts_and_recipes_are_listed(capsys):
    assert "pixel_shuffle" in run(capsys, "parts", "connector")
    told = run(capsys, "recipes")
    for name in ("quickstart", "smol", "llava", "fuyu"):
        assert name in told


def test_world_writes_a_contact_sheet(capsys, tmp_path):
    told = run(
        capsys, "world", "--show", "--out", tmp_path / "world.png", "--scenes", "2", "emoji=12", "language=zh"
    )
    assert "scenes/s" in told
    assert Image.open(tmp_path / "world.png").width > 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nonsense"], "there is no recipe 'nonsense'"),
        (["train", "/nope"], "there is no recipe at /nope: no such file or folder"),
        (["show", "quickstart", "--tiny", "model.connector.fctor=2"], "did you mean 'factor'?"),
        (["parts", "conector"], "there is no slot 'conector'; did you mean 'connector'?"),
        (["chat", "/nowhere", "-m", "x"], "/nowhere"),
        (["world", "emoji"], "not of the form option=value"),
        (["verify", "/nowhere"], "/nowhere"),
        (["eval", "/nope"], "there is no folder /nope"),
        (["eval", "quickstart"], "quickstart is a recipe, not a run; train it first"),
        (["generate", "/nope", "a dog"], "there is no folder /nope"),
        (["train", "quickstart", "--tiny", "stages=[]"], "has no stages, so there is nothing to train"),
        (["check", "quickstart", "--tiny", "stages=[]"], "has no stages, so there is nothing to train"),
    ],
)
def test_a_users_mistake_is_one_sentence(capsys, arguments, message):
    told = run(capsys, *arguments, rc=1)
    assert message in told
    assert "Traceback" not in told


def test_every_command_that_looks_up_a_name_loads_plugins():
    commands = get_command(app).commands
    commands = commands | commands["tokenizer"].commands | commands["data"].commands
    without = {name for name, each in commands.items() if "plugins" not in {p.name for p in each.params}}
    assert without == {
        "recipes",
        "world",
        "tokenizer",
        "data",
        "doctor",
    }  # files, one source, groups of commands, facts


@pytest.mark.usefixtures("nothing_left_behind")
@pytest.mark.parametrize("command", ["train", "check", "show"])
def test_an_unknown_metric_is_met_where_the_recipe_is_read(capsys, tmp_path, command):
    recipe = ("quickstart", "--tiny", "evaluation.metric=exakt")
    out = ("--out", tmp_path / "run") if command == "train" else ()
    told = run(capsys, command, *recipe, *out, rc=1)
    assert "there is no metric 'exakt'; did you mean 'exact'?" in told
    (tmp_path / "own.py").write_text(
        "from chiasm.evaluation.metrics import metric\n@metric('exakt')\ndef own(answer, truths):\n    return 1\n"
    )
    if command == "check":  # one of one's own is known once its plugin is
        run(capsys, command, *recipe, "--samples", 0, "--plugin", tmp_path / "own.py")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0.png", "0.png is no plugin: one is a Python file (metrics.py) or a module (mine.metrics)"),
        ("there", "there is no plugin: one is"),
        ("none.py", "there is no plugin at"),
        ("no_module_of_this_name", "there is no module no_module_of_this_name"),
        ("a b", "a b is no plugin"),
    ],
)
def test_what_is_no_plugin_is_said(capsys, monkeypatch, tmp_path, name, message):
    monkeypatch.chdir(tmp_path)
    for file in ("0.png", "there"):
        (tmp_path / file).write_bytes(b"")
    told = run(capsys, "show", "quickstart", "--tiny", "--plugin", name, rc=1)
    assert message in told


@pytest.mark.parametrize(
    "arguments", [["chat", "-m", ""], ["chat", "-m", " "], ["generate", ""], ["generate", "a", " "]]
)
def test_nothing_is_no_message_and_no_prompt(capsys, trained, arguments):
    command, *rest = arguments
    assert "is empty" in run(capsys, command, trained, *rest, rc=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "quickstart", "--samples", "-1"],
        ["world", "--scenes", "0"],
        ["tokenizer", "report", "x", "--pictures", "0"],
    ],
)
def test_a_number_of_nothing_is_wrong_usage(capsys, arguments):
    assert "should be greater than or equal to" in run(capsys, *arguments, rc=2)


FRAMES = ("\x1b", "╭", "│", "▀", "━")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["tokenizer", "--help"], ["train"], ["nope"]]
)
def test_piped_help_and_usage_are_plain(arguments):
    command = [sys.executable, "-m", "chiasm.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Usage:" in done.stdout + done.stderr
    for frame in FRAMES:
        assert frame not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["train", "serve"])
def test_the_help_of_dtype_says_what_training_takes(command):
    done = subprocess.run(
        [sys.executable, "-m", "chiasm.cli", command, "--help"], capture_output=True, text=True
    )
    assert "fp32, bf16, fp16 or fp64, in training fp32 or bf16" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--preset", "smoke"],
        ["check", "folder"],
        ["check", "--jobs", 2],
        ["report", ".", "--preset", "smoke"],
    ],
)
def test_what_studys_report_and_check_have_no_use_for_is_refused(capsys, arguments):
    assert "has no use for it" in run(capsys, "study", *arguments, rc=1)


def test_an_image_drawn_in_a_piped_chat_is_named_and_not_previewed(capsys, tmp_path):
    image = Image.new("RGB", (8, 8), "red")
    for terminal, previewed in ((False, False), (True, True)):
        shown = object.__new__(_Answer)
        shown.reply, shown.save = Reply(), tmp_path
        shown.console = Console(force_terminal=terminal, width=200)
        shown._show(image)
        printed = capsys.readouterr().out
        assert ("▀" in printed) == previewed
        assert "picture-00" in printed


@pytest.mark.parametrize(("agree", "status"), [(True, 0), (False, 1)])
def test_verify_exits_with_whether_all_agrees(capsys, monkeypatch, agree, status):
    monkeypatch.setattr("chiasm.terminal.verify.run", lambda cases, as_json: agree)
    run(capsys, "verify", "cases", rc=status)


def test_quickstart_evaluates_again_where_the_weights_are_others_than_the_reports(
    capsys, monkeypatch, trained, tmp_path
):
    folder = shutil.copytree(trained, tmp_path / "run")
    evaluated = []
    monkeypatch.setattr("chiasm.cli.train", lambda *_, **__: None)
    monkeypatch.setattr("chiasm.cli.evaluate", lambda folder, **_: evaluated.append(folder))
    run(capsys, "quickstart", "--out", folder)
    assert evaluated == []
    weights = folder / "final" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"more")
    run(capsys, "quickstart", "--out", folder)
    assert evaluated == [folder]
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "report.html").unlink()
    run(capsys, "quickstart", "--out", folder)
    assert evaluated == [folder, folder]


def test_tables_come_first_and_the_recipe_on_request(capsys):
    tables = run(capsys, "show", "quickstart", "--tiny")
    assert "type: pixel_shuffle" not in tables
    whole = run(capsys, "show", "quickstart", "--tiny", "--recipe")
    assert whole.index("through every slot") < whole.index("type: pixel_shuffle")


def test_the_recipes_say_of_themselves_what_they_resolve_to(capsys):
    listed = run(capsys, "recipes")
    for name, path in recipes().items():
        assert about(path) == load_recipe(name).about
        assert about(path) in listed


def test_version(capsys):
    assert run(capsys, "--version") == f"chiasm {chiasm.__version__}\n"


def test_training_ends_with_what_to_type_next(capsys, trained):
    printed = run(capsys, "train", "quickstart", "--tiny", "--out", trained)
    for line in (
        f"{trained}/final",
        f"chiasm eval {trained}",
        f"chiasm chat {trained}",
        f"chiasm generate {trained}",
    ):
        assert line in printed


def test_piped_output_has_no_escapes_frames_or_warnings(tmp_path):
    command = (
        "train",
        "quickstart",
        "--tiny",
        "stages.look.steps=2",
        "stages.talk.steps=2",
        "stages.codes.steps=2",
        "--out",
        tmp_path / "run",
    )
    done = subprocess.run([sys.executable, "-m", "chiasm.cli", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for sign in ("\x1b", "━", "│", "Warning"):
        assert sign not in done.stdout


@pytest.mark.parametrize("name", ["[bold]a[/]", "[/]", "a b"])
def test_brackets_in_paths_are_no_markup(capsys, tmp_path, name):
    out = tmp_path / name
    assert str(out) in run(
        capsys, "world", "--show", "--out", out.with_suffix(".png"), "--scenes", "1", "emoji=12"
    )
    assert str(out) in run(capsys, "show", out, rc=1)


@pytest.mark.parametrize(
    "name", ["file", "file/below", "n" * 300], ids=["a file", "below a file", "300 bytes"]
)
def test_an_output_that_cannot_be_written_is_a_sentence(capsys, tmp_path, name):
    (tmp_path / "file").write_text("")
    printed = run(capsys, "train", "quickstart", "--tiny", "--out", tmp_path / name, rc=1)
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1


def test_wrong_usage_exits_with_two(capsys):
    run(capsys, "train", rc=2)
    run(capsys, "nonsense", rc=2)


def test_an_option_that_can_be_given_once_is_given_once(capsys):
    refused = run(capsys, "chat", "nowhere", "-m", "x", "--message", "y", rc=1)
    assert refused == "error: --message is given 2 times; it can be given once\n"
    assert "--steps is given 2 times" in run(
        capsys,
        "data",
        "select",
        "run",
        "a.jsonl",
        "--target",
        "a",
        "--target",
        "b",
        "--steps=1",
        "--steps=2",
        rc=1,
    )
    several = run(capsys, "chat", "nowhere", "-m", "x", "-p", "a.png", "-p", "b.png", rc=1)
    assert "there is no folder nowhere" in several


@pytest.mark.parametrize(
    "command",
    [
        "generate nowhere prompt --out",
        "edit nowhere a.png prompt --out",
        "complete nowhere a.png --out",
        "synthesise nowhere sound prompt --out",
        "chat nowhere -m x --save",
    ],
)
def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_loaded(capsys, tmp_path, command):
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        assert run(capsys, *command.split(), place, rc=1) == f"error: {file} is a file; name a folder\n"


def test_a_slot_that_is_not_there_is_all_that_is_said(capsys):
    assert run(capsys, "parts", "conector", rc=1) == (
        "error: there is no slot 'conector'; did you mean 'connector'?\n"
    )
