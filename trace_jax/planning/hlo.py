"""Parses the text of a compiled program (``compiled.as_text()``) into computations, instructions and source lines."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from trace_jax.errors import UserError
from trace_jax.planning.shapes import Array, Shape, leaves, parse_shape, split

_HEADER = re.compile(r"(ENTRY )?%?([^\s(]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?(\S+) = (.*)$")
_CALLERS = 3  # frames of a source, so that the caller of a helper is included
_END = re.compile(r"\}(, execution_thread=.*)?")
_CALLS = {
    "fusion": ("calls",),
    "call": ("to_apply",),
    "call-start": ("to_apply",),  # on another core of the chip
    "while": ("body",),
    "conditional": ("true_computation", "false_computation", "branch_computations"),
}


@dataclass(frozen=True)
class Instruction:
    """``name = shape opcode(operands), attributes``; ``literal`` is the text between the parentheses."""

    name: str
    shape: Shape
    opcode: str
    literal: str
    attributes: str

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands."""
        parts = split(self.literal)
        return tuple(part.split()[-1].removeprefix("%") for part in parts if "%" in part)

    def attribute(self, name: str) -> str | None:
        """The first word of an attribute, for instance ``body`` of a loop."""
        match = re.search(rf"(?<![\w-]){re.escape(name)}=\{{?%?([^\s,}}]+)", self.attributes)
        return match.group(1) if match else None

    def called(self) -> tuple[str, ...]:
        """Names of the computations that this instruction runs, without those that it applies to single elements."""
        names = _CALLS.get(self.opcode, ("calls",) if self.opcode.endswith("-start") else ())
        found: list[str] = []
        for name in names:
            match = re.search(rf"(?<![\w-]){name}=(\{{[^}}]*\}}|[^\s,]+)", self.attributes)
            if match:
                found += [part.strip().removeprefix("%") for part in match.group(1).strip("{}").split(",")]
        return tuple(found)

    @property
    def op_name(self) -> str:
        """The path of JAX's primitive, for instance ``jit(step)/while/body/all_gather``; empty if XLA removed it."""
        match = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return re.sub(r"\\(.)", r"\1", match.group(1)) if match else ""

    @property
    def frame(self) -> int:
        """Number of the stack frame that made it; 0 if there is none."""
        match = re.search(r"stack_frame_id=(\d+)", self.attributes)
        return int(match.group(1)) if match else 0


@dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; ``root`` is the result."""

    name: str
    instructions: Mapping[str, Instruction]
    root: Instruction

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """An operand's instruction."""
        return self.instructions[instruction.operands[index]]

    def users(self, instruction: Instruction) -> list[Instruction]:
        """Instructions that take this one's result."""
        return [user for user in self.instructions.values() if instruction.name in user.operands]

    def arrays(self, instruction: Instruction) -> Iterator[Array]:
        """The arrays of all operands."""
        for name in instruction.operands:
            yield from leaves(self.instructions[name].shape)


@dataclass(frozen=True)
class Module:
    """A whole program for one device out of ``partitions``."""

    name: str
    entry: Computation
    computations: Mapping[str, Computation]
    partitions: int
    frames: Mapping[int, str] = field(default_factory=dict)  # stack frame → "file.py:12 function < file.py:34 caller"

    def source(self, instruction: Instruction) -> str:
        """Where an instruction is from: ``file.py:12 function < file.py:34 caller``; empty if XLA removed the lines."""
        return self.frames.get(instruction.frame, "")


def parse_module(text: str) -> Module:
    """Read a program. Raises UserError if ``text`` is not a complete program."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("HloModule "):
        raise UserError(f"not a compiled program: {text[:40]!r}; give what compiled.as_text() returns")
    computations: dict[str, Computation] = {}
    inside: dict[str, Instruction] | None = None
    root: Instruction | None = None
    entry, name = None, ""
    for line in _joined(lines):
        if inside is None:
            header = _HEADER.match(line)
            if header:
                name, inside, root = header.group(2), {}, None
                entry = name if header.group(1) else entry
        elif _END.fullmatch(line):
            if root is None:
                raise UserError(f"computation {name!r} has no ROOT: the program's text is cut off")
            computations[name] = Computation(name, inside, root)
            inside = None
        else:
            match = _INSTRUCTION.match(line)
            if match:
                instruction = _instruction(match.group(2), match.group(3))
                inside[instruction.name] = instruction
                root = instruction if match.group(1) else root
    if entry is None or entry not in computations:
        raise UserError(f"{lines[0][:60]!r}: the program has no ENTRY: its text is cut off")
    count = re.search(r"num_partitions=(\d+)", lines[0])
    module = re.match(r"HloModule ([^\s,]+)", lines[0])
    assert module is not None
    return Module(
        module.group(1), computations[entry], computations, int(count.group(1)) if count else 1, _frames(lines)
    )


def _joined(lines: list[str]) -> Iterator[str]:
    """The lines of computations. An instruction whose attributes span several lines becomes one line."""
    broken: list[str] = []
    for line in lines:
        if broken and line and not line.startswith(" ") and not _END.fullmatch(line):
            broken.append(line)
            continue
        if broken:
            yield "".join(broken)
            broken = []
        if line.startswith("  "):
            broken = [line]
        else:
            yield line
    if broken:
        yield "".join(broken)


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text) if text.startswith("(") else text.index(" ")
    shape, rest = text[:end], text[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    return Instruction(name, parse_shape(shape), opcode, rest[len(opcode) + 1 : close - 1], rest[close:])


def _closing(text: str, start: int = 0) -> int:
    """The position after the parenthesis that closes the one at ``start``. Parentheses in quoted text do not count."""
    depth, quoted = 0, False
    for position in range(start, len(text)):
        character = text[position]
        if character == '"' and text[position - 1] != "\\":
            quoted = not quoted
        elif not quoted and character in "()":
            depth += 1 if character == "(" else -1
            if depth == 0:
                return position + 1
    raise UserError(f"unbalanced parentheses in {text[:60]!r}: the program's text is cut off")


def _frames(lines: list[str]) -> dict[int, str]:
    """The source of each stack frame, from the tables before the computations."""
    tables: dict[str, dict[int, str]] = {}
    table: dict[int, str] | None = None
    for line in lines[1:]:
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables.setdefault(line, {})
        elif table is not None and line[:1].isdigit():
            number, _, rest = line.partition(" ")
            table[int(number)] = rest
        elif line:
            break
    files, functions = tables.get("FileNames", {}), tables.get("FunctionNames", {})
    places = {}
    for place, text in tables.get("FileLocations", {}).items():
        fields = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)}
        file = files.get(fields.get("file_name_id", 0), '""').strip('"').rsplit("/", 1)[-1]
        function = functions.get(fields.get("function_name_id", 0), '""').strip('"').rsplit(".", 1)[-1]
        places[place] = f"{file}:{fields.get('line', 0)} {function}"
    stack: dict[int, tuple[str, int]] = {}
    for frame, text in tables.get("StackFrames", {}).items():
        fields = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)}
        # The tables count frames from 1, and store a caller as its frame's number plus 1: 1 means "no caller".
        stack[frame] = places.get(fields.get("file_location_id", 0), ""), fields.get("parent_frame_id", 1) - 1
    return {frame: _chain(stack, frame) for frame in stack}


def _chain(stack: Mapping[int, tuple[str, int]], frame: int) -> str:
    """A frame and its callers, innermost first."""
    places: list[str] = []
    while frame in stack and len(places) < _CALLERS:
        place, caller = stack[frame]
        if place and place not in places:
            places.append(place)
        frame = caller if caller < frame else 0
    return " < ".join(places)
