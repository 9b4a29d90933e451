import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.studio.clients import Client
from tests.studio.programs import PROGRAM
from tests.studio.waiting import until
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.studio.features import ImageFeatures, extract_features
from thaw.studio.images import Images
from thaw.studio.journal import Journal
from thaw.studio.project import Project
from thaw.studio.training import Training
from thaw.studio.workspace import Workspace

Opened = Callable[..., Workspace]


@pytest.fixture
def opened(tmp_path: Path, images: Path, quick: Recipe) -> Iterator[Opened]:
    """Opens a project of some images, by default the small steel surfaces; closed at the end."""
    with ExitStack() as stack:

        def open_project(place: Path | None = images, table: Path | None = None) -> Workspace:
            project = Project.open(tmp_path / "studio", place, table)
            return stack.enter_context(closing(Workspace(project, quick, NullReporter().bar)))

        yield open_project


@pytest.fixture
def workspace(opened: Opened) -> Workspace:
    return opened()


@pytest.fixture(scope="session")
def untouched(images: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A window of a project that no test changes."""
    project = Project.open(tmp_path_factory.mktemp("untouched") / "studio", images)
    with closing(Workspace(project, quick, NullReporter().bar)) as workspace:
        yield Client(workspace)
        assert workspace.labels.changed == 0


@pytest.fixture
def client(workspace: Workspace) -> Client:
    """A window of a browser that has opened the address of Studio."""
    return Client(workspace)


@pytest.fixture
def empty(tmp_path: Path, quick: Recipe) -> Iterator[Client]:
    """A window of a new project without images."""
    with closing(Workspace(Project.open(tmp_path / "cracks"), quick, NullReporter().bar)) as workspace:
        yield Client(workspace)


@pytest.fixture(scope="session")
def listed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images.open(
        Project(tmp_path_factory.mktemp("listed"), images), tmp_path_factory.mktemp("memory"), NullReporter().bar
    )


@pytest.fixture(scope="session")
def features(listed: Images, quick: Recipe) -> ImageFeatures:
    return extract_features(listed, quick, NullReporter().bar)


@pytest.fixture
def with_run(workspace: Workspace, trained: RunFolder) -> RunFolder:
    """The finished run of the quick recipe, as one that was started in the project."""
    shutil.copytree(trained.path, workspace.project.runs / "train-1")
    return RunFolder(workspace.project.runs / "train-1")


@pytest.fixture
def project(tmp_path: Path, images: Path) -> Project:
    made = Project.open(tmp_path / "studio", images)
    made.make()
    return made


@pytest.fixture
def training_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is started instead of `thaw train`."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.fixture
def training(project: Project, training_program: None) -> Iterator[Training]:
    """The runs of a project, each of which is the program."""
    with closing(Journal(project.actions)) as actions:
        made = Training(project, Recipe(), actions)
        yield made
        if made.is_running:
            made.stop()
        until(lambda: not made.is_running)
