"""What is built is what a user installs: built, looked into, installed in an empty folder and used from there."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from instance import CHECKOUT

import market_data_platform

ROOT = Path(__file__).resolve().parents[1]


def run(*args: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-m", *args], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    run("hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder), cwd=ROOT)
    return folder


def test_the_wheel_has_the_package_its_types_and_its_licence_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"market_data_platform-{market_data_platform.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        (metadata,) = [opened.read(name).decode() for name in names if name.endswith("METADATA")]
    ours = sorted(path.name for path in (ROOT / "src" / "market_data_platform").iterdir() if path.is_file())
    assert sorted(name.split("/")[1] for name in names if name.startswith("market_data_platform/")) == ours
    assert "market_data_platform/py.typed" in names
    assert [name for name in names if name.endswith("LICENSE")] != []
    assert not any("test" in name for name in names)
    assert "Requires-Python: >=3.10" in metadata
    assert re.findall(r"Requires-Dist: (.*)", metadata) == [
        "httpx<1,>=0.27",
        "websockets>=14",
        "pandas>=2; extra == 'pandas'",
    ]


def test_the_source_archive_can_be_built_from(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/market_data_platform/__init__.py"} <= names


def test_installed_elsewhere_it_can_be_used(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    run("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path), str(wheel), cwd=tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import market_data_platform as mdp\n"
        f"assert mdp.__file__.startswith({str(tmp_path)!r}), mdp.__file__\n"
        "print(mdp.connect('http://127.0.0.1:8080'), mdp.Client('http://127.0.0.1:8080'))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "<AsyncClient of http://127.0.0.1:8080> <Client of http://127.0.0.1:8080>\n"


def test_every_name_that_is_offered_is_there_and_no_other() -> None:
    offered = market_data_platform.__all__
    assert len(set(offered)) == len(offered)
    assert [name for name in offered if not hasattr(market_data_platform, name)] == []


def test_its_licence_is_the_platforms() -> None:
    assert (ROOT / "LICENSE").read_text() == (CHECKOUT / "LICENSE").read_text()


def test_its_pages_show_code_that_reads() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "README.md", "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        for name in re.findall(r"\bfrom market_data_platform import (.*)", block):
            for one in name.split(","):
                assert hasattr(market_data_platform, one.strip()), one
