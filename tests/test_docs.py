"""The documentation builds without a warning, and without the network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import stair_jax

ROOT = Path(stair_jax.__file__).parents[1]
LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*>")


def build(folder, site):
    """`mkdocs build --strict` of the mkdocs.yml in `folder`, with nowhere to fetch from."""
    unreachable = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site],
        cwd=folder,
        env=os.environ | unreachable,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    result = build(ROOT, folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_every_page_is_there(site):
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / f"{path.stem}.html").is_file(), path
    assert (site / "contributing.html").is_file() and (site / "changelog.html").is_file()
    assert not list(site.rglob("*.py"))


def test_a_page_loads_nothing_from_elsewhere(site):
    """Links may lead anywhere; scripts, styles and images are files of the site."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        for element in LOADED.findall(page.read_text()):
            assert "//" not in element, (page, element)


def test_the_page_of_the_api_shows_docstrings(site):
    text = (site / "api.html").read_text()
    assert 'id="stair_jax.training.losses.step_dpo_loss"' in text
    assert "Bradley-Terry" in text


def test_a_link_to_a_source_leads_to_a_page_that_shows_it(site):
    page = "source/stair_jax/search/judging/reward.py.html"
    assert f'href="{page}"' in (site / "configuration.html").read_text()
    assert "SafetyReward" in (site / page).read_text()


@pytest.fixture
def small_site(tmp_path):
    """A function that builds a site of two pages with our hook and checks, in a plain theme."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    config |= {"theme": "mkdocs", "plugins": [], "nav": [{"Start": "index.md"}]}
    config["hooks"] = [str(ROOT / hook) for hook in config["hooks"]]
    config["not_in_nav"] += "\n/contributing.md\n/changelog.md\n"
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "docs").mkdir()
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")

    def make(index, contributing):
        (tmp_path / "docs/index.md").write_text(index)
        (tmp_path / "CONTRIBUTING.md").write_text(contributing)
        return build(tmp_path, tmp_path / "site"), tmp_path / "site"

    return make


def test_links_between_files_of_the_repository_are_links_of_the_site(small_site):
    result, site = small_site(
        "[how](../CONTRIBUTING.md#tests), [config](../mkdocs.yml), [away](https://example.org/a.py)",
        "## Tests\n\n[start](docs/index.md), [changes](CHANGELOG.md), [folder](docs)",
    )
    assert result.returncode == 0, result.stderr
    links = re.findall(r'href="([^"#:]+[^":]*)"', (site / "index.html").read_text())
    assert {"contributing.html#tests", "source/mkdocs.yml.html"} <= set(links)
    assert 'href="https://example.org/a.py"' in (site / "index.html").read_text()
    page = (site / "contributing.html").read_text()
    assert {"index.html", "changelog.html", "source/docs.html"} <= set(
        re.findall(r'href="([^"#:]+)"', page)
    )
    assert "index.md" in (site / "source/docs.html").read_text()
    assert "site_name" in (site / "source/mkdocs.yml.html").read_text()


def test_a_link_to_a_file_that_is_not_there_is_an_error_that_names_it(small_site):
    result, _ = small_site("[gone](../stair_jax/gone.py)", "# Contributing\n")
    assert result.returncode == 1
    assert "gone.py" in result.stderr and "index.md" in result.stderr


def test_a_link_to_a_heading_that_is_not_there_is_an_error_that_names_it(small_site):
    result, _ = small_site("[how](../CONTRIBUTING.md#testing)", "## Tests\n")
    assert result.returncode == 1
    assert "contributing.md#testing" in result.stderr
