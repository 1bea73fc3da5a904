from configparser import ConfigParser
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import pytest
from spacy_llm.registry import registry

from .conftest import ROOT


def _read_entry_points() -> list[tuple[str, str, str]]:
    """Group, name and target of each entry point of setup.cfg."""
    config = ConfigParser(delimiters=("=",), interpolation=None)
    config.optionxform = str  # type: ignore[assignment, method-assign]
    config.read(ROOT / "setup.cfg", encoding="utf8")
    points = []
    for group, block in config["options.entry_points"].items():
        for line in block.strip().splitlines():
            name, _, target = line.partition("=")
            points.append((group, name.strip(), target.strip()))
    return points


_POINTS = _read_entry_points()
# The groups that are registries of spaCy's; the others are commands.
_REGISTERED = [
    (group.partition("_")[2], name, target)
    for group, name, target in _POINTS
    if group.startswith(("thinc_", "spacy_")) and group != "spacy_cli"
]


def test_setup_cfg_registers_something() -> None:
    assert ("llm_tasks", "instaner.NER.v1") in {point[:2] for point in _REGISTERED}


@pytest.mark.parametrize(("group", "name", "target"), _POINTS)
def test_target_is_there(group: str, name: str, target: str) -> None:
    module, _, function = target.partition(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize(("kind", "name", "target"), _REGISTERED)
def test_name_is_registered(kind: str, name: str, target: str) -> None:
    try:
        version("instaner")
    except PackageNotFoundError:
        pytest.skip("instaner is not installed")
    module, _, function = target.partition(":")
    assert registry.get(kind, name) is getattr(import_module(module), function)


@pytest.mark.parametrize(("kind", "name", "target"), _REGISTERED)
def test_name_has_a_version(kind: str, name: str, target: str) -> None:
    if kind == "factories":
        pytest.skip("factories have none")
    assert name.startswith("instaner.")
    assert name.rpartition(".v")[2].isdigit()
