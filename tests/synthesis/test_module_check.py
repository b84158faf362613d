"""Claims about reading a module that a model wrote: it is never run, and nothing in it takes our process down."""

import subprocess
import sys

import pytest
from lamps_target import example

from trace_jax.synthesis.llm.module_check import MOST_CHARACTERS, module_faults

NESTED = """
from trace_jax.synthesis.llm.module_check import MOST_CHARACTERS, module_faults

ONCE = ["(", "[", "{", "-", "not ", "lambda: ", "a.", "a[", "f(", "1+", "x if y else ", "await ", "*", "**", "a=", "a,"]
ENDS = {"(": ")", "[": "]", "{": "}", "a[": "]", "f(": ")"}
for text in ONCE:
    for number in (50, 90, 190, 400, 2000, 10000):
        source = "x = " + text * number + "1" + ENDS.get(text, "") * number
        if len(source) <= MOST_CHARACTERS:
            module_faults(source, "A", ["b"])
for number in (50, 90, 99, 101, 300):
    for head in ("if 1:", "def f():", "class A:", "for i in i:", "try:"):
        source = "".join(" " * depth + head + "\\n" for depth in range(number)) + " " * number + "pass"
        if len(source) <= MOST_CHARACTERS:
            module_faults(source, "A", ["b"])
module_faults("class A(" + "A, " * 9000 + "A):\\n    pass", "A", ["b"])
module_faults("class A(B):\\n    pass\\nclass B(A):\\n    pass", "A", ["b"])
print("read all")
"""


def test_a_good_module_has_no_fault_and_its_knobs_are_looked_up_in_bases_too():
    source = "TARGET_TOOLS = '[]'\n" + example()
    assert module_faults(source, "LampsExercise", ["lamps", "wanted"]) == []
    heir = f"{source}\n\nclass Heir(LampsExercise):\n    name = 'heir'\n"
    assert module_faults(heir, "Heir", ["wanted"]) == []
    assert module_faults(heir, "Heir", ["size"]) == [
        "Knob 'size' is no keyword argument of Heir.__init__, which has contrast_every, lamps, wanted."
    ]


def test_nothing_is_run(tmp_path):
    mark = tmp_path / "ran"
    module_faults(f"open({str(mark)!r}, 'w')\nraise SystemExit\nclass A:\n    def draw(self): ...", "A", [])
    assert not mark.exists()


def test_no_nesting_takes_the_process_down():
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "read all\n"), done.stderr[-500:]


@pytest.mark.parametrize(
    "source,words",
    [
        ("x = 1\n" * MOST_CHARACTERS, "360000 bytes with the tools that it offers; at most 262144"),
        ("class A:\n  def draw(self):\n x", "syntax error in line 3: unindent"),
        ("return 3", "syntax error in line 1: 'return' outside function"),
        ("x = '\ud800'", "half a surrogate pair"),
        ("from os import path\nclass A:\n    def draw(self): ...", "Line 1 imports os.path"),
        ("from .kit import x\nclass A:\n    def draw(self): ...", "Line 1 imports .kit.x"),
        ("def f():\n    import subprocess\nclass A:\n    def draw(self): ...", "Line 2 imports subprocess"),
        ("class B: ...", "no class 'A' at its top level: it has B"),
        ("from trace_jax.environments.kit import Exercise as A\nclass A(A):\n    def draw(self): ...", "more than one"),
    ],
)
def test_what_is_wrong_is_told(source, words):
    assert any(words in fault for fault in module_faults(source, "A", [])), module_faults(source, "A", [])
