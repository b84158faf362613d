"""The SSH scripts, run against stand-ins of gcloud, ssh and docker: who is called with what, and what happens next."""

import pytest

from clusters.ssh import render_ssh

TPU, GPU = "qwen3_30b_v5p64", "qwen3_8b_h100"
# A cloud whose state is the next word of $HOME/states each time that it is asked, and whose `tpu-vm ssh` ends with
# the next word of $HOME/exits.
GCLOUD = """
next() { head -n 1 "$HOME/$1"; sed -i 1d "$HOME/$1"; }
case "$*" in
  *describe*) state=$(next states)
    if [[ $state == NONE ]]; then echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; fi
    if [[ $state == OFFLINE ]]; then echo "ERROR: connection reset" >&2; exit 1; fi
    echo "$state" ;;
  *"tpu-vm ssh"*) exit "$(next exits)" ;;
esac
"""


def write(machine, rendered):
    for name, content in rendered.files.items():
        (machine.home / name).write_text(content)


def start(machine, rendered, states, exits):
    machine.program("gcloud", GCLOUD)
    for name, words in (("states", states), ("exits", exits)):
        (machine.home / name).write_text("".join(f"{word}\n" for word in words))
    write(machine, rendered)
    return machine.run(f"bash {machine.home}/start.sh")


def cloud(machine):
    """What the cloud was asked for, in order, without the questions about the state."""
    asked = [call for call in machine.calls("gcloud") if "describe" not in call]
    return [next(word for word in call if word in ("create", "delete", "ssh")) for call in asked]


def test_servers_and_router_are_started_then_the_slice_is_made_and_trains(cluster, machine):
    result = start(machine, render_ssh(cluster(TPU)), ["NONE", "WAITING_FOR_RESOURCES", "ACTIVE"], [0])
    assert result.returncode == 0, result.stderr
    hosts = [next(word for word in call if word.startswith("me@")) for call in machine.calls("ssh")]
    assert sorted(hosts[:2]) == ["me@10.202.0.11", "me@10.202.0.12"] and hosts[2:] == ["me@10.202.0.11"]
    assert cloud(machine) == ["create", "ssh"]
    (create,) = machine.calls("gcloud", "compute", "tpus", "queued-resources", "create")
    expected = {"--accelerator-type=v5p-64", "--runtime-version=v2-alpha-tpuv5", "--spot", "--node-id=trace-30b-v5p"}
    assert expected <= set(create)
    (train,) = machine.calls("gcloud", "compute", "tpus", "tpu-vm", "ssh")
    assert "--worker=all" in train


def test_a_preempted_slice_is_deleted_made_again_and_not_counted(cluster, machine):
    # ask, lost while training, ask again: suspended, deleting, none, then there
    states = ["ACTIVE", "SUSPENDING", "SUSPENDED", "DELETING", "NONE", "ACTIVE"]
    result = start(machine, render_ssh(cluster(TPU, max_restarts=0)), states, [255, 0])
    assert result.returncode == 0, result.stderr
    assert cloud(machine) == ["ssh", "delete", "create", "ssh"]


def test_a_trainer_that_keeps_crashing_is_given_up(cluster, machine):
    result = start(machine, render_ssh(cluster(TPU, max_restarts=2)), ["ACTIVE"] * 20, [1] * 20)
    assert result.returncode == 1 and "crashed 3 times" in result.stderr
    assert cloud(machine) == ["ssh"] * 3


def test_an_answer_that_does_not_come_creates_nothing(cluster, machine):
    result = start(machine, render_ssh(cluster(TPU)), ["OFFLINE", "ACTIVE"], [0])
    assert result.returncode == 0 and cloud(machine) == ["ssh"]
    assert "connection reset" in result.stderr


def test_several_slices_are_several_nodes(cluster, machine):
    made = cluster(TPU, **{"trainer.slices": 2, "trainer.mesh.data": 32})
    result = start(machine, render_ssh(made), ["NONE", "ACTIVE"], [0, 0])
    assert result.returncode == 0, result.stderr
    (create,) = machine.calls("gcloud", "compute", "tpus", "queued-resources", "create")
    assert {"--node-count=2", "--node-prefix=trace-30b-v5p"} <= set(create)
    names = {call[5] for call in machine.calls("gcloud", "compute", "tpus", "tpu-vm", "ssh")}
    assert names == {"trace-30b-v5p-0", "trace-30b-v5p-1"}


@pytest.mark.parametrize("name", [TPU, GPU])
def test_what_is_sent_over_ssh_is_the_script_itself(cluster, machine, name):
    rendered = render_ssh(cluster(name))
    write(machine, rendered)
    machine.program("ssh", 'exec bash -c "${@: -1}"\n')  # the remote shell, here
    script = rendered.files["start.sh"].partition("pids=()\nfor i in")[0]
    assert machine.run(f"{script}\ncd {machine.home}; on host server-0.sh 1").returncode == 0
    sent = machine.calls("docker", "run")
    machine.log.write_text("")
    assert machine.run(rendered.files["server-0.sh"]).returncode == 0
    assert sent == machine.calls("docker", "run") and sent


