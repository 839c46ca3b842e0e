"""What starts workers on Kubernetes and SkyPilot names commands, flags and files that exist."""

import configparser
import re
import shlex

import pytest
import yaml

from stair_jax.cluster.address import read_address
from stair_jax.cluster.places import find_places
from stair_jax.commands import run
from stair_jax.commands.flags import make_parser, read_arguments
from tests.launch_clone import ROOT

SKYPILOT = sorted((ROOT / "launch/skypilot").glob("*.yaml"))
SEARCH = ROOT / "launch/kubernetes/search.yaml"
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load(SEARCH.read_text())["spec"]


@pytest.fixture(scope="module")
def cluster(job):
    return job["rayClusterSpec"]


@pytest.fixture(scope="module")
def pods(cluster):
    """The groups of pods, that of the head first."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_job_runs_a_command_that_exists(job):
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["stair-jax", "run"]
    options = read_arguments(make_parser("run", run.SUMMARY, run.add_flags), words[2:]).options
    assert read_address(options.cluster).head == "127.0.0.1:6379"
    assert options.workdir.startswith("/runs/")


def test_the_cluster_asks_for_a_token_and_ends_with_its_job(job, cluster):
    assert cluster["authOptions"] == {"mode": "token"}
    assert job["shutdownAfterJobFinishes"] and job["backoffLimit"] > 0
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_the_cluster_has_a_version_of_ray_that_is_supported(cluster):
    (lowest,) = re.findall(r"^ray>=([\d.]+)", SETUP["options.extras_require"]["ray"], re.MULTILINE)
    assert cluster["rayVersion"].startswith(lowest)


def test_the_driver_has_its_machine_for_itself(cluster):
    parameters = cluster["headGroupSpec"]["rayStartParams"]
    (container,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
    resources = {"CPU": int(parameters["num-cpus"]), "GPU": gpus}
    node = {"Alive": True, "NodeID": "n", "NodeManagerAddress": "a", "Resources": resources}
    assert find_places([node], read_address("ray://127.0.0.1:6379")) == []


def test_a_worker_has_whole_slices_of_one_host(cluster):
    gpu, tpu = cluster["workerGroupSpecs"]
    assert tpu["numOfHosts"] == 1 and gpu["minReplicas"] == tpu["minReplicas"] == 0
    sides = tpu["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    limits = tpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["google.com/tpu"] == int(sides[0]) * int(sides[1])


def test_pods_have_no_rights_that_they_do_not_need(pods):
    for pod in (group["template"]["spec"] for group in pods):
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        (container,) = pod["containers"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_the_images_are_those_that_the_usage_builds(pods):
    text = SEARCH.read_text()
    assert "--build-arg EXTRA=cuda,ray" in text and "EXTRA=tpu,ray" in text
    assert {"ray", "cuda", "tpu"} <= SETUP["options.extras_require"].keys()
    images = {group["template"]["spec"]["containers"][0]["image"] for group in pods}
    assert images == {"stair-jax:cuda-ray", "stair-jax:tpu-ray"}


@pytest.mark.parametrize("path", SKYPILOT, ids=lambda path: path.name)
def test_a_task_of_skypilot_runs_scripts_that_exist_and_has_its_token_as_a_secret(path):
    text = path.read_text()
    task = yaml.safe_load(text)
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None} and "--secret RAY_AUTH_TOKEN" in text
    scripts = re.findall(r"launch/[\w/.]+", task["setup"] + task["run"])
    assert scripts and all((ROOT / script).exists() for script in scripts)
    used = set(re.findall(r"\$\{?([A-Z]+)", task["run"]))
    assert used - {"HOME"} == task["envs"].keys()
    for name in (name for name, value in task["envs"].items() if value is None):
        assert f"--env {name}=" in text


def test_only_workers_of_skypilot_can_be_taken_away_and_all_are_in_one_region():
    run_of, worker = (yaml.safe_load(path.read_text())["resources"] for path in SKYPILOT)
    assert worker["use_spot"] and not run_of["use_spot"]
    assert worker["infra"] == run_of["infra"]
