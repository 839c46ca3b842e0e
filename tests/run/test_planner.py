"""Plans of whole configs: what is found, what is counted, how the command ends."""

import dataclasses
import importlib
import json
import textwrap

import jax
import pytest
from ml_collections import ConfigDict

from stair_jax import launch
from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import take_overrides
from stair_jax.errors import UserError
from stair_jax.parallel.chips import Chip
from stair_jax.planning.cost import local_bytes
from stair_jax.planning.program import compile_program
from stair_jax.planning.topology import Topology, get_topology
from stair_jax.run import planner
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
KNOWN_SECTIONS = {*STAGES, "seed", "stages", "runtime"}
LAYER = 4 * 256 * 256 + 3 * 256 * 384  # kernels


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, chat_tokenizer):
    """A folder without weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    values = LLAMA | {"vocab_size": chat_tokenizer.vocab_size}
    (folder / "config.json").write_text(json.dumps(values))
    chat_tokenizer.save(folder)
    return folder


@pytest.fixture
def config(checkpoint):
    """All stages that have steps, two iterations, on a mesh of four."""
    training = {"batch_size": 4, "max_length": 32, "microbatch_rows": 4}
    decoding = {"context_tokens": 32}
    return ConfigDict(
        {
            "seed": 0,
            "stages": (
                "pocket",
                "files", "model:base", "sft", "search:search1", "preferences:pairs1",
                "dpo:iter1", "search:search2", "preferences:pairs2", "dpo:iter2", "prm", "export",
                "evaluate",
            ),
            "runtime": {
                "training_mesh": {"fsdp": 2, "tensor": 2},
                "decoding_mesh": {"tensor": 2},
                "vocab_multiple": 128,
                "slots": 4,
                "trees_in_flight": 3,
                "tree_device": "device",
                "prefill_rows": 2,
                "steps_per_call": 2,
            },
            "files": {"sft": "nowhere.jsonl", "prompts": ("nothing.jsonl",)},
            "pocket": {},
            "model": {"init": str(checkpoint), "architecture": ""},
            "sft": {"model": "base", "data": "files", **training},
            "search": {
                "model": "sft", "prompts": "files", "num_iterations": 4,
                "judge": {"mode": "expected"}, **decoding,
            },
            "search2": {"model": "iter1"},
            "preferences": {"trees": "search1"},
            "pairs2": {"trees": "search2"},
            "dpo": {"model": "sft", "preferences": "pairs1", **training},
            "iter2": {"model": "iter1", "preferences": "pairs2"},
            "prm": {"model": "iter2", "preferences": ("pairs1", "pairs2"), **training},
            "export": {"model": "iter2", "path": ""},
            "evaluate": {
                "data": "pocket", "models": ("base", "iter2"), "prompted": "", "searched": "iter2",
                "methods": ("best_of_n", "beam_search_self_reward"), "prm": "prm",
                "judge": {"mode": "expected"}, **decoding,
            },
        }
    )  # fmt: skip


@pytest.fixture
def config_file(config, tmp_path):
    """The same as a file, with the stage `sft` alone."""
    path = tmp_path / "config.py"
    values = {**config.to_dict(), "stages": ("files", "model:base", "sft")}
    values = {name: value for name, value in values.items() if name in KNOWN_SECTIONS}
    path.write_text(
        textwrap.dedent(f"""
            from ml_collections import ConfigDict
            def get_config():
                return ConfigDict({values!r})
        """)
    )
    return path


def one_device():
    local = get_topology("local")
    return dataclasses.replace(local, devices=local.devices[:1])


def settle(config):
    """The config as a run; sections of stages that a test left out are dropped."""
    names = [label.rpartition(":")[2] for label in config.stages]
    sections = {*KNOWN_SECTIONS, *names}
    return read_config({k: v for k, v in config.to_dict().items() if k in sections}, STAGES)


def collect(config, topology):
    return planner.collect(settle(config), topology)


def names(found):
    return {program.name.partition(":")[0]: stages for program, stages in found}


def test_every_step_of_the_config_once(config):
    """Equal steps of several stages are one program; the guide of the evaluation lies beside."""
    found = collect(config, get_topology("local"))
    searches = ("search1", "search2", "evaluate")
    assert names(found) == {
        "SFT step": ("sft",),
        "copy": searches,
        "prefill": searches,
        "decode": searches,
        "tree round": ("search1", "search2"),
        "DPO reference": ("iter1", "iter2"),
        "DPO step": ("iter1", "iter2"),
        "PRM step": ("prm",),
        "PRM validation": ("prm",),
        "PRM score": ("evaluate",),
    }
    assert len(found) == 10
    (decode,) = [program for program, _ in found if program.name.startswith("decode")]
    assert set(decode.beside) == {"model", "score"}


def test_trees_on_the_host_need_nothing_of_the_devices(config):
    config.stages = ("files", "model:base", "search:search1")
    config.search.model = "base"
    config.runtime.tree_device = "host"
    found = names(collect(config, get_topology("local")))
    assert found.keys() == {"copy", "prefill", "decode"}


def test_the_memory_of_the_parameters_by_hand(config, chat_tokenizer):
    """A quarter of each kernel and half of each norm, thrice: weights and two moments."""
    found = collect(config, get_topology("local"))
    step = found[0][0]
    rows = -(-chat_tokenizer.vocab_size // 128) * 128  # of embedding and head
    parameters = 2 * LAYER // 4 + (2 * 2 * 256 + 256) // 2 + 2 * rows * 256 // 4
    # a batch of one micro-batch: [1, 4, 32] six times, half of the rows on each device
    batch = 6 * 2 * 32 * 4 + 4 * 4 + 4 * 4
    scalars = 3 * 4  # learning rate, number of micro-batches, number of steps
    footprint = compile_program(step).footprint
    # Fields of a batch that SFT has no use for may be left out.
    assert 0 < footprint.arguments - 3 * 4 * parameters <= batch + scalars
    assert footprint.outputs < 1000  # the metrics: the new state is written over the old one


def test_a_plan_for_a_tpu(config, capsys):
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    config.stages = ("files", "model:base", "sft")
    assert planner.plan(settle(config), "v5e:2x2")
    out, err = capsys.readouterr()
    assert out.startswith("v5e:2x2: 4 x v5e of 15.75 GiB\n")
    assert "SFT step: 1 x 4 x 32 tokens      4 " in out and "fits" in out
    assert "compiling SFT step: 1 x 4 x 32 tokens for v5e:2x2" in err


def test_a_plan_for_gpus(config, gpus, capsys):
    config.runtime.training_mesh = {"fsdp": -1}
    config.stages = ("files", "model:base", "sft")
    assert planner.plan(settle(config), "l40s:2")
    out, err = capsys.readouterr()
    assert out.startswith("l40s:2: 2 x L40S of 33.22 GiB\nJAX takes 0.75 of a GPU's 44.3 GiB")
    assert "Compiled by XLA for such GPUs, without one" in out
    assert "SFT step: 1 x 4 x 32 tokens      2 " in out and "fits" in out
    assert "compiling SFT step: 1 x 4 x 32 tokens for l40s:2" in err


def test_cudnn_need_not_be_installed_for_a_plan_of_its_programs(config, gpus, monkeypatch):
    def lack():
        raise RuntimeError("cuDNN not found.")

    module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(module, "check_cudnn_version", lack)
    config.stages = ("files", "model:base", "search:search1")
    config.search.model = "base"
    config.search.dtype = "bfloat16"
    config.runtime.decoding_mesh.tensor = 1
    assert "decode" in names(collect(config, gpus("h100")))


def test_a_plan_for_gpus_says_what_else_would_do(config, gpus, monkeypatch, capsys):
    """The same program with a share of JAX of which it does not fit."""
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.0001")
    config.runtime.training_mesh = None
    config.stages = ("files", "model:base", "sft")
    assert not planner.plan(settle(config), "h200")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("does not fit: SFT step: 1 x 4 x 32 tokens (sft): 0.0")
    assert last.endswith(" GiB; it fits with XLA_PYTHON_CLIENT_MEM_FRACTION=0.01")


def test_a_step_that_the_compiler_for_tpus_refuses(config, capsys):
    pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed")
    config.stages = ("files", "model:base", "search:search1")
    config.search.model = "base"
    config.runtime.cache_tokens = 2**26
    topology = get_topology("v5e:2x2")
    (decode,) = [p for p, _ in collect(config, topology) if p.name.startswith("decode")]
    compiled = compile_program(decode)
    assert compiled.footprint is None
    assert "of 15.75G" in compiled.reason


def test_a_checkpoint_that_is_not_here_is_planned_by_its_published_shape(config, capsys):
    config.stages = ("files", "model:base", "sft")
    config.model.init = "runs/earlier/policy/hf"
    config.model.architecture = "Qwen/Qwen2.5-0.5B-Instruct"
    (found,) = collect(config, get_topology("local"))
    assert (
        "there is no checkpoint runs/earlier/policy/hf here: planned by the published config of "
        "Qwen/Qwen2.5-0.5B-Instruct"
    ) in capsys.readouterr().err
    shapes = found[0].arguments[0].params
    assert shapes["layers"]["query"].shape == (24, 896, 14, 64)
    assert shapes["embedding"].shape == (151936, 896)  # rows enough for the tags


def test_a_checkpoint_that_is_nowhere(config):
    config.model.init = "runs/earlier/policy/hf"
    with pytest.raises(UserError, match=r"stage base: .*there is no folder runs/"):
        collect(config, get_topology("local"))


def test_a_mesh_that_the_devices_do_not_make(config):
    config.runtime.training_mesh.fsdp = 64
    with pytest.raises(
        UserError,
        match=r"stage sft: runtime.training_mesh: .* needs 128 devices",
    ):
        collect(config, get_topology("local"))


def test_a_config_without_a_step(config):
    config.stages = ("files", "model:base")
    with pytest.raises(UserError, match="no stage with steps to plan"):
        planner.plan(settle(config), "local")


def test_a_pretraining_run_is_planned_with_the_model_that_it_makes():
    config = ConfigDict(
        {
            "stages": ("pocket", "pretrain", "sft"),
            "pretrain": {"vocab_size": 300, "num_layers": 1},
            "sft": {"model": "pretrain", "data": "pocket"},
            "runtime": {"training_mesh": {"fsdp": 2}},
        }
    )
    found = collect(config, get_topology("local"))
    assert names(found) == {"pretraining step": ("pretrain",), "SFT step": ("sft",)}
    assert found[1][0].arguments[0].params["embedding"].shape == (300, 192)


def plan(config_file, *arguments):
    return launch.main(["launch", f"--config={config_file}", *arguments])


def test_status_0_where_all_fits(config_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert plan(config_file, "--plan=local") == 0
    assert "SFT step: 1 x 4 x 32 tokens" in capsys.readouterr().out
    assert [
        path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(path)
    ] == before


def test_status_3_where_something_does_not_fit(config_file, monkeypatch, capsys):
    small = Chip("small", memory=2**20)
    monkeypatch.setattr(planner, "get_topology", lambda name: Topology(name, small, jax.devices()))
    assert plan(config_file, "--plan", "local") == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("does not fit: SFT step: 1 x 4 x 32 tokens (sft): 0.0")


def test_status_2_for_mistakes(config_file, capsys):
    assert plan(config_file, "--plan=v9:2x2") == 2
    assert plan(config_file, "--plan=local", "--config.runtime.slots=many") == 2
    assert plan(config_file, "--plan") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(
        "stair_jax: error: --plan=v9:2x2 is not a known topology: known are v4:2x2x1"
    )
    assert "it must be a whole number" in lines[1]
    assert "known are v4:2x2x1" in lines[2]


def test_the_stages_of_the_pocket_run_share_their_programs():
    found = collect(load_config("pocket"), get_topology("local"))
    assert names(found)["SFT step"] == ("system1", "sft")
    assert all(program.num_chips == 1 for program, _ in found)


@pytest.mark.parametrize("memory", ["24", "48", "80"])
def test_on_one_gpu_adapters_alone_have_moments(memory):
    """Of Llama-3.1-8B's published shape; the adapters of its stages are those of one step."""
    config = load_config(f"llama8b_lora:{memory}")
    config.model.init = "runs/none"  # and no look at the hub
    found = names(collect(config, one_device()))
    assert found["SFT step"] == ("sft",)
    assert found["DPO step"] == ("iter1", "iter2", "iter3")
    assert found["PRM step"] == ("prm",)


