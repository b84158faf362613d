"""SkyPilot tasks: documented fields, recovery, and run sections that do on every node what they should."""

import pytest
import yaml

from clusters.skypilot import render_skypilot

TPU, GPU = "qwen3_30b_v6e64", "qwen3_8b_h100"
ON_TPU = {"targets": ("skypilot",)}
# docker runs the trainer's script, in which `python` only logs its words; everything else is only logged.
DOCKER = """
if [[ $* == *launch.train* ]]; then
  mkdir -p "$HOME/inner"
  cat > "$HOME/inner/python" <<'PYTHON'
#!/usr/bin/env bash
{ printf '%s\\x1f' inner "$@"; printf '\\x1e'; } >> "$LOG"
PYTHON
  chmod +x "$HOME/inner/python"
  PATH=$HOME/inner:$PATH exec bash -c "${@: -1}"
fi
"""


def task(cluster, file="task.yaml"):
    return yaml.safe_load(render_skypilot(cluster).files[file])


def containers(machine):
    return [call for call in machine.calls("docker", "run")]


def option(call, name):
    return call[call.index(name) + 1]


def test_one_job_holds_all_roles_and_comes_back(cluster):
    made = task(cluster(GPU, max_restarts=5))
    assert made["num_nodes"] == 2  # one machine trains, one serves
    assert made["resources"] == {
        "infra": "gcp",
        "accelerators": "H100:8",
        "use_spot": True,
        "disk_size": 500,
        "job_recovery": {"strategy": "EAGER_NEXT_REGION", "max_restarts_on_errors": 5},
    }
    assert made["secrets"] == {"WANDB_API_KEY": None, "TRACE_RELAY_KEY": None}
    path = "gcs/my-bucket/models/Qwen3-8B"
    assert made["file_mounts"] == {f"~/{path}": f"gs://{path.removeprefix('gcs/')}"}


def test_a_fixed_zone_is_kept_to(cluster):
    resources = task(cluster(GPU, zone="us-central1-a"))["resources"]
    assert resources["infra"] == "gcp/us-central1/us-central1-a"
    assert resources["job_recovery"]["strategy"] == "FAILOVER"


def test_the_first_node_trains_beside_the_router(cluster, machine):
    machine.program("docker", DOCKER)
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "0", "WANDB_API_KEY": "s3cret"}
    result = machine.run(task(cluster(GPU))["run"], **nodes)
    assert result.returncode == 0, result.stderr
    router, trainer = containers(machine)
    assert (option(router, "--name"), option(router, "--host")) == ("trace-8b-h100-router", "10.0.0.1")
    assert router[router.index("--worker-urls") + 1 :] == [f"http://10.0.0.2:{port}" for port in range(30001, 30009)]
    assert option(trainer, "--name") == "trace-8b-h100-trainer"
    waited, trained = machine.calls("inner")
    assert waited[3:] == ["--url=http://10.0.0.1:30000/readiness", "--seconds=1800"]
    assert {"--config.engine.url=http://10.0.0.1:30000", "--config.mesh.data=8"} <= set(trained)
    assert "--workdir=gs://my-bucket/runs/qwen3-8b-h100" in trained and "--distributed" not in trained
    assert machine.calls("docker")[-1] == ["docker", "rm", "--force", "trace-8b-h100-router"]
    assert "s3cret" not in machine.log.read_text()


def test_trainers_are_numbered(cluster, machine):
    machine.program("docker", DOCKER)
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n10.0.0.3", "SKYPILOT_NODE_RANK": "1"}
    made = cluster(
        GPU, **{"trainer.hosts": 2, "trainer.mesh.data": 16, "ssh.trainer_hosts": ("a@10.0.0.1", "b@10.0.0.2")}
    )
    assert machine.run(task(made)["run"], WANDB_API_KEY="", **nodes).returncode == 0
    (trained,) = [call for call in machine.calls("inner") if "launch.train" in call]
    assert {"--coordinator_address=10.0.0.1:8476", "--num_processes=2", "--process_id=1"} <= set(trained)
    assert [option(call, "--name") for call in containers(machine)] == ["trace-8b-h100-trainer"]


