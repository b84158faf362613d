"""Every field with its default, type and unit. A run is a short delta over this:

    from configs import base

    def get_config():
        config = base.get_config()
        config.training.learning_rate = 3e-4
        return config

Every field is one line ``section.name = default  # type, unit: meaning``; a test holds that, and ``training`` against
``GRPOConfig``. The config is locked: a key that does not stand here is refused.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The defaults, locked."""
    config = ConfigDict()
    config.seed = 0  # int: everything random in the run derives from it

    target = config.target = ConfigDict()
    target.environment = "helpdesk"  # str: name in the registry, or module:Class
    target.train_tasks = 60  # int, tasks of the train split that are used
    target.held_out_tasks = 80  # int, tasks of the held-out split that are used

    base = config.base = ConfigDict()
    base.path = ""  # str: Hugging Face directory of the base model
    base.dtype = "float32"  # str: dtype of the weights: float32 or bfloat16

    mesh = config.mesh = ConfigDict()
    mesh.data = -1  # int, devices along the axis, which splits batches; -1: as many as are left
    mesh.fsdp = 1  # int, devices along the axis, which splits batches and the width of weights
    mesh.tensor = 1  # int, devices along the axis, which splits heads, feed-forward width and vocabulary
    mesh.expert = 1  # int, devices along the axis, which splits batches and experts

    plan = config.plan = ConfigDict()
    plan.model = ""  # str: config.json of the model that launch.plan plans for; empty: that of base.path
    plan.adapters = 1  # int, adapters that learn together
    plan.prompt_tokens = 1024  # int, tokens of a prompt, which the rollouts of its group share
    plan.completion_tokens = 1024  # int, tokens of an episode behind its prompt
    plan.trained_share = 0.4  # float in [0, 1]: how many of these are sampled, and so trained
    plan.decode_slots = 0  # int, slots a device of the engine's decode step, planned as well; 0: it is left out

    engine = config.engine = ConfigDict()
    engine.kind = "embedded"  # str: embedded or sglang
    engine.url = ""  # str: http://HOST:PORT of the servers, with commas, or of their router; for sglang alone
    engine.relay_port_offset = placeholder(int)  # int or None: from a server's port to its relay's; None: a shared disk
    engine.slots = 64  # int, rows decoded at once; of sglang, requests in flight a server
    engine.capacity = 512  # int, tokens of cache a row; of sglang, of prompt and completion together
    engine.request_seconds = 300.0  # float, seconds after which a server has failed a request; for sglang alone
    engine.wait_seconds = 600.0  # float, seconds to wait when no server is left, before the run stops; sglang alone

    rollout = config.rollout = ConfigDict()
    rollout.trials = 4  # int, episodes a train task that the analysis sees
    rollout.temperature = 1.0  # float: of sampling; 0 is greedy
    rollout.max_turns = 16  # int, agent turns an episode
    rollout.max_episode_tokens = 512  # int, tokens of an episode's context, prompts and completions together
    rollout.max_turn_tokens = 256  # int, sampled tokens a turn
    rollout.max_seconds = 300.0  # float, seconds an episode
    rollout.concurrency = 64  # int, episodes in flight
    rollout.thinking = placeholder(bool)  # bool or None: whether a hybrid Qwen3 thinks; None: as its template, it does

    analysis = config.analysis = ConfigDict()
    analysis.analyst = "rules"  # str: rules or llm
    analysis.runs = 10  # int, independent labelings
    analysis.min_support = 5  # int, failed trajectories that must lack a capability

    source = config.source = ConfigDict()
    source.format = "trajectories"  # str: trajectories, tau_bench or tau2_bench: what launch.analyze reads
    source.path = ""  # str: the result file that launch.analyze reads
    source.domain = "airline"  # str: domain of a τ-bench file, which does not name it
    source.model = "unknown"  # str: model that produced a τ-bench file, which does not name it

    synthesis = config.synthesis = ConfigDict()
    synthesis.designer = "rules"  # str: rules or llm
    synthesis.max_rounds = 4  # int, designs a capability before it is FAILED
    synthesis.calibration_groups = 16  # int, seeds that calibrate a design
    synthesis.calibration_group_size = 8  # int, rollouts of one seed

    training = config.training = ConfigDict()
    training.max_steps = 40  # int or None, steps; the run ends at max_steps or max_rollouts
    training.max_rollouts = placeholder(int)  # int or None, episodes; the pipeline sets it for GRPO on the target
    training.stop_reward = placeholder(float)  # float or None: mean reward that, twice in a row, ends the training
    training.groups_per_step = 8  # int, groups
    training.num_generations = 8  # int, rollouts of a group, all from one seed of the environment
    training.max_recollections = 3  # int, extra rounds of a step while too few groups are informative or late
    training.max_staleness = 0  # int, updates that the weights which sample may be behind; 0: rollouts wait for updates
    training.group_seconds = placeholder(
        float
    )  # float or None, seconds a round of groups is waited for; None: till all end
    training.max_mismatch = placeholder(
        float
    )  # float or None: mean |Δ log-probability| that stops; None: only a warning
    training.scale_rewards = "group"  # str: group, batch or none: whose std divides the advantages
    training.std_floor = 0.0  # float, reward: advantages divide by max(std, std_floor)
    training.num_iterations = 1  # int, optimiser steps on each batch
    training.learning_rate = 1e-4  # float: of AdamW
    training.warmup_steps = 0  # int, optimiser steps of linear warm-up, then constant
    training.max_grad_norm = 1.0  # float: the gradient's norm is clipped to it
    training.rank = 16  # int: LoRA rank
    training.alpha = 16.0  # float: LoRA alpha; the scale is alpha / rank
    training.target_modules = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )  # tuple of str: projections that carry LoRA
    training.micro_batch_tokens = 4096  # int, tokens that go through the model at once on a device; the longest row
    training.row_tokens = placeholder(int)  # int or None, tokens of a packed row; None: cheapest, compiled each time
    training.remat = placeholder(str)  # str or None: none, projections, attention or full: what is kept for gradients
    training.save_steps = 1  # int, steps between checkpoints
    training.max_to_keep = 2  # int, checkpoints kept: the last ones
    training.keep_period = placeholder(int)  # int or None, steps: checkpoints of its multiples are kept as well
    training.keep_best = 0  # int, checkpoints of highest mean reward that are kept as well
    training.snapshots = ()  # tuple of float, fractions of the run at which an adapter is exported
    training.epsilon = 0.2  # float: the ratio is clipped to [1 - epsilon, 1 + epsilon_high]
    training.epsilon_high = placeholder(float)  # float or None: None is epsilon; 0.28 is clip-higher (DAPO)
    training.beta = 0.0  # float: weight of the KL to the base
    training.kl_estimator = "k3"  # str: k1, k2 or k3
    training.loss_type = "dapo"  # str: grpo, dapo or dr_grpo
    training.max_completion_length = 512  # int, trained tokens: the constant divisor of dr_grpo
    training.importance_sampling_level = "token"  # str: token, or sequence: one ratio a sample (GSPO)
    training.tis_cap = placeholder(float)  # float or None: cap of the sampler/trainer ratio; None: no correction
    training.icepop_low = placeholder(float)  # float or None: tokens of a lower trainer/sampler ratio are masked
    training.icepop_high = placeholder(float)  # float or None: tokens of a higher trainer/sampler ratio are masked

    routing = config.routing = ConfigDict()
    routing.router = "gate"  # str: gate or classifier
    routing.prompts = 64  # int, synthetic prompts a choice that train the gate; a quarter as many for each pair
    routing.policy = "best"  # str: best (one adapter), together (all that are needed), nucleus (merged by weight)
    routing.top_p = 0.9  # float: weight of the nucleus, above 0 and at most 1
    routing.minimum_weight = 0.0  # float in [0, 1]: a best weight below it is undecided, and the base serves

    evaluation = config.evaluation = ConfigDict()
    evaluation.trials = 4  # int, sampled episodes a held-out task and method
    evaluation.temperature = 1.0  # float: of the sampled trials; greedy ones come on top

    telemetry = config.telemetry = ConfigDict()
    telemetry.tensorboard = True  # bool: write TensorBoard event files
    telemetry.wandb = False  # bool: log to Weights & Biases (must be installed)
    return config.lock()