@pytest.mark.parametrize("model", ["llama8b", "qwen2_7b"])
def test_the_state_of_the_adapters_is_a_twentieth_of_the_whole_one(model):
    states = []
    for recipe in (f"{model}_lora:80", f"{model}_stair"):
        config = load_config(recipe)
        config.model.init, config.stages = "runs/none", ("files", "model:base", "sft")
        run = read_config(
            {k: v for k, v in config.to_dict().items() if k in KNOWN_SECTIONS}, STAGES
        )
        ((step, _),) = planner.collect(run, one_device())
        states.append(local_bytes(step.arguments[0]))
    assert 20 * states[0] < states[1] == pytest.approx(12 * 8e9, rel=0.06)


def test_a_plan_tells_the_whole_recipe_and_writes_it_as_json(config_file, tmp_path, capsys):
    file = tmp_path / "plan.json"
    assert plan(config_file, "--plan=local", "--rows=1000", f"--json={file}") == 0
    assert "1,000? rows x 3 epochs" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["fits"] and not found["changes"] and not found["obstacles"]
    assert found["programs"][0]["program"] == "SFT step: 1 x 4 x 32 tokens"
    assert found["programs"][0]["memory"]["total"] > 0
    stage = found["recipe"]["stages"][-1]
    assert stage["stage"] == "sft" and stage["seconds"] is None  # of a CPU no peak is known


