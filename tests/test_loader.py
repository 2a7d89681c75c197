from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from voiceflow import Pipeline
from voiceflow.errors import DeclarationError, PipelineFileError
from voiceflow.server import loader
from voiceflow.server.project import Project

if TYPE_CHECKING:
    from voiceflow import Call

Write = Callable[[str, str], Path]
GOOD = """\
from voiceflow import Pipeline, Processor

def pipeline(call):
    made = Pipeline(Processor(), parts=True)
    made.given = (call)
    return made
"""


@pytest.fixture(autouse=True)
def _fresh_interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back `sys.path` and `sys.modules`, as if each test had a process of its own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.startswith("_pipeline_")]:  # another test file's
        monkeypatch.delitem(sys.modules, name)
    before = set(sys.modules)
    yield
    for name in sys.modules.keys() - before:
        if name.startswith(("_pipeline_", "mine", "helper", "processors.mine", "processors.other")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the user's project, its folders included; the text may be indented."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def refused(path: Path | str) -> PipelineFileError:
    with pytest.raises(PipelineFileError) as caught:
        loader.load(path)
    return caught.value


def given(agent: loader.PipelineFile, call: object = "a call") -> object:
    """What the file put into the pipeline that it made for `call`."""
    made: Any = agent.make(cast("Call", call))
    assert isinstance(made, Pipeline)
    return made.given  # type: ignore[attr-defined]


def edit(path: Path, text: str) -> None:
    """Writes `path` again, a second later by its modification time."""
    later = path.stat().st_mtime_ns + 1_000_000_000
    path.write_text(text)
    os.utime(path, ns=(later, later))


# -- a file that works -------------------------------------------------------------------------------


def test_makes_a_pipeline_for_every_call(write: Write) -> None:
    agent = loader.load(write("agent.py", GOOD))
    assert given(agent, "one") == "one"
    assert given(agent, "two") == "two"
    assert agent.line == 3


def test_the_pipeline_that_is_shipped_loads() -> None:
    agent = loader.load(Path(__file__).parents[1] / "pipelines/vad_only.py")
    assert not agent.changed()


def test_voiceflow_itself_is_never_reloaded() -> None:
    """In the checkout it lies in the project's folder; two copies of the frames could not meet."""
    project = Project(Path(__file__).parents[1] / "pipelines/vad_only.py")
    assert not project.owns(Path(loader.__file__))
    assert project.owns(Path(__file__).parents[1] / "processors/play.py")


def test_takes_a_relative_path(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("agent.py", GOOD)
    monkeypatch.chdir(tmp_path)
    agent = loader.load("agent.py")
    monkeypatch.chdir("/")
    assert list(agent.sources()) == [tmp_path / "agent.py"]
    assert given(agent) == "a call"


def test_each_load_has_a_module_of_its_own(write: Write) -> None:
    path = write("agent.py", GOOD + "class Mark: pass\n")
    first, second = loader.load(path), loader.load(path)
    names = [name for name in sys.modules if name.startswith("_pipeline_")]
    assert len(names) == 2
    assert sys.modules[names[0]].Mark is not sys.modules[names[1]].Mark
    assert given(first) == given(second) == "a call"


def test_dataclasses_find_the_module(write: Write) -> None:
    text = """\
from __future__ import annotations
from dataclasses import dataclass, KW_ONLY, fields
from typing import ClassVar

@dataclass
class Settings:
    shared: ClassVar[int] = 1
    _: KW_ONLY
    name: str = "x"

"""
    names = GOOD.replace("(call)\n", "[field.name for field in fields(Settings(name='y'))]\n")
    assert given(loader.load(write("agent.py", text + names))) == ["name"]


def test_a_function_with_defaults_or_a_callable_object_is_fine(write: Write) -> None:
    with_default = GOOD.replace("pipeline(call)", "pipeline(call, voice='x')")
    variable = GOOD.replace("pipeline(call)", "pipeline(*calls)").replace("(call)\n", "calls[0]\n")
    an_object = GOOD.replace("def pipeline", "def make") + (
        "class Make:\n    def __call__(self, call): return make(call)\npipeline = Make()\n"
    )
    for text in (with_default, variable, an_object):
        assert given(loader.load(write("agent.py", text))) == "a call"


# -- the path ----------------------------------------------------------------------------------------


def test_missing_file_suggests_similar_names(write: Write, tmp_path: Path) -> None:
    write("phone_agent.py", GOOD)
    write("pipelines/phone_agents.py", GOOD)
    write("other.py", GOOD)
    text = str(refused(tmp_path / "phone-agent.py"))
    assert text.startswith(f"{tmp_path}/phone-agent.py: there is no such file. Did you mean ")
    assert f"{tmp_path}/phone_agent.py" in text
    assert f"{tmp_path}/pipelines/phone_agents.py" in text
    assert "other" not in text


def test_missing_file_without_its_suffix(write: Write, tmp_path: Path) -> None:
    write("phone_agent.py", GOOD)
    assert f"Did you mean {tmp_path}/phone_agent.py?" in str(refused(tmp_path / "phone_agent"))


def test_missing_file_unlike_any_other_lists_what_is_there(write: Write, tmp_path: Path) -> None:
    assert "It has no Python files" in str(refused(tmp_path / "x.py"))
    write("agent.py", GOOD)
    assert f"Python files there: {tmp_path}/agent.py." in str(refused(tmp_path / "x.py"))
    for number in range(10):
        write(f"other{number}.py", GOOD)
    assert str(refused(tmp_path / "x.py")).endswith("other4.py, ....")


def test_missing_folder(tmp_path: Path) -> None:
    assert f"There is no folder {tmp_path}/no either." in str(refused(tmp_path / "no" / "agent.py"))


def test_folder(write: Write, tmp_path: Path) -> None:
    write("pipelines/agent.py", GOOD)
    text = str(refused(tmp_path))
    assert f"{tmp_path}: is a folder, not a pipeline file. Python files there: " in text
    assert f"{tmp_path}/pipelines/agent.py" in text


def test_not_python(write: Write) -> None:
    assert "is not a Python file: a pipeline file's name ends in .py." in str(refused(write("a.txt", GOOD)))


def test_unreadable_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("agent.py", GOOD)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # not chmod: root may read everything
    assert str(refused(path)) == f"{path}: cannot be read: Permission denied."


def test_loop_of_symlinks(tmp_path: Path) -> None:
    (tmp_path / "agent.py").symlink_to("agent.py")
    assert "there is no such file" in str(refused(tmp_path / "agent.py"))


# -- the text ----------------------------------------------------------------------------------------


def test_syntax_error(write: Write) -> None:
    path = write("agent.py", "x = 1\n\ndef pipeline(call:\n    return 1\n")
    error = refused(path)
    assert error.line == 3
    assert str(error).startswith(f"{path}:3: SyntaxError: ")
    assert "\n    def pipeline(call:\n" in str(error)
    assert str(error).splitlines()[-1].strip() == "^"
    assert isinstance(error.__cause__, SyntaxError)


def test_indentation_error(write: Write) -> None:
    error = refused(write("agent.py", "def pipeline(call):\nreturn 1\n"))
    assert error.line == 2
    assert "IndentationError: expected an indented block" in str(error)


def test_text_that_is_no_text(write: Write, tmp_path: Path) -> None:
    (tmp_path / "bytes.py").write_bytes(b"x = 1\nname = '\xff\xfe'\n")
    assert "utf-8" in str(refused(tmp_path / "bytes.py"))
    (tmp_path / "null.py").write_bytes(b"x = 1\0\n")
    assert "null bytes" in str(refused(tmp_path / "null.py"))


def test_coding_cookie_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.py"
    text = "# coding: latin-1\n" + GOOD.replace("(call)\n", "'\xe9'\n")
    path.write_bytes(text.encode("latin-1"))
    assert given(loader.load(path)) == "\xe9"


# -- while it is loaded ------------------------------------------------------------------------------


def test_exception_names_the_deepest_line_of_the_file(write: Write) -> None:
    path = write("agent.py", "def check(x):\n    return 1 / x\n\ncheck(0)\n")
    error = refused(path)
    assert str(error) == f"{path}:2: ZeroDivisionError: division by zero"


def test_exception_inside_the_standard_library_names_the_line_that_called_it(write: Write) -> None:
    error = refused(write("agent.py", "import json\n\njson.loads('{')\n"))
    assert error.line == 3
    assert "json.decoder.JSONDecodeError" in str(error)


def test_declaration_error_keeps_its_text(write: Write) -> None:
    path = write(
        "agent.py",
        """\
        from voiceflow.errors import DeclarationError
        class Redact:
            def __init_subclass__(cls):
                raise DeclarationError("Mine.redact never returns: say stops=True")
        class Mine(Redact):
            pass
        """,
    )
    assert str(refused(path)) == f"{path}:4: Mine.redact never returns: say stops=True"


def test_class_that_cannot_work_names_its_line(write: Write) -> None:
    path = write(
        "agent.py",
        """\
        from voiceflow import Processor, Token, on

        class Redact(Processor):
            @on(Token)
            def redact(self, token):
                token.text.upper()
        """,
    )
    error = refused(path)
    assert error.line == 4
    assert "Redact.redact" in str(error)


def test_missing_package_says_how_to_install_it(write: Write) -> None:
    path = write("agent.py", "import os\nimport nonesuch_vendor.client\n")
    error = refused(path)
    assert error.line == 2
    assert f"{path}:2: there is no module 'nonesuch_vendor'." in str(error)
    assert str(error).endswith(f"\n    {sys.executable} -m pip install nonesuch_vendor")


def test_missing_package_with_another_name(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loader.PACKAGES, "nonesuch_vendor", "nonesuch-sdk")
    assert str(refused(write("agent.py", "import nonesuch_vendor\n"))).endswith("pip install nonesuch-sdk")


def test_missing_processor_suggests_one_and_says_where_it_looked(write: Write, tmp_path: Path) -> None:
    write("processors/mine.py", "class Mine: pass\n")
    error = refused(write("agent.py", "from processors.mines import Mine\n"))
    assert error.line == 1
    assert "there is no module 'processors.mines'. Did you mean processors.mine?" in str(error)
    assert f"Looked for mines.py in {tmp_path}/processors, " in str(error)
    assert "pip install" not in str(error)


def test_missing_module_of_the_users_suggests_one(write: Write) -> None:
    write("helper_texts.py", "")
    assert "Did you mean helper_texts?" in str(refused(write("agent.py", "import helper_text\n")))


def test_module_that_is_no_package(write: Write) -> None:
    write("helper.py", "")
    text = str(refused(write("agent.py", "import helper.texts\n")))
    assert "'helper' is not a package" in text
    assert "pip install" not in text


def test_missing_name_in_a_module(write: Write) -> None:
    write("processors/mine.py", "class Mine: pass\n")
    error = refused(write("agent.py", "\nfrom processors.mine import Mime\n"))
    assert error.line == 2
    assert "ImportError: cannot import name 'Mime' from 'processors.mine'" in str(error)


def test_relative_import_is_explained(write: Write) -> None:
    error = refused(write("agent.py", "from .mine import X\n"))
    assert error.line == 1
    assert "write `from mine import X` without the dot" in str(error)


def test_error_in_a_module_of_the_users_names_both_lines(write: Write, tmp_path: Path) -> None:
    write("processors/mine.py", "x = 1\n\ny = x.nothing\n")
    path = write("agent.py", "import os\nfrom processors import mine\n")
    text = str(refused(path))
    assert text.startswith(f"{path}:2: {tmp_path}/processors/mine.py:3: AttributeError: ")
    assert "'nothing'" in text


def test_syntax_error_in_a_module_of_the_users_names_both_lines(write: Write, tmp_path: Path) -> None:
    write("processors/mine.py", "x = 1\ny = (\n")
    path = write("agent.py", "from processors import mine\n")
    text = str(refused(path))
    assert text.startswith(f"{path}:1: {tmp_path}/processors/mine.py:2: SyntaxError: '(' was never closed")


def test_sys_exit_is_reported_not_obeyed(write: Write) -> None:
    path = write("agent.py", "import sys\n\nsys.exit(3)\n")
    error = refused(path)
    assert str(error).startswith(f"{path}:3: calls sys.exit() while it is loaded")


def test_ctrl_c_while_loading_is_obeyed(write: Write) -> None:
    path = write("agent.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        loader.load(path)
    assert not [name for name in sys.modules if name.startswith("_pipeline_")]


def test_main_guard_is_not_run(write: Write) -> None:
    loader.load(write("agent.py", GOOD + "if __name__ == '__main__':\n    raise SystemExit\n"))


# -- the function ------------------------------------------------------------------------------------


def test_no_function_lists_what_there_is(write: Write) -> None:
    path = write("agent.py", "from os.path import join\ndef build(call): ...\ndef other(): ...\nx = 1\n")
    text = str(refused(path))
    assert text.startswith(f"{path}: has no function named pipeline. Its functions: build, other. Write\n")
    assert text.endswith(loader.EXAMPLE)
    assert not [name for name in sys.modules if name.startswith("_pipeline_")]


def test_empty_file(write: Write) -> None:
    assert "It has no functions at all" in str(refused(write("agent.py", "")))


def test_pipeline_that_is_not_a_function(write: Write) -> None:
    text = GOOD + "pipeline = pipeline(None)\n"
    assert "pipeline is of type Pipeline, not a function" in str(refused(write("agent.py", text)))
    assert "pipeline is a module" in str(
        refused(write("agent.py", "import voiceflow.declaration.pipeline as pipeline\n"))
    )


def test_async_function(write: Write) -> None:
    error = refused(write("agent.py", "\n\nasync def pipeline(call):\n    return None\n"))
    assert error.line == 3
    assert "pipeline is an `async def`" in str(error)


def test_generator_function(write: Write) -> None:
    error = refused(write("agent.py", "def pipeline(call):\n    yield 1\n"))
    assert error.line == 1
    assert "contains a `yield`" in str(error)


@pytest.mark.parametrize("parameters", ["", "call, line", "*, call", "call, *, voice"])
def test_wrong_number_of_parameters(write: Write, parameters: str) -> None:
    error = refused(write("agent.py", f"x = 1\ndef pipeline({parameters}):\n    return None\n"))
    assert error.line == 2
    assert f"must take one parameter, the call; this one takes ({parameters})." in str(error)


# -- for a call --------------------------------------------------------------------------------------


def refused_for_a_call(path: Path) -> PipelineFileError:
    agent = loader.load(path)
    with pytest.raises(PipelineFileError) as caught:
        agent.make(cast("Call", None))
    return caught.value


def test_exception_in_pipeline(write: Write) -> None:
    path = write(
        "agent.py", "def pipeline(call):\n    return part(call)\n\ndef part(call):\n    return call.x\n"
    )
    assert str(refused_for_a_call(path)).startswith(f"{path}:5: AttributeError: 'NoneType' object")


def test_chain_that_fails_its_check_keeps_its_text(write: Write) -> None:
    path = write(
        "agent.py",
        """\
        from processors.turns import VADTurns
        from voiceflow import Pipeline
        def pipeline(call):
            return Pipeline(
                VADTurns(),
            )
        """,
    )
    error = refused_for_a_call(path)
    assert isinstance(error.__cause__, DeclarationError)
    assert str(error) == f"{path}:4: {error.__cause__}"


def test_sys_exit_in_pipeline(write: Write) -> None:
    error = refused_for_a_call(write("agent.py", "def pipeline(call):\n    exit(1)\n"))
    assert error.line == 2
    assert "calls sys.exit() in pipeline(call)" in str(error)


def test_cancellation_in_pipeline_passes(write: Write) -> None:
    path = write("agent.py", "import asyncio\ndef pipeline(call):\n    raise asyncio.CancelledError\n")
    agent = loader.load(path)
    with pytest.raises(asyncio.CancelledError):
        agent.make(cast("Call", None))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "pipeline(call) returned nothing: is there a `return`?"),
        ("[1, 2]", "pipeline(call) returned a list: put it into Pipeline(...)."),
        ("(1, 2)", "pipeline(call) returned a tuple: put it into Pipeline(...)."),
        ("'x'", "pipeline(call) must return a Pipeline, not str."),
        ("later()", "pipeline(call) must return a Pipeline, not coroutine."),
    ],
)
def test_what_is_not_a_pipeline(write: Write, returned: str, said: str) -> None:
    path = write("agent.py", f"async def later(): ...\n\ndef pipeline(call):\n    return {returned}\n")
    error = refused_for_a_call(path)
    assert error.line == 3
    assert said in str(error)


