"""The package ``trace_jax``. The programs in ``launch/`` and ``evaluation/`` run from a checkout."""

from setuptools import find_packages, setup

# JAX 0.10.2 and flax 0.12.8 are the last for Python 3.11; newer Pythons get newer ones. Both ends are tested.
JAX = "jax>=0.10.2"

setup(
    name="trace-jax",
    version="0.1.0",
    description="TRACE in JAX: failed trajectories in, a routed set of LoRA adapters out",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["trace_jax", "trace_jax.*"]),
    package_data={
        "trace_jax": ["py.typed", "contract/schemas/*.json", "planning/targets/*.txtpb", "**/prompts/*.jinja"],
    },
    install_requires=[
        JAX,
        "absl-py>=2.1",
        "aiohttp>=3.11",
        "etils[epath]>=1.12",
        "flax>=0.12.8",
        "fsspec>=2024.6",
        "jinja2>=3.1.6",
        "jsonschema>=4.20",
        "lazy-loader>=0.4",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "openai>=1.60",  # the transport to language models; imported when one is asked
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "prometheus-client>=0.21",
        "pydantic>=2.10",
        "pyyaml>=6.0",
        "referencing>=0.31",
        "regex>=2024.5",  # matches within a time limit
        "rich>=13.7",
        "safetensors>=0.5",
        "scipy>=1.14",
        "starlette>=0.45",
        "tenacity>=9.0",
        "tensorboardX>=2.6.2",
        "tokenizers>=0.21",
        "transformers>=5.0",  # configurations, tokenizers, templates, generation settings; needs no torch for this
        "uvicorn>=0.34",
    ],
    extras_require={
        "tpu": [JAX.replace("jax", "jax[tpu]")],
        "gpu": [JAX.replace("jax", "jax[cuda12]")],
        "smollm2": ["gguf>=0.17"],  # reads the file that the small real model comes in
        "gymnasium": ["gymnasium>=1.0"],  # target.environment=gymnasium:ID
        "openenv": ["openenv>=0.10"],  # target.environment=openenv:URL; or in the Python of target.python
        "sglang": ["sglang>=0.5.23", "sglang-router>=0.3.2"],
        # torch, peft and trl are references that the tests compare with; trace_jax never imports them.
        "dev": [
            "gguf>=0.17",
            "gymnasium>=1.0",
            "hypothesis>=6.100",
            "import-linter>=2.1",
            JAX.replace("jax", "jax[tpu]"),  # libtpu: the tests compile for TPUs, with no TPU
            "krippendorff>=0.8",
            "kubeflow-trainer-api>=2.1",  # JobSet as its authors describe it: rendered files are held against it
            "kubernetes-validate>=1.33",  # and Kubernetes' own JSON schemas
            "mypy>=1.15",
            "peft>=0.17",
            "pytest>=8.3",
            "pytest-xdist>=3.6",  # test files go to two processes: most of a test keeps one core busy
            "ruff>=0.17,<0.18",
            "torch==2.13.0",
            "trl==1.16.0",  # its own GRPO step, which is not a public interface
        ],
    },
)
