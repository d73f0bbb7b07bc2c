"""What code runs: its versions, and the commit of its source, which another project's commit is not."""

import subprocess

import pytest

from fastresnet.machine import software

NONE = {"commit": None, "dirty": None}


@pytest.fixture
def repository(tmp_path):
    """A work tree with one committed file."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    commit(tmp_path, "notes.txt")
    return tmp_path


def commit(root, name):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("one")
    who = ["git", "-C", root, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*who, "add", "-f", name], check=True)
    subprocess.run([*who, "commit", "-qm", name], check=True)


def test_the_commit_of_a_checkout_is_named_and_a_changed_file_makes_it_dirty(repository):
    commit(repository, "fastresnet/__init__.py")
    clean = software.git_state(repository / "fastresnet")
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (repository / "notes.txt").write_text("two")
    assert software.git_state(repository / "fastresnet") == {**clean, "dirty": True}


def test_a_package_installed_inside_another_project_has_no_commit_of_its_own(repository):
    installed = repository / ".venv/lib/python3.11/site-packages/fastresnet"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert software.git_state(installed) == NONE, "that commit names other code"
    commit(repository, installed.relative_to(repository) / "__init__.py")
    assert software.git_state(installed) == NONE, "even where somebody committed the environment"


def test_an_untracked_copy_in_a_work_tree_s_root_has_no_commit(repository):
    (repository / "fastresnet").mkdir()
    (repository / "fastresnet/__init__.py").write_text("")
    assert software.git_state(repository / "fastresnet") == NONE


def test_outside_a_work_tree_there_is_no_commit(tmp_path):
    assert software.git_state(tmp_path / "nowhere" / "fastresnet") == NONE