# -- the project -------------------------------------------------------------------------------------


def both(write: Write) -> str:
    """A pipeline that needs a processor of the user's beside one of ours."""
    write("processors/mine.py", "class Mine: pass\n")
    return "from processors.mine import Mine\nfrom processors.twilio import codec\n" + GOOD


def test_the_users_processors_join_ours(write: Write) -> None:
    import processors.twilio  # before the user's folder is known: the namespace must grow

    assert processors.twilio is sys.modules["processors.twilio"]
    loader.load(write("agent.py", both(write)))
    assert "processors.mine" in sys.modules
    assert processors.twilio is sys.modules["processors.twilio"]  # ours was not loaded a second time


def test_processors_beside_the_pipelines_folder_join_too(write: Write) -> None:
    write("pipelines/helper.py", "x = 1\n")
    agent = loader.load(write("pipelines/agent.py", "import helper\n" + both(write)))
    assert {path.name for path in agent.sources()} == {"agent.py", "helper.py", "mine.py"}


def test_two_projects_have_processors_of_their_own(write: Write) -> None:
    for name in ("a", "b"):
        write(f"{name}/processors/mine.py", f"NAME = {name!r}\n")
        write(f"{name}/agent.py", GOOD.replace("(call)\n", "(mine.NAME)\n") + "from processors import mine\n")
    for name in ("a", "b", "a"):
        path = write(f"{name}/processors/other.py", "")
        agent = loader.load(path.parents[1] / "agent.py")
        assert given(agent) == name


