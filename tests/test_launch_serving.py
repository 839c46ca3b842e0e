"""The image of the server and its manifest name files, flags, ports and volumes that exist."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

from stair_jax.commands import serve
from stair_jax.commands.flags import make_parser, read_arguments
from stair_jax.commands.settings_flags import read_settings
from stair_jax.server.settings import ServerSettings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "launch/Dockerfile").read_text()
MANIFEST = ROOT / "launch/kubernetes/serve.yaml"
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def instructions():
    """(name, rest) of the lines of the Dockerfile, those that are continued joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def named(name):
    return [rest for found, rest in instructions() if found == name]


@pytest.fixture(scope="module")
def manifest():
    """The objects of the manifest, by kind."""
    return {found["kind"]: found for found in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.fixture(scope="module")
def pod(manifest):
    return manifest["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["containers"]
    return container


@pytest.fixture(scope="module")
def settings(container):
    """Those of the server that the manifest starts."""
    parser = make_parser("serve", serve.SUMMARY, serve.add_flags)
    return read_settings(read_arguments(parser, container["args"]).options, ServerSettings)


def test_the_image_copies_files_that_exist_and_nothing_else_is_sent():
    sources = [word for rest in named("COPY") for word in rest.split()[:-1]]
    assert sources and all((ROOT / source).exists() for source in sources)
    ignored = (ROOT / "launch/Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignored if not line.startswith("#")]
    assert rules[0] == "*"
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(sources)


def test_the_image_installs_extras_that_exist_on_a_python_that_was_tried():
    extras = SETUP["options.extras_require"]
    assert "serve" in extras and named("ARG") == ["EXTRA=cuda", "PACKAGES="]
    assert all(name in extras for name in ("cuda", "tpu"))
    (python,) = re.findall(r"^python:(3\.\d+)-slim$", named("FROM")[0])
    assert f"(Python {python})" in (ROOT / "requirements.txt").read_text()


def test_the_image_runs_the_command_and_not_as_root():
    commands = SETUP["options.entry_points"]["console_scripts"]
    assert named("ENTRYPOINT") == ['["stair-jax", "serve"]']
    assert re.search(r"^stair-jax =", commands, re.MULTILINE)
    (user,) = named("USER")
    assert user != "0" and f"--uid {user} " in DOCKERFILE


def test_the_manifest_starts_a_server_that_can_be_reached_and_needs_keys(container, settings):
    assert (settings.host, settings.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    assert named("EXPOSE") == [str(settings.port)]
    assert settings.api_key_file


def test_probes_ask_a_route_that_needs_no_key(container):
    names = [port["name"] for port in container["ports"]]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": names[0]}


def test_what_is_under_way_may_end_before_the_pod_is_killed(pod, container, settings):
    sleep, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + settings.drain_seconds + 10


def test_what_is_mounted_is_there_and_the_server_reads_it(pod, container, settings):
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert Path(settings.api_key_file).is_relative_to(mounts["keys"])
    assert Path(container["args"][0]).is_relative_to(mounts["models"])
    home = next(rest for rest in named("WORKDIR") if rest.startswith("/home"))
    assert mounts["cache"] == f"{home}/.cache"


def test_the_pod_has_no_rights_that_it_does_not_need(pod, container):
    (user,) = named("USER")
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    own = container["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}


def test_the_service_finds_the_pods(manifest, container):
    deployment, service = manifest["Deployment"]["spec"], manifest["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"] == deployment["selector"]["matchLabels"] == labels
    assert service["ports"][0]["targetPort"] == container["ports"][0]["name"]
