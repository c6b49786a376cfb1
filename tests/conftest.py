"""Shared fixtures. `pytest --task ./mytask.py` runs the contract tests over a user's file too."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported, and for the programs that tests start: several tests run at a time, and
# threads that wait busily for one another on cores that others use are several times as slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before any test file imports Ray, which reads it then: its clusters keep to the loopback. A
# machine's other address may not be reachable from itself.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest
import torch
from PIL import Image

from bench.files import sealed
from bench.pictures import downloads
from bench.registry import registered
from bench.run import runner
from bench.run.plan import Experiment, experiment
from bench.run.records import Record, dumps, loads
from bench.run.runner import Run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--task", action="append", default=[], help="a task file to test")
    parser.addoption("--method", action="append", default=[], help="a method file to test")
    parser.addoption("--slow", action="store_true", help="run what takes minutes, too")
    parser.addoption("--device", default="cpu", help="where the contract is tested, as cuda")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="minutes long: --slow runs it"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: minutes long; runs with --slow")
    config.addinivalue_line("markers", "over(which): the pairs that a contract test runs over")
    for what in ("task", "method"):  # names stay, files have a place wherever a test works
        words = config.getoption(f"--{what}")
        words[:] = [w if registered(w, what) else str(Path(w).resolve()) for w in words]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _cells_run_here(_the_cache_stays: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes seconds: a command in a test's own process does without, where the
    test does not ask for a pool."""
    monkeypatch.setattr(runner, "usual_place", lambda: "here")


@pytest.fixture(autouse=True)
def _the_cache_stays() -> Iterator[None]:
    """A test that leaves another cache folder behind would have the next ones fetch all anew."""
    name = downloads.CACHE_VARIABLE
    before = os.environ.get(name)
    yield
    after = os.environ.pop(name, None)
    os.environ |= {} if before is None else {name: before}
    assert after == before, f"{name} was {before} and is {after} afterwards"


@pytest.fixture(scope="session")
def completed() -> Callable[..., Run]:
    """Trains and measures experiments in a results folder; a failure fails the test."""

    def run(root: Path, *experiments: Experiment, device: str = "cpu") -> Run:
        whole = Run(root, list(experiments), torch.device(device))
        whole.open_data()
        whole.execute(whole.train_jobs(), "training", lambda: False)
        whole.execute(whole.record_jobs(), "measuring", lambda: False)
        assert whole.failures == []
        return whole

    return run


@pytest.fixture(scope="session")
def toy_results(tmp_path_factory: pytest.TempPathFactory, completed: Callable[..., Run]) -> Path:
    """A whole results folder; `root` is a test's own copy of it."""
    root = tmp_path_factory.mktemp("toy") / "results"
    completed(root, experiment("toy", "smoke", ["fixed_grid", "yoto"])).save_config()
    return root


@pytest.fixture
def root(toy_results: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy_results, tmp_path / "results")


@pytest.fixture
def change_records(root: Path) -> Callable[..., None]:
    """Changes every record's head, and its rows, so that both still agree."""

    def change(
        change_head: Callable[[dict[str, Any]], Any],
        change_rows: Callable[[list[Record]], list[Record]] = lambda rows: rows,
    ) -> None:
        for path in root.glob("records/*/*/*.json"):
            head, table = json.loads(path.read_bytes()), path.with_suffix(".csv")
            change_head(head)
            if table.exists():
                same = ["task", "preset", "experiment"]
                same += [] if head["kind"] == "context" else ["method", "setting"]
                rows = change_rows(loads(table.read_text(), "a table"))
                rows = [row._replace(**{name: head[name] for name in same}) for row in rows]
                table.write_bytes(dumps(rows).encode())
                head["sha256"] = hashlib.sha256(table.read_bytes()).hexdigest()
            path.write_text(sealed(head))

    return change


@pytest.fixture(scope="session")
def artefact() -> Callable[[str], Path]:
    """The file of an artefact by name. Without it a test is skipped; where
    YOTO_BENCH_REQUIRE_WEIGHTS is set, as in `.ci/run`, it fails."""

    def get(name: str) -> Path:
        try:
            return downloads.get(name)
        except downloads.Unavailable as error:
            if os.environ.get("YOTO_BENCH_REQUIRE_WEIGHTS"):
                raise
            pytest.skip(f"{name} cannot be had here: {error}")

    return get


NEEDS = {
    "beta_vae_cifar10": ["cifar10"],
    "compression": ["alexnet-convs"],
    "fairness": ["adult"],
    "digits": ["digits"],
    "style": ["vgg16-convs", "alexnet-convs", "wheat-field-with-cypresses"],
}


@pytest.fixture(scope="session")
def fetched(artefact: Callable[[str], Path]) -> Callable[[str], None]:
    """Gets the artefacts of a task, by its name."""

    def get(task_name: str) -> None:
        for name in NEEDS.get(task_name, []):
            artefact(name)

    return get


@pytest.fixture(scope="session")
def small_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts of a photograph to test on, hardly larger than MS-SSIM needs: measuring whole ones
    takes ten times as long as all else in the life of a small codec."""
    from bench.tasks.photographs import photographs

    folder = tmp_path_factory.mktemp("pictures")
    (_, picture), *_ = photographs("test").examples()
    for name, corner in (("one", picture[0, :, :176, :184]), ("two", picture[0, :, 99:275, :177])):
        pixels = (corner * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def two_paintings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where two lie that differ in colour and in strokes: upright bars of red, and blue dots."""
    folder = tmp_path_factory.mktemp("paintings")
    y, x = torch.meshgrid(torch.arange(64), torch.arange(72), indexing="ij")
    bars, dots = (x // 4 % 2).float(), ((x // 6 + y // 6) % 2 == 0).float()
    ground = torch.ones_like(bars)
    for name, planes in (
        ("bars", (0.9 * ground, 0.8 * bars, 0.1 * ground)),
        ("dots", (0.2 * dots, 0.3 * ground, 0.9 * dots)),
    ):
        pixels = (torch.stack(planes, -1) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return ";".join(str(folder / f"{name}.png") for name in ("bars", "dots"))


@pytest.fixture
def shapes3d(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A 3dshapes.h5 of 600 pictures, and a suite that expects as many instead of 480,000."""
    import h5py

    from bench.tasks import beta_vae_data

    monkeypatch.setattr(beta_vae_data, "SHAPES3D", 600)
    monkeypatch.setattr(beta_vae_data, "SHAPES3D_COUNTS", (5, 5, 3, 2, 2, 2))
    path = tmp_path_factory.getbasetemp() / "3dshapes.h5"
    if not path.exists():
        seeded = torch.Generator().manual_seed(0)
        pictures = torch.randint(256, (600, 64, 64, 3), dtype=torch.uint8, generator=seeded)
        with h5py.File(path, "w") as file:
            file["images"] = pictures.numpy()
    return path
