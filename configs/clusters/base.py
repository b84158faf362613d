"""Every field of a cluster with its default, type and unit. A cluster is a short delta over this:

    from configs.clusters import base

    def get_config():
        config = base.get_config()
        config.name = "trace-qwen3-30b"
        return config

``python -m launch.clusters`` reads it. It contains names of secrets, never their values: ``HF_TOKEN=hf-token`` puts the
secret object ``hf-token`` into the trainer's variable ``HF_TOKEN``. GKE reads a Secret of the namespace, with the
variable as its key. SSH machines read Google Cloud's Secret Manager. SkyPilot and XPK take the variables of the shell
that starts the job. Relays get ``TRACE_RELAY_KEY`` as well; without it they take adapters from every client:

    openssl rand -hex 32 | head -c 64 |    # no line break at the end
        kubectl create secret generic trace-relay-key --from-file=TRACE_RELAY_KEY=/dev/stdin
        # or, for SSH: gcloud secrets create trace-relay-key --data-file=-
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults, locked."""
    config = ConfigDict()
    config.name = ""  # str: a DNS label of at most 30 characters; the prefix of every object
    config.targets = ("gke",)  # tuple of str: gke, skypilot, ssh: what is rendered
    config.project = ""  # str: Google Cloud project (not needed for GPU machines over SSH)
    config.zone = ""  # str: its zone, for instance us-east5-b; SkyPilot chooses one if it is empty
    config.image = ""  # str: container image of the trainer: this repository installed, its root as working directory
    config.model = ""  # str: Hugging Face directory of the base model: gs://…, or an absolute path on every machine
    config.workdir = ""  # str: work directory of the run; gs://… unless one host that cannot be preempted trains
    config.environments = ()  # tuple of str, paths of the environment manifests to train on
    config.secrets = ()  # tuple of str, VARIABLE=name of the secret object
    config.max_restarts = 20  # int, restarts after a crash; preemptions that can be recognised are not counted
    config.grace_seconds = 15  # int, seconds from SIGTERM to SIGKILL; by default GKE gives spot machines 15
    config.startup_seconds = 1800  # int, longest time in which servers load the model, in seconds

    trainer = config.trainer = ConfigDict()
    trainer.config = ""  # str: configuration file of the run inside the image
    trainer.flags = ()  # tuple of str, more flags for launch.train
    trainer.accelerator = "v6e"  # str: v5e, v5p, v6e or tpu7x; A100-80GB, H100, H200 or B200
    trainer.topology = ""  # str: of one TPU slice, 8x8 for v6e-64, 2x4x4 for v5p-64; empty for GPUs
    trainer.slices = 1  # int, TPU slices; 1 for GPUs
    trainer.hosts = 0  # int, machines of a GPU trainer; 0 for TPUs, where the topology determines it
    trainer.chips_per_host = 4  # int, chips or GPUs of one machine
    trainer.spot = False  # bool: spot (preemptible) machines
    trainer.reservation = ""  # str: reservation of the machines; empty: none

    mesh = trainer.mesh = ConfigDict()
    mesh.data = 1  # int, devices along data; a multiple of the slices
    mesh.fsdp = 1  # int, devices along fsdp
    mesh.tensor = 1  # int, devices along tensor
    mesh.expert = 1  # int, devices along expert

    rollout = config.rollout = ConfigDict()
    rollout.image = ""  # str: container image with sglang, sglang-router and this repository as working directory
    rollout.accelerator = "H100"  # str: A100-80GB, H100, H200 or B200
    rollout.machines = 1  # int, GPU machines
    rollout.gpus_per_machine = 8  # int, GPUs of one machine
    rollout.tensor_parallel = 1  # int, GPUs of one server; a machine runs gpus_per_machine / tensor_parallel servers
    rollout.spot = False  # bool: spot (preemptible) machines
    rollout.max_lora_rank = 16  # int: highest LoRA rank that is served
    rollout.max_loras_per_batch = 8  # int, adapters in one batch
    rollout.flags = ()  # tuple of str, more flags for sglang.launch_server

    gke = config.gke = ConfigDict()
    gke.cluster = ""  # str: name of the GKE cluster
    gke.namespace = "default"  # str: Kubernetes namespace
    gke.service_account = ""  # str: Kubernetes service account with access to the buckets

    ssh = config.ssh = ConfigDict()
    ssh.trainer_hosts = ()  # tuple of str, user@internal-address of each GPU trainer machine; () for TPUs
    ssh.rollout_hosts = ()  # tuple of str, user@internal-address of each rollout machine
    return config.lock()
