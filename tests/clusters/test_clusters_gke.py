"""The GKE objects: roles, hosts, chips, selectors, resume, nothing outside the cluster; nothing public."""

import subprocess

import pytest
import yaml

from clusters.gke import render_gke

TPU, GPU = "qwen3_30b_v6e64", "qwen3_8b_h100"
ON_GKE = {"targets": ("gke",), "zone": "us-central1-a", "gke.cluster": "c", "gke.service_account": "s"}


def documents(rendered, name="jobset.yaml"):
    return {resource["kind"]: resource for resource in yaml.safe_load_all(rendered.files[name])}


def roles(jobset):
    return {role["name"]: role for role in jobset["spec"]["replicatedJobs"]}


def pod(role):
    return role["template"]["spec"]["template"]["spec"]


def script(role):
    return pod(role)["containers"][0]["command"][2]


@pytest.mark.parametrize(
    ("name", "label", "topology", "hosts", "xpk_type"),
    [
        ("qwen3_30b_v6e64", "tpu-v6e-slice", "8x8", 16, "v6e-64"),
        ("qwen3_30b_v5p64", "tpu-v5p-slice", "2x4x4", 8, "v5p-64"),
        ("qwen3_30b_v5p128", "tpu-v5p-slice", "4x4x4", 16, "v5p-128"),
    ],
)
def test_a_slice_is_one_job_with_a_pod_for_each_host(cluster, name, label, topology, hosts, xpk_type):
    rendered = render_gke(cluster(name))
    assert f"--tpu-type={xpk_type} " in rendered.files["xpk.sh"]
    job = roles(documents(rendered)["JobSet"])["trainer"]
    spec, trainer = job["template"]["spec"], pod(job)
    assert (job["replicas"], spec["parallelism"], spec["completions"]) == (1, hosts, hosts)
    assert spec["completionMode"] == "Indexed"
    assert trainer["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == label
    assert trainer["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology
    assert trainer["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    annotations = job["template"]["metadata"]["annotations"]
    assert annotations == {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}


def test_trainer_servers_and_router_find_one_another(cluster):
    made = cluster(TPU)
    objects = documents(render_gke(made))
    service, jobset = objects["Service"], objects["JobSet"]
    assert set(roles(jobset)) == {"trainer", "rollout", "router"}
    url = f"http://{service['metadata']['name']}.default.svc.cluster.local:{service['spec']['ports'][0]['port']}"
    assert f"--config.engine.url={url}" in script(roles(jobset)["trainer"]).split()
    assert service["spec"]["selector"] == {
        "jobset.sigs.k8s.io/jobset-name": jobset["metadata"]["name"],
        "jobset.sigs.k8s.io/replicatedjob-name": "router",
    }
    rollout = roles(jobset)["rollout"]
    assert rollout["template"]["spec"]["completions"] == 8  # two machines of 8 GPUs, two GPUs a server
    assert pod(rollout)["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 2}
    port = pod(rollout)["containers"][0]["ports"][0]["containerPort"]
    assert f"--port {port}" in script(rollout)
    assert "--config.engine.relay_port_offset=1000" in script(roles(jobset)["trainer"]).split()
    assert pod(rollout)["containers"][0]["ports"][1] == {"containerPort": port + 1000, "name": "relay"}
    relay = script(rollout).replace("\\\n", "").split()
    assert {"launch.relay", f"--server=http://127.0.0.1:{port}", "--host=0.0.0.0", f"--port={port + 1000}"} <= set(
        relay
    )
    urls = [word for word in script(roles(jobset)["router"]).split() if word.startswith("http://")]
    assert urls == [f"http://{made.name}-rollout-0-{i}.{made.name}:{port}" for i in range(8)]


def test_nothing_is_reachable_from_outside(cluster):
    text = render_gke(cluster(TPU)).files["jobset.yaml"]
    assert "ClusterIP" in text
    assert not any(word in text for word in ("LoadBalancer", "NodePort", "hostPort", "Ingress"))


def test_a_preempted_slice_goes_on_and_only_crashes_are_counted(cluster):
    jobset = documents(render_gke(cluster(TPU, max_restarts=7, grace_seconds=14)))["JobSet"]
    trainer, spec = roles(jobset)["trainer"], jobset["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 7
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert (rule["onJobFailureReasons"], rule["targetReplicatedJobs"]) == (["PodFailurePolicy"], ["trainer"])
    job = trainer["template"]["spec"]
    (policy,) = job["podFailurePolicy"]["rules"]
    assert policy == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert (job["backoffLimit"], pod(trainer)["restartPolicy"]) == (0, "Never")
    assert pod(trainer)["terminationGracePeriodSeconds"] == 14
    assert pod(trainer)["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert "--workdir=gs://my-bucket/runs/qwen3-30b-v6e64" in script(trainer).split()
    last = [line for line in script(trainer).splitlines() if not line.startswith(" ")][-1]
    assert last.startswith("exec python -m launch.train")  # SIGTERM reaches the trainer, not a shell
    assert spec["successPolicy"] == {"operator": "All", "targetReplicatedJobs": ["trainer"]}
    assert pod(roles(jobset)["rollout"])["restartPolicy"] == "OnFailure"


def test_reserved_machines_are_asked_for_by_name(cluster):
    made = cluster(TPU, **{"trainer.spot": False, "trainer.reservation": "r1"})
    rendered = render_gke(made)
    nodes = pod(roles(documents(rendered)["JobSet"])["trainer"])["nodeSelector"]
    assert nodes["cloud.google.com/reservation-name"] == "r1" and "cloud.google.com/gke-spot" not in nodes
    assert "--reservation=r1" in rendered.files["xpk.sh"] and "--spot" not in rendered.files["xpk.sh"]


def test_xpk_is_told_a_shape_that_no_name_means(cluster):
    made = cluster("qwen3_30b_v5p128", **{"targets": ("gke",), "trainer.topology": "4x4x16", "trainer.mesh.data": 128})
    assert "--tpu-type=v5p-4x4x16 " in render_gke(made).files["xpk.sh"]


def test_several_slices_are_several_jobs_on_the_machines_own_network(cluster):
    made = cluster(TPU, **{"trainer.slices": 2, "trainer.mesh.data": 32})
    job = roles(documents(render_gke(made))["JobSet"])["trainer"]
    assert (job["replicas"], job["template"]["spec"]["completions"]) == (2, 16)
    assert (pod(job)["hostNetwork"], pod(job)["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert "MEGASCALE" not in script(job) and "--distributed" in script(job) and "--process_id" not in script(job)


def test_gpu_trainers_are_told_their_coordinator_and_number(cluster):
    made = cluster(GPU, **ON_GKE, **{"trainer.hosts": 2, "trainer.mesh.data": 16})
    jobset = documents(render_gke(made))["JobSet"]
    trainer = roles(jobset)["trainer"]
    assert pod(trainer)["nodeSelector"]["cloud.google.com/gke-accelerator"] == "nvidia-h100-80gb"
    echo = script(trainer).replace("python", "echo").replace("exec", "")
    shown = subprocess.run(
        ["bash", "-c", echo], env={"JOB_COMPLETION_INDEX": "1"}, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"--distributed", "--num_processes=2", "--process_id=1"} <= set(shown)
    assert f"--coordinator_address={made.name}-trainer-0-0.{made.name}:8476" in shown


def test_secrets_are_references_and_the_relays_get_no_other_key_than_theirs(cluster):
    def reference(variable, name):
        return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": variable}}}

    rendered = render_gke(cluster(TPU))
    jobset = roles(documents(rendered)["JobSet"])
    containers = {name: pod(role)["containers"][0] for name, role in jobset.items()}
    key = reference("TRACE_RELAY_KEY", "trace-relay-key")
    assert containers["trainer"]["env"][2:] == [reference("WANDB_API_KEY", "wandb-api-key"), key]
    assert containers["rollout"]["env"] == [key] and "env" not in containers["router"]
    beside_xpk = roles(documents(rendered, "servers.yaml")["JobSet"])
    assert pod(beside_xpk["rollout"])["containers"][0]["env"] == [key]


def test_xpk_runs_the_same_trainer_beside_a_jobset_of_the_others(cluster, machine):
    made = cluster(TPU)
    rendered = render_gke(made)
    servers = documents(rendered, "servers.yaml")
    assert set(roles(servers["JobSet"])) == {"rollout", "router"}
    assert "successPolicy" not in servers["JobSet"]["spec"]
    assert servers["Service"]["metadata"]["name"] == documents(rendered)["Service"]["metadata"]["name"]
    for name in ("kubectl", "xpk"):
        machine.program(name)
    assert machine.run(f"cd {machine.home}\n{rendered.files['xpk.sh']}").returncode == 0
    assert machine.calls("kubectl") == [["kubectl", "apply", "-f", "servers.yaml"]]
    (create,) = machine.calls("xpk", "workload", "create")
    assert {"--tpu-type=v6e-64", "--num-slices=1", "--spot", "--max-restarts=20"} <= set(create)
    trainer = script(roles(documents(rendered)["JobSet"])["trainer"])
    (command,) = [word.removeprefix("--command=") for word in create if word.startswith("--command=")]
    assert "\n" not in command  # XPK pastes it into a YAML block
    assert command.replace(";", "").split() == trainer.replace("\\\n", "").split()
    assert rendered.files["xpk.env"].split() == [
        *("JAX_PLATFORMS", "PYTHONUNBUFFERED", "WANDB_API_KEY", "TRACE_RELAY_KEY")
    ]


def test_kubernetes_leaves_commands_of_bash_alone(cluster):
    made = cluster(TPU, **{"trainer.flags": ("--note=$(HOME)",)})
    assert "'--note=$$(HOME)'" in script(roles(documents(render_gke(made))["JobSet"])["trainer"])