def test_a_failing_trainer_fails_the_job_so_that_it_is_started_again(cluster, machine):
    machine.program("docker", "[[ $* == *launch.train* ]] && exit 9; exit 0\n")
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "0", "WANDB_API_KEY": ""}
    assert machine.run(task(cluster(GPU))["run"], **nodes).returncode == 9


def test_the_second_node_serves_on_its_internal_address_until_the_router_is_gone(cluster, machine):
    # The router comes with the third question and is gone after the fifth.
    machine.program("curl", 'echo >> "$HOME/n"; n=$(wc -l < "$HOME/n"); ((n >= 3 && n <= 5))\n')
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1", "TRACE_RELAY_KEY": "s3cret"}
    result = machine.run(task(cluster(GPU, **{"rollout.tensor_parallel": 4}))["run"], **nodes)
    assert result.returncode == 0, result.stderr
    servers = containers(machine)
    assert [option(call, "--env") for call in servers] == ["TRACE_RELAY_KEY"] * 2
    assert "s3cret" not in machine.log.read_text()
    shown = [[option(call, name) for name in ("--host", "--port", "--base-gpu-id", "--tp-size")] for call in servers]
    assert shown == [["10.0.0.2", "30001", "0", "4"], ["10.0.0.2", "30002", "4", "4"]]
    assert all({"--enable-lora", "--max-lora-rank"} <= set(call) for call in servers)
    assert ["--server=http://10.0.0.2:30002", "--host=10.0.0.2", "--port=31002"] == [
        word for word in servers[1] if word.startswith(("--server=", "--host=", "--port="))
    ]
    assert len(machine.calls("curl")) == 5 + 12
    assert machine.calls("docker")[-1][:3] == ["docker", "rm", "--force"]


def test_a_tpu_trainer_takes_the_router_from_the_command_line(cluster, machine):
    rendered = render_skypilot(cluster(TPU, **ON_TPU))
    trainer, servers = (yaml.safe_load(rendered.files[name]) for name in ("trainer.yaml", "servers.yaml"))
    assert trainer["resources"]["accelerators"] == "tpu-v6e-64" and trainer["num_nodes"] == 1
    assert trainer["resources"]["accelerator_args"] == {"runtime_version": "v2-alpha-tpuv6e"}
    assert trainer["envs"] == {"ROUTER": None} and "job_recovery" in trainer["resources"]
    assert (servers["num_nodes"], servers["resources"]["accelerators"]) == (2, "H100:8")
    assert any("--env ROUTER=$ROUTER" in command for command in rendered.commands)
    assert trainer["secrets"] == {"WANDB_API_KEY": None, "TRACE_RELAY_KEY": None}
    assert servers["secrets"] == {"TRACE_RELAY_KEY": None}  # and no other
    assert " --secret TRACE_RELAY_KEY skypilot/servers.yaml" in rendered.commands[0]
    machine.program("docker", DOCKER)
    assert machine.run(trainer["run"], ROUTER="10.0.0.7", WANDB_API_KEY="").returncode == 0
    (trained,) = [call for call in machine.calls("inner") if "launch.train" in call]
    assert "--config.engine.url=http://10.0.0.7:30000" in trained and "--distributed" in trained


def test_skypilot_counts_the_cores_of_v5p(cluster):
    made = cluster("qwen3_30b_v5p64", **ON_TPU)
    assert task(made, "trainer.yaml")["resources"]["accelerators"] == "tpu-v5p-64"


@pytest.mark.parametrize("rank", [0, 1])
def test_the_servers_of_a_tpu_trainer_have_one_router(cluster, machine, rank):
    servers = task(cluster(TPU, **ON_TPU), "servers.yaml")
    machine.program("sleep", "exit 1\n")  # ends the endless wait
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": str(rank)}
    assert machine.run(servers["run"], **nodes).returncode == 0
    names = [option(call, "--name") for call in containers(machine)]
    assert names == [f"trace-30b-v6e-server-{i}" for i in range(4)] + ["trace-30b-v6e-router"] * (rank == 0)
