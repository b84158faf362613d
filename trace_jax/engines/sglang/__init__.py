"""The SGLang engine: a pool of real servers, with the same adapters on all of them."""