def test_servers_listen_on_the_internal_address_the_trainer_uses(cluster, machine):
    rendered = render_ssh(cluster(TPU))
    assert machine.run(rendered.files["server-1.sh"]).returncode == 0
    servers = machine.calls("docker", "run")
    assert [call[call.index("--host") + 1] for call in servers] == ["10.202.0.12"] * 4
    assert [call[call.index("--base-gpu-id") + 1] for call in servers] == ["0", "2", "4", "6"]
    assert all(call[call.index("--restart") + 1] == "unless-stopped" for call in servers)
    beside = [[word for word in call if word.startswith(("--server=", "--host=", "--port="))] for call in servers]
    relay_of = [(f"--server=http://10.202.0.12:{port}", f"--port={port + 1000}") for port in range(30001, 30005)]
    assert beside == [[server, "--host=10.202.0.12", port] for server, port in relay_of]
    assert machine.calls("gcloud", "storage", "rsync")[0][4] == "gs://my-bucket/models/Qwen3-30B-A3B"
    machine.log.write_text("")
    assert machine.run(rendered.files["router.sh"]).returncode == 0
    (router,) = machine.calls("docker", "run")
    expected = [f"http://10.202.0.{host}:{port}" for host in (11, 12) for port in range(30001, 30005)]
    assert router[router.index("--worker-urls") + 1 :] == expected
    assert "--config.engine.url=http://10.202.0.11:30000" in rendered.files["trainer.sh"]
    assert "--config.engine.relay_port_offset=1000" in rendered.files["trainer.sh"]
    assert not any("0.0.0.0" in content for content in rendered.files.values())


def test_a_trainer_ends_its_predecessor_and_fetches_its_secrets(cluster, machine):
    machine.program("gcloud", "[[ $* == *secrets* ]] && echo s3cret; exit 0\n")
    machine.program("docker", '[[ $* == *launch.train* ]] && echo "key $WANDB_API_KEY"; exit 0\n')
    result = machine.run(render_ssh(cluster(GPU)).files["trainer.sh"], "0")
    assert result.stdout.splitlines()[-1] == "key s3cret"
    stop, remove, run = [call for call in machine.calls("docker") if "trace-8b-h100-trainer" in call]
    assert stop[1:4] == ["stop", "-t", "15"] and remove[1] == "rm" and run[1] == "run"
    assert run[run.index("WANDB_API_KEY") - 1] == "--env"  # by name: docker takes the value from the environment
    assert "s3cret" not in machine.log.read_text()


def test_relays_have_the_key_that_the_trainer_has_and_no_other_secret(cluster, machine):
    machine.program("gcloud", "[[ $* == *secrets* ]] && echo s3cret; exit 0\n")
    machine.program("docker", '[[ $1 == run ]] && echo "key $TRACE_RELAY_KEY"; exit 0\n')
    rendered = render_ssh(cluster(GPU))
    result = machine.run(rendered.files["server-0.sh"])
    assert result.stdout.split() == ["key", "s3cret"] * 8
    (asked,) = machine.calls("gcloud", "secrets")
    assert asked[3:] == ["access", "latest", "--secret=trace-relay-key", "--project=my-project"]
    for server in machine.calls("docker", "run"):
        assert [server[i + 1] for i, word in enumerate(server) if word == "--env"] == ["TRACE_RELAY_KEY"]
    assert "s3cret" not in machine.log.read_text()
    assert not any("TRACE_RELAY_KEY" in rendered.files[name] for name in ("router.sh", "start.sh", "stop.sh"))


def test_without_a_key_relays_are_told_none(cluster, machine):
    rendered = render_ssh(cluster(GPU, secrets=("WANDB_API_KEY=wandb-api-key",)))
    assert machine.run(rendered.files["server-0.sh"]).returncode == 0
    assert machine.calls("gcloud", "secrets") == [] and "--env" not in machine.calls("docker", "run")[0]


@pytest.mark.parametrize("script", ["trainer.sh", "server-0.sh"])
def test_a_failing_secret_starts_nothing(cluster, machine, script):
    machine.program("gcloud", "[[ $* == *secrets* ]] && exit 1; exit 0\n")
    assert machine.run(render_ssh(cluster(GPU)).files[script], "0").returncode == 1
    assert machine.calls("docker", "run") == []


def test_gpu_hosts_each_get_their_number(cluster, machine):
    hosts = ("a@10.0.0.1", "b@10.0.0.2")
    made = cluster(GPU, **{"trainer.hosts": 2, "trainer.mesh.data": 16, "ssh.trainer_hosts": hosts})
    rendered = render_ssh(made)
    write(machine, rendered)
    assert machine.run(f"bash {machine.home}/start.sh").returncode == 0
    calls = [call for call in machine.calls("ssh") if "launch.train" in "".join(call)]
    sent = {next(word for word in call if "@" in word): call[-1].split()[-1] for call in calls}
    assert sent == {"a@10.0.0.1": "0", "b@10.0.0.2": "1"}
    assert '"--process_id=${RANK}"' in rendered.files["trainer.sh"]
    assert "--coordinator_address=10.0.0.1:8476" in rendered.files["trainer.sh"]


def test_stop_ends_every_container_and_gives_the_slice_back(cluster, machine):
    rendered = render_ssh(cluster(TPU))
    assert machine.run(rendered.files["stop.sh"]).returncode == 0
    assert len(machine.calls("ssh")) == 2
    assert all("trace-30b-v5p-server-3" in call and "trace-30b-v5p-router" in call for call in machine.calls("ssh"))
    (delete,) = machine.calls("gcloud")
    assert delete[1:6] == ["compute", "tpus", "queued-resources", "delete", "trace-30b-v5p"]
