"""A gymnasium environment of texts: say the word that the seed draws."""

import gymnasium
from gymnasium.spaces import Discrete, Text


class Word(gymnasium.Env):
    observation_space = action_space = Text(100)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.word, self.turns = f"w{self.np_random.integers(1000)}", 0
        return f"Say {self.word}.", {}

    def step(self, action):
        self.turns += 1
        right = action == self.word
        return "No.", 1.0 if right else -1.0, right, self.turns == 3, {}


class Numbers(Word):
    action_space = Discrete(3)


gymnasium.register("Word-v0", Word, disable_env_checker=True)
gymnasium.register("Numbers-v0", Numbers, disable_env_checker=True)