@pytest.mark.parametrize("folder", ["processors", "pipelines"])
@pytest.mark.parametrize("file", ["agent.py", "pipelines/agent.py"])
def test_init_file_that_hides_ours_is_explained(write: Write, folder: str, file: str) -> None:
    marker = write(f"{folder}/__init__.py", "raise RuntimeError('must not be run')\n")
    error = refused(write(file, "raise RuntimeError('must not be run')\n"))
    assert f"{marker} hides voiceflow's own {folder}" in str(error)
    assert "Delete that file" in str(error)


def test_module_that_hides_ours_is_explained(write: Write) -> None:
    module = write("processors.py", "")
    assert f"{module} hides voiceflow's own processors. Give that file another" in str(
        refused(write("agent.py", GOOD))
    )


def test_installed_package_that_hides_ours_is_explained(write: Write, tmp_path: Path) -> None:
    taken = write("site-packages/processors/__init__.py", "")
    sys.path.append(str(tmp_path / "site-packages"))
    text = str(refused(write("agent.py", GOOD)))
    assert f"another installed package named processors ({taken}) hides voiceflow's own" in text


def test_a_pipeline_file_may_be_called_pipelines(write: Write) -> None:
    loader.load(write("pipelines.py", GOOD))


# -- sources and reload ------------------------------------------------------------------------------


