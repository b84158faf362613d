"""Stage 3: environments in, LoRA adapters out. GRPO on whole episodes, and supervised training of a tiny base."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "advantages": ["group_advantages"],
        "collection": ["Group"],
        "counters": ["Counters"],
        "group_source": ["GroupSource", "TrainingEnvironment"],
        "job": ["Job", "StepReport"],
        "learner": ["Learner"],
        "loss": ["AGGREGATIONS", "KL_ESTIMATORS", "SURROGATES", "policy_loss"],
        "publish": ["Publisher"],
        "sample": ["Sample", "samples"],
        "settings": ["GRPOConfig"],
        "supervised": ["Demonstration", "SupervisedConfig", "train_supervised"],
        "trainer": ["train"],
    },
)
