"""What can be told of a module without running it. This saves rounds; what keeps it harmless is the sandbox alone."""

import ast
import warnings
from collections.abc import Iterator, Sequence

from trace_jax.sandbox.module import LONGEST_SOURCE
from trace_jax.sandbox.preloaded import OURS, STANDARD

MOST_CHARACTERS = 60_000  # of what a model writes
IMPORTS = frozenset(name for name in (*STANDARD, *OURS) if not name.startswith("_"))
_METHODS = ("draw",)  # of the class


def module_faults(source: str, class_name: str, parameters: Sequence[str]) -> list[str]:
    """Why ``source`` cannot be a module with the environment class, one sentence each; ``parameters`` are its knobs."""
    try:
        if (size := len(source.encode())) > LONGEST_SOURCE:
            return [f"The module has {size} bytes with the tools that it offers; at most {LONGEST_SOURCE} are allowed."]
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
            compile(tree, "module", "exec", dont_inherit=True)
    except SyntaxError as error:
        line = (error.text or "").strip()[:80]
        return [f"The module has a syntax error in line {error.lineno}: {error.msg}{f': {line}' if line else ''}."]
    except UnicodeEncodeError:
        return ["The module holds half a surrogate pair, which no file can hold."]
    except (ValueError, RecursionError, MemoryError) as error:  # NUL, and what is nested too deep
        return [f"The module cannot be read as Python: {' '.join(str(error).split()) or type(error).__name__}."]
    return [*_import_faults(tree), *_class_faults(tree, class_name, parameters)]


def _import_faults(tree: ast.Module) -> Iterator[str]:
    known = ", ".join(sorted(IMPORTS))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [base if base in IMPORTS else f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if not _offered(name):
                yield f"Line {node.lineno} imports {name}, which the sandbox does not have: use {known}."


def _offered(name: str) -> bool:
    """Whether ``name`` is an offered module, or something in one."""
    return any(name == known or name.startswith(f"{known}.") for known in IMPORTS)


def _class_faults(tree: ast.Module, class_name: str, parameters: Sequence[str]) -> Iterator[str]:
    bound = list(_bound(tree))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if class_name not in classes:
        yield f"The module has no class {class_name!r} at its top level: it has {', '.join(classes) or 'none'}."
        return
    if bound.count(class_name) > 1:
        yield f"The name {class_name!r} is given to more than one thing at the top level of the module."
    chain = _chain(class_name, classes)
    methods = {node.name for each in chain for node in each.body if isinstance(node, ast.FunctionDef)}
    for method in _METHODS:
        if method not in methods:
            yield f"Class {class_name} has no method {method!r}, without which there are no episodes and no solution."
    taken, any_name = _taken(chain)
    for name in parameters:
        if name not in taken and not any_name:
            known = ", ".join(sorted(taken)) or "none"
            yield f"Knob {name!r} is no keyword argument of {class_name}.__init__, which has {known}."


def _bound(tree: ast.Module) -> Iterator[str]:
    """The names that the top level of a module binds."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))


def _chain(name: str, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """A class and those of its bases that the module defines, in the order in which methods are looked up, about."""
    chain: list[ast.ClassDef] = []
    wanted = [name]
    while wanted:
        found = classes.get(wanted.pop(0))
        if found is not None and found not in chain:
            chain.append(found)
            bases = [base.value if isinstance(base, ast.Subscript) else base for base in found.bases]
            wanted += [base.id for base in bases if isinstance(base, ast.Name)]
    return chain


def _taken(chain: Sequence[ast.ClassDef]) -> tuple[set[str], bool]:
    """The keyword arguments of the first ``__init__``, and whether it takes any others as well."""
    for each in chain:
        for node in each.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                names = {argument.arg for argument in (*node.args.args[1:], *node.args.kwonlyargs)}
                return names, node.args.kwarg is not None
    return set(), False
