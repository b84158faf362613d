"""Attacks on the sandbox: what a hostile module does, and the line by which our side reports it.

Each body is Python that runs in a process of the sandbox. ``report`` is a regular expression: of the fault if the
attack breaks its episode, of what the module could tell us if not.
"""

import os
import re
from dataclasses import dataclass

from trace_jax.contract.trajectory import Message
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.sandbox import SandboxedFactory, SandboxedModule, SandboxSettings

PATIENT = SandboxSettings(memory_mib=256, step_seconds=20.0, start_seconds=20.0)
# For attacks that never end: short, and longer where the calls before the attack must not be late.
SHORT = SandboxSettings(memory_mib=256, step_seconds=0.25, start_seconds=0.5)
LONGER = SandboxSettings(memory_mib=256, step_seconds=0.7, start_seconds=0.7)
# For one that is found out at once, and whose process is then waited for in vain.
SILENT = SandboxSettings(memory_mib=256, step_seconds=2.0, start_seconds=20.0)

MARKER = "/tmp/left-by-an-attack"
FORBIDDEN = "forbidden system call"
LATE = r"no answer within [\d.]+ s"
OUT_OF_TURN = "answered request .* out of turn"
NO_ANSWER = "among its answers"

_MODULE = """
import ctypes, gc, os, sys, time
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.protocol import Observation, Outcome

HOST, MARKER = {host}, {marker!r}

def system_call(*numbers):
    libc = ctypes.CDLL(None, use_errno=True)
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in numbers]
    if libc.syscall(*passed) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def number_of_the_request():
    frame = sys._getframe()
    while "batch" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["number"]

{at_load}

class Victim:
    name, tools = "victim", ()

    def reset(self, task):
{at_reset}
        return Observation((Message(role="user", content="hello"),))

    def step(self, message):
        done = self.attack()
        return Observation((Message(role="user", content=str(done)),))

    def attack(self):
{at_step}

    def grade(self):
{at_grade}

    def state(self):
        return {{}}

    def solution(self):
        return ()
"""


@dataclass(frozen=True)
class Attack:
    """One attack. ``at`` says which call of the environment it is made in, ``settings`` the limits of its own."""

    body: str
    report: str
    at: str = "step"
    settings: SandboxSettings | None = None

    def limits(self) -> SandboxSettings:
        """What it is given of time and memory."""
        late = SHORT if self.report == LATE else LONGER if self.report.endswith(LATE) else PATIENT
        return self.settings or late

    def contained(self, report: str) -> bool:
        """Whether our side reported the attack by the line that it should."""
        return re.search(self.report, report) is not None

    def module(self) -> SandboxedModule:
        """The hostile module."""
        bodies = {"load": "", "reset": "pass", "step": "return 'peace'", "grade": "return Outcome(1.0)"}
        bodies[self.at] = self.body
        indented = {f"at_{at}": _indented(body, 0 if at == "load" else 8) for at, body in bodies.items()}
        return SandboxedModule(_MODULE.format(host=os.getpid(), marker=MARKER, **indented), "Victim")


def launch(attack: Attack, sandbox) -> str:
    """What our side says: the fault, or the module's own words if no call broke."""
    sandbox.settings = attack.limits()
    make = SandboxedFactory(attack.module(), sandbox)
    try:
        environment = make()
        environment.reset(1)
        said = environment.step(Message(role="assistant", content="go")).messages[0].content
        outcome = environment.grade()
        environment.state()
        return f"unbroken: {said}, reward {outcome.reward}"
    except EnvironmentFault as fault:
        return f"fault: {fault}"
    finally:
        make.close()


def _indented(body: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in body.strip().splitlines())


def _call(*numbers: object) -> str:
    return f"system_call({', '.join(map(str, numbers))})"


_FOREIGN = """
found = ctypes.cast(ctypes.CDLL(None).qsort, ctypes.c_void_p).value
while (place := ctypes.string_at(found, 4096).find(b"\\xcd\\x80")) < 0:
    found += 4095
ctypes.CFUNCTYPE(ctypes.c_int)(found + place)()
"""