def test_an_amount_that_cannot_be_is_a_mistake(config_file, capsys):
    assert plan(config_file, "--plan=local", "--rows=0") == 2
    assert "--rows is 0: it must be at least 1" in capsys.readouterr().err


@pytest.fixture
def small(monkeypatch):
    """A function that gives a device so many bytes, in place of the real ones."""

    def give(memory):
        chip = Chip("small", memory=memory)
        topology = Topology("local", chip, jax.devices()[:1])
        monkeypatch.setattr(planner, "get_topology", lambda name: topology)

    return give


def test_a_plan_is_fitted_and_its_flags_give_the_same_plan(config_file, small, capsys):
    """Compiled for real: smaller micro-batches until the step fits."""
    flags = ("--plan=local", "--config.runtime.training_mesh=None", "--config.sft.max_length=256")
    small(2**40)
    assert plan(config_file, *flags) == 0
    run = read_config(load_config(str(config_file)), STAGES)
    before = [entry.stage for entry in run.stages][-1]
    assert before.microbatch_rows == 4
    needed = footprint_of(config_file, flags, 4)
    small(needed - 1)
    capsys.readouterr()
    assert plan(config_file, *flags) == 3
    assert plan(config_file, *flags, "--fit") == 0
    out = capsys.readouterr().out
    assert "fit: what changes cost alone:" in out
    changed = [line.split()[0] for line in out.splitlines() if line.startswith("  --config.")]
    assert changed and changed[0].startswith("--config.sft.microbatch_rows=")
    assert plan(config_file, *flags, *changed) == 0
    assert plan(config_file, *flags, *changed, "--fit") == 0
    assert "fit: nothing had to be changed" in capsys.readouterr().out


def test_a_fit_that_finds_nothing_says_what_is_in_the_way(config_file, small, capsys):
    small(2**16)
    assert plan(config_file, "--plan=local", "--config.runtime.training_mesh=None", "--fit") == 3
    assert "no change makes the stage sft fit: SFT step: 1 x 4 x 32" in capsys.readouterr().out


def footprint_of(config_file, flags, rows):
    """Bytes of the largest step with so many rows."""
    overrides = take_overrides([*flags[1:], f"--config.sft.microbatch_rows={rows}"])[0]
    run = read_config(load_config(str(config_file)), STAGES, overrides)
    topology = Topology("local", Chip("large", 2**40), jax.devices()[:1])
    return max(each.compiled.footprint.total for each in planner.compiled(run, topology))