def test_sources_are_the_file_and_the_users_modules(write: Write, tmp_path: Path) -> None:
    write("processors/mine.py", "class Mine: pass\n")
    write("helper.py", "")
    write("helper_late.py", "")
    write("unused.py", "")
    write(".venv/lib/site-packages/mine_installed.py", "")
    sys.path.append(str(tmp_path / ".venv/lib/site-packages"))
    path = write(
        "agent.py",
        """
        import helper, json, mine_installed
        from processors.mine import Mine
        from voiceflow import Pipeline, Processor

        def pipeline(call):
            import helper_late
            return Pipeline(Processor(), parts=True)
        """,
    )
    agent = loader.load(path)
    expected = {path, tmp_path / "helper.py", tmp_path / "processors/mine.py"}
    assert set(agent.sources()) == expected
    assert agent.sources()[path] == path.stat().st_mtime_ns
    agent.make(cast("Call", None))
    assert set(agent.sources()) == expected | {tmp_path / "helper_late.py"}


def test_changed_says_so_once(write: Write, tmp_path: Path) -> None:
    path = write("agent.py", "import helper\n" + GOOD)
    helper = write("helper.py", "")
    agent = loader.load(path)
    assert not agent.changed()
    edit(helper, "x = 1\n")
    assert agent.changed()
    assert not agent.changed()
    path.rename(tmp_path / "away")  # an editor that saves by moving files
    assert not agent.changed()
    (tmp_path / "away").rename(path)
    assert not agent.changed()
    edit(path, GOOD)
    assert agent.changed()


