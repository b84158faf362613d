"""The record of a plan: memory, work and time of each program on each device, in bytes and seconds."""

from trace_jax.contract.record import Part, Record


class CollectiveUse(Part):
    """All executions of one collective in one run of a program. Bytes are their sum on one chip.

    ``payload_bytes`` is the size of the arrays that are gathered, reduced or moved; ``sent_bytes`` is the amount that
    the chip sends. ``purpose`` is the path of the operation in the program. ``source`` is its line with those of its
    callers (``file.py:12 function < file.py:34 caller``). Both are empty for a collective that XLA added.
    """

    kind: str
    axes: tuple[str, ...]
    group: int
    count: int
    payload_bytes: int
    sent_bytes: int
    seconds: float
    purpose: str
    source: str
    asynchronous: bool
    estimated: bool


class KindTotal(Part):
    """All collectives of one kind."""

    kind: str
    count: int
    payload_bytes: int
    sent_bytes: int
    seconds: float


class BufferUse(Part):
    """One array that is alive at the memory peak."""

    bytes: int
    shape: str
    purpose: str
    source: str


class MemoryUse(Part):
    """Memory of one device, in bytes. A field is None if the compiler failed before it knew the value.

    ``resident`` is the memory that other programs of the job keep at the same time; ``peak`` includes it.
    """

    arguments: int
    outputs: int | None
    aliased: int | None
    temporaries: int | None
    program: int | None
    resident: int
    peak: int
    available: int
    verdict: str
    buffers: tuple[BufferUse, ...]

    @property
    def fits(self) -> bool:
        """Whether the program can be loaded."""
        return self.peak <= self.available


class Cost(Part):
    """Work of one device in one run, and the least time that each resource needs for it.

    ``operations_seconds`` adds up the operations; each takes the longer of its arithmetic and its memory traffic.
    """

    flops: float
    hbm_bytes: int
    compute_seconds: float
    memory_seconds: float
    operations_seconds: float
    interconnect_seconds: float


class ProgramPlan(Part):
    """One program. ``cost`` is None if it does not fit."""

    name: str
    times: float
    level: str
    compile_seconds: float
    memory: MemoryUse
    cost: Cost | None
    totals: tuple[KindTotal, ...]
    collectives: tuple[CollectiveUse, ...]
    warnings: tuple[str, ...]


class StepEstimate(Part):
    """One optimiser step of all programs, by the roofline.

    ``seconds`` assumes that collectives overlap with computation: each program takes the longer of the two.
    ``seconds_without_overlap`` is their sum. ``mfu`` is the model's FLOPs, without recomputation, as a share of the
    chips' peak over ``seconds``; ``hardware_utilisation`` is the same for the executed FLOPs. ``tokens_per_second`` and
    ``mfu`` are None if the job does not give its tokens or the model's FLOPs.
    """

    seconds: float
    seconds_without_overlap: float
    bottleneck: str
    tokens_per_second: float | None
    mfu: float | None
    hardware_utilisation: float


class PlanReport(Record):
    """A plan: programs compiled ahead of time for a topology. ``step`` is None if one of them does not fit."""

    topology: str
    chips: int
    devices: int
    mesh: dict[str, int]
    compiler: dict[str, str]  # package → version
    tokens_per_step: int | None
    model_flops_per_step: float | None
    programs: tuple[ProgramPlan, ...]
    step: StepEstimate | None

    @property
    def fits(self) -> bool:
        """Whether every program fits."""
        return all(program.memory.fits for program in self.programs)
