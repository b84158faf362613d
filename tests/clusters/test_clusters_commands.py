"""A server and the relay beside it in one container: the container ends as the server does, the relay comes again."""

import time

from clusters.commands import shell, with_relay


def test_the_relay_is_started_again_and_the_server_is_the_container(machine) -> None:
    machine.program("python3", "exit 3\n")
    machine.program("sleep", "exec /bin/sleep 0.1\n")
    machine.program("server", "exec /bin/sleep 1\n")
    words = with_relay(["server", "--host", "a b"], "10.0.0.1:30001", "10.0.0.1", "31001")
    started = time.monotonic()
    done = machine.run(f"exec {shell(words)} > /dev/null 2>&1")  # nobody keeps the pipes open
    assert done.returncode == 0 and 1 <= time.monotonic() - started
    assert machine.calls("server") == [["server", "--host", "a b"]]
    relays = machine.calls("python3")
    assert len(relays) > 1 and relays[0] == [
        *("python3", "-m", "launch.relay", "--server=http://10.0.0.1:30001", "--directory=/tmp/adapters"),
        *("--host=10.0.0.1", "--port=31001"),
    ]
    time.sleep(0.5)
    ended = len(machine.calls("python3"))
    time.sleep(0.5)
    assert len(machine.calls("python3")) == ended  # and not without the server