def test_reload_sees_edits_in_the_file_and_in_modules(write: Write) -> None:
    text = "import helper\nfrom processors import mine\n" + GOOD.replace("(call)\n", "(helper.X, mine.Y)\n")
    path = write("agent.py", text)
    helper, mine = write("helper.py", "X = 'old'\n"), write("processors/mine.py", "Y = 'old'\n")
    old = loader.load(path)
    edit(helper, "X = 'edited'\n")
    edit(mine, "Y = 'edited too'\n")
    new = old.reload()
    assert given(old) == ("old", "old")
    assert given(new) == ("edited", "edited too")
    assert set(new.sources()) == set(old.sources())


def test_reload_sees_a_module_that_is_new(write: Write, tmp_path: Path) -> None:
    write("processors/mine.py", "")
    agent = loader.load(write("agent.py", "import processors.mine\n" + GOOD))
    folder = (tmp_path / "processors").stat().st_mtime_ns
    write("processors/other.py", "")
    os.utime(tmp_path / "processors", ns=(folder, folder))  # a file system with coarse times
    write("agent.py", "import processors.mine\nimport processors.other\n" + GOOD)
    assert len(agent.reload().sources()) == 3


def test_failed_reload_watches_what_has_to_be_mended(write: Write) -> None:
    path = write("agent.py", GOOD)
    agent = loader.load(path)
    helper = write("helper.py", "x = 1 / 0\n")
    edit(path, "import helper\n" + GOOD)
    assert agent.changed()
    with pytest.raises(PipelineFileError, match="ZeroDivisionError"):
        agent.reload()
    assert not agent.changed()
    edit(helper, "x = (\n")
    assert agent.changed()
    with pytest.raises(PipelineFileError, match="never closed"):
        agent.reload()
    assert given(agent) == "a call"
    edit(helper, "x = 1\n\n\n")
    assert agent.changed()
    assert helper in agent.reload().sources()


def test_reload_of_a_file_that_is_gone(write: Write) -> None:
    path = write("agent.py", GOOD)
    agent = loader.load(path)
    path.unlink()
    with pytest.raises(PipelineFileError, match="no such file"):
        agent.reload()
    write("agent.py", GOOD + "\n")
    assert agent.changed()
    assert given(agent.reload()) == "a call"
