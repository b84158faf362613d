"""Brings adapters to inference servers that share no disk with the trainer. Needs neither JAX nor transformers.

    from trace_jax.relay import deliver, withdraw    # the trainer's side

The other side is the program ``launch.relay``, on the server's machine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "app": ["make_app"],
        "client": ["deliver", "withdraw"],
        "files": ["Checksums", "RelayError", "relay_key"],
        "server": ["Server"],
        "store": ["Store"],
    },
)