ATTACKS = {
    # Time.
    "loop": Attack("while True: pass", LATE),
    "sleep": Attack("time.sleep(60)", LATE),
    "loop in grade": Attack("while True: pass", f"grade: {LATE}", at="grade"),
    "sleep when it is loaded": Attack("time.sleep(60)", f"start: {LATE}", at="load"),
    "deadlock": Attack("import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()", LATE),
    "regular expression without end": Attack("import re; re.match('(a+)+$', 'a' * 50 + 'b')", LATE),
    "stopped clock": Attack("time.monotonic = lambda: 0.0\nwhile True: pass", LATE),
    "set the clock": Attack("time.clock_settime(time.CLOCK_REALTIME, 0)", FORBIDDEN),
    "timer": Attack("import signal; signal.setitimer(signal.ITIMER_REAL, 0.01)", FORBIDDEN),
    # Processes and memory.
    "fork": Attack("while True: os.fork()", FORBIDDEN),
    "vfork": Attack(_call(58), FORBIDDEN),
    "clone3": Attack(_call(435, 0, 0), FORBIDDEN),
    "threads": Attack(
        "import threading\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
        "can't start new thread",
    ),
    "spawn": Attack("os.posix_spawn('/bin/true', ['true'], {})", FORBIDDEN),
    "execute": Attack("os.execv('/bin/sh', ['sh', '-c', f'touch {MARKER}'])", FORBIDDEN),
    "memory": Attack("bytearray(1 << 32)", "used more than 256 MiB"),
    "memory, bit by bit": Attack("held = []\nwhile True: held.append(bytearray(8 << 20))", "used more than 256 MiB"),
    "recursion": Attack("def again(): return again()\nagain()", "RecursionError"),
    "recursion without limit": Attack(
        "sys.setrecursionlimit(1 << 30)\ndef again(x=0): return sorted([0], key=again)\nagain()",
        "used more than|SIGSEGV|RecursionError|too much recursion",
    ),
    "segmentation fault": Attack("ctypes.string_at(0)", "crashed: SIGSEGV"),
    "abort": Attack("os.abort()", "crashed: "),
    "early exit": Attack("os._exit(0)", "ended itself with status 0"),
    "exit": Attack("sys.exit('no more')", "SystemExit: no more"),
    "exit when it is loaded": Attack("os._exit(3)", "ended itself with status 3", at="load"),
    # Files.
    "read a file": Attack("return open('/etc/passwd').read()", FORBIDDEN),
    "write a file": Attack("open(MARKER, 'w').write('x')", FORBIDDEN),
    "list /proc": Attack("return os.listdir('/proc')", FORBIDDEN),
    "read /proc/self/environ": Attack("return open('/proc/self/environ').read()", FORBIDDEN),
    "write our memory": Attack("open(f'/proc/{HOST}/mem', 'r+b')", FORBIDDEN),
    "open a device": Attack("open('/dev/zero', 'rb')", FORBIDDEN),
    "remove a file": Attack("os.unlink(__import__('trace_jax').__file__)", FORBIDDEN),
    "openat2": Attack(_call(437, -100, "b'/etc/passwd'", "bytes(24)", 24), FORBIDDEN),
    "open by handle": Attack(_call(304, -100, "bytes(128)", 0), FORBIDDEN),
    "file in memory, to execute": Attack("os.execve(os.memfd_create('x'), ['x'], {})", FORBIDDEN),
    "import from disk": Attack("import sqlite3", "'sqlite3' cannot be imported here: known are abc,"),
    "leave the root": Attack("os.chroot('/tmp')", FORBIDDEN),
    "environment variables": Attack("return dict(os.environ)", r"unbroken: \{\}"),
    "environment of the libraries": Attack(
        "return ctypes.cast(ctypes.CDLL(None).getenv(b'A_SECRET'), ctypes.c_void_p).value", "unbroken: None"
    ),
    # Network.
    "socket": Attack("import socket; socket.create_connection(('127.0.0.1', 9))", "forbidden|imported|getaddrinfo"),
    "socket by number": Attack(_call(41, 2, 1, 0), FORBIDDEN),
    "local sockets": Attack("import socket; socket.socketpair()", FORBIDDEN),
    "netlink": Attack("import socket; socket.socket(16, socket.SOCK_RAW, 0)", FORBIDDEN),
    # Other processes.
    "signal to us": Attack("os.kill(HOST, 9)", FORBIDDEN),
    "signal to all": Attack("os.kill(-1, 9)", FORBIDDEN),
    "signal to the fork server": Attack("os.kill(os.getppid(), 9)", FORBIDDEN),
    "ptrace": Attack(_call(101, 16, "HOST", 0, 0), FORBIDDEN),
    "read our memory": Attack(_call(310, "HOST", 0, 0, 0, 0, 0), FORBIDDEN),
    "handle of our process": Attack(_call(434, "HOST", 0), FORBIDDEN),
    "priority": Attack("os.setpriority(os.PRIO_PROCESS, HOST, 19)", FORBIDDEN),
    # The kernel.
    "user namespace": Attack(_call(272, 0x10000000), FORBIDDEN),
    "enter a namespace": Attack(_call(308, 0, 0), FORBIDDEN),
    "mount": Attack(_call(165, "b'x'", "b'/tmp'", "b'tmpfs'", 0, 0), FORBIDDEN),
    "io_uring": Attack(_call(425, 8, "bytes(120)"), FORBIDDEN),
    "bpf": Attack(_call(321, 0, "bytes(64)", 64), FORBIDDEN),
    "perf": Attack(_call(298, "bytes(128)", 0, -1, -1, 0), FORBIDDEN),
    "keys": Attack(_call(250, 0, 0), FORBIDDEN),
    "userfaultfd": Attack(_call(323, 0), FORBIDDEN),
    "kexec": Attack(_call(246, 0, 0, 0, 0), FORBIDDEN),
    "kernel module": Attack(_call(175, "b''", 0, "b''"), FORBIDDEN),
    "personality": Attack(_call(135, 0x0008), FORBIDDEN),
    "become root": Attack("os.setuid(0)", FORBIDDEN),
    "more memory than allowed": Attack(
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "not allowed"
    ),
    "let others look in": Attack(_call(157, 4, 1, 0, 0, 0), FORBIDDEN),
    "another filter": Attack(_call(317, 1, 0, 0), FORBIDDEN),
    "new code by mmap": Attack(_call(9, 0, 4096, 7, 34, -1, 0), FORBIDDEN),
    "new code by mprotect": Attack(
        "page = ctypes.addressof(ctypes.create_string_buffer(8192)) & -4096\n" + _call(10, "page", 4096, 7), FORBIDDEN
    ),
    "futex of another kind": Attack(_call(202, "bytes(4)", 6, 0, 0), FORBIDDEN),
    "call of a 32-bit machine": Attack(_FOREIGN, "killed: forbidden system call, of a foreign architecture"),
    "call of x32": Attack(_call(0x40000000 + 39), "killed: forbidden system call, of a foreign architecture"),
    # Descriptors and output.
    "flood of output": Attack("while True: print('x' * 65536); print('x' * 65536, file=sys.stderr)", LATE),
    "flood of output, unbuffered": Attack("while True: os.write(1, b'x' * 65536); os.write(2, b'x')", LATE),
    "flood of answers": Attack("while True: os.write(3, b'x' * 65536)", "a line of more than 5242880 bytes"),
    "flood of empty lines": Attack("while True: os.write(3, b'[]\\n' * 4096)", NO_ANSWER),
    "flood when nobody waits": Attack(
        'os.write(3, b\'[[%d,{"messages":[{"role":"user","content":"x"}],"done":false}]]\\n\''
        " % number_of_the_request())\nwhile True: os.write(3, b'[]\\n' * 4096)",
        NO_ANSWER,
    ),
    "slow drip": Attack("while True: os.write(3, b' '); time.sleep(0.01)", LATE),
    "no JSON": Attack("os.write(3, b'\\x80\\x04K\\x01.\\n')", NO_ANSWER),
    "pickle": Attack("os.write(3, b'cposix\\nsystem\\n(S\"touch ' + MARKER.encode() + b'\"\\ntR.\\n')", NO_ANSWER),
    "deep JSON": Attack("os.write(3, b'[' * 100000 + b'\\n')", NO_ANSWER),
    "deep answer": Attack(
        "n = number_of_the_request()\nos.write(3, b'[[%d,' % n + b'[' * 900 + b']' * 900 + b']]\\n'); time.sleep(60)",
        f"expected an observation|nested too deeply|{NO_ANSWER}",
        settings=SILENT,
    ),
    "number beyond all": Attack("os.write(3, b'[[' + b'9' * 5000 + b',{}]]\\n')", NO_ANSWER),
    "answer for nobody": Attack('os.write(3, b\'[[99,{"messages":[],"done":true}]]\\n\')', OUT_OF_TURN),
    "answer twice": Attack(
        'os.write(3, b\'[[%d,{"messages":[{"role":"user","content":"x"}],"done":false}]]\\n\''
        " % number_of_the_request())",
        OUT_OF_TURN,
    ),
    "forged grade, and silence": Attack(
        'os.write(3, b\'[[%d,{"reward":1.0,"components":{},"checks":[],"extra":{}}]]\\n\' % number_of_the_request())\n'
        "time.sleep(60)",
        f"state: {LATE}",
        at="grade",
    ),
    "forged start": Attack("os.write(3, b'[[0,null]]\\n')", "told of its environments 'None'", at="load"),
    "forged start, of another kind": Attack("os.write(3, b'[[0,[1]]]\\n')", r"environments '\[1\]'", at="load"),
    "forged start, and silence": Attack("os.write(3, b'[[0,{}]]\\n'); time.sleep(60)", f"open: {LATE}", at="load"),
    "forged start, nested deeply": Attack(
        "os.write(3, b'[[0,' + b'[' * 990 + b']' * 990 + b']]\\n')", f"environments|{NO_ANSWER}", at="load"
    ),
    "forged environment, nested deeply": Attack(
        "os.write(3, b'[[0,{}]]\\n'); time.sleep(0.1)\n"
        "os.write(3, b'[[1,' + b'[' * 990 + b']' * 990 + b']]\\n'); time.sleep(60)",
        f"expected an environment|{NO_ANSWER}|out of turn",
        at="load",
    ),
    "forged environment": Attack(
        'os.write(3, b\'[[0,{}],[1,{"name":7,"tools":[],"has":[]}]]\\n\')', OUT_OF_TURN, at="load"
    ),
    "long answer": Attack("return 'x' * (2 << 20)", r"step returned 2\d+ characters"),
    "closed descriptors": Attack("os.closerange(0, 64)", "ended itself|closed its channel|forbidden"),
    "closed channel": Attack("os.close(3)", "ended itself with status 70|closed its channel"),
    "duplicated descriptors": Attack("os.dup2(1, 3)", FORBIDDEN),
    "channel as a socket": Attack("import socket; socket.socket(fileno=3).shutdown(2)", FORBIDDEN),
    "channel without blocking": Attack("os.set_blocking(3, False)", FORBIDDEN),
    "descriptors of our side": Attack(
        "def closed(d):\n    try: os.read(d, 1)\n    except OSError as error: return error.errno == 9\n"
        "return [d for d in range(4, 4096) if not closed(d)]",
        r"unbroken: \[\]",
    ),
    # Answers that are none.
    "reward NaN": Attack("return Outcome(float('nan'))", "reward nan is not in", at="grade"),
    "reward infinite": Attack("return Outcome(float('inf'))", "reward inf is not in", at="grade"),
    "reward 2": Attack("return Outcome(2)", "reward 2 is not in", at="grade"),
    "reward below 0": Attack("return Outcome(-0.5)", "reward -0.5 is not in", at="grade"),
    "reward as text": Attack("return Outcome('1')", "reward '1' is not in", at="grade"),
    "reward as truth": Attack("return Outcome(True)", "reward True is not in", at="grade"),
    "reward as a list": Attack("return Outcome([1.0])", r"reward \[1.0\] is not in", at="grade"),
    "component infinite": Attack("return Outcome(1.0, {'x': float('inf')})", "component 'x' is inf", at="grade"),
    "costs of others": Attack("return Outcome(1.0, {}, (), {'tokens': 1})", "extra of an Outcome", at="grade"),
    "no outcome": Attack("return 1.0", "expected an Outcome", at="grade"),
    "half a character": Attack("return chr(0xD800)", "Unicode|surrogates|expected"),
    "tools without end": Attack(
        "self.tools = (Tool(name='t', description='x' * 100000, parameters={}),)", "tools of more than", at="reset"
    ),
    "error without end": Attack("raise ValueError('x' * (1 << 20))", "ValueError: x{1900,2100} "),
    # Our objects.
    "objects of our side": Attack(
        "names = ('ForkServer', 'Worker', 'SandboxPool', 'SandboxedEnvironment')\n"
        "return sum(type(each).__name__ in names for each in gc.get_objects())",
        "unbroken: 0",
    ),
    "the fork server's socket": Attack(
        "(server,) = [each for each in gc.get_objects() if type(each).__name__ == 'Server']\n"
        "server._control.send(b'k' * 9)",
        FORBIDDEN,
    ),
    "frames": Attack(
        "frame, names = sys._getframe(), []\n"
        "while frame: names.append(frame.f_code.co_name); frame = frame.f_back\n"
        "return names[-1], 'launch' in names",
        r"unbroken: \('<module>', False\)",
    ),
    "grader of all environments": Attack(
        "from trace_jax.environments import kit, protocol\n"
        "kit.Environment.grade = lambda self: Outcome(1.0)\n"
        "protocol.Outcome.__init__ = None\nMessage.model_dump_json = lambda self: '7'",
        "expected a Message",
    ),
}

# What bubblewrap or a namespace would have contained as well: without them it is up to the filter alone.
OF_THE_FILTER = (
    "loop", "fork", "spawn", "execute", "memory", "early exit", "read a file", "write a file", "list /proc",
    "read /proc/self/environ", "write our memory", "open a device", "remove a file", "leave the root",
    "environment variables", "socket", "local sockets", "netlink", "signal to us", "signal to all",
    "signal to the fork server", "ptrace", "read our memory", "priority", "user namespace", "mount", "become root",
    "call of x32", "closed descriptors", "descriptors of our side", "the fork server's socket", "reward NaN",
)  # fmt: skip
