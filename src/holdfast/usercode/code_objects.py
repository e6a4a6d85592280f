"""What the code of a function is, and the names that it uses."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Hashable, Iterator


def filled_cells(function: types.FunctionType) -> dict[str, types.CellType]:
    """The cells of a function's closure that hold a value, by the name of the variable."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell for name, cell in cells if cell != types.CellType()}


def code_identity(function: types.FunctionType) -> tuple[Hashable, ...]:
    """What is equal for two functions if they do the same with the same globals, closures and defaults."""
    return tuple(map(_identity, _codes(function.__code__)))


def global_names(function: types.FunctionType) -> list[str]:
    """The global variables, and the builtins, that a function uses; names of attributes are not among them."""
    return _names(function, "GLOBAL", "GLOBALS", "LOAD_NAME")


def imported_names(function: types.FunctionType) -> list[str]:
    """The modules that a function imports when it is called; a name that it takes from one may be a module too."""
    names, module = list[str](), ""
    for code in _codes(function.__code__):
        for each in dis.get_instructions(code):
            if each.opname == "IMPORT_NAME":
                names.append(module := str(each.argval))
            elif each.opname == "IMPORT_FROM":
                names.append(f"{module}.{each.argval}")
    return list(dict.fromkeys(names))


def _names(function: types.FunctionType, *ends: str) -> list[str]:
    return list(dict.fromkeys(name for code in _codes(function.__code__) for name in _names_of_code(code, ends)))


@functools.cache
def _names_of_code(code: types.CodeType, ends: tuple[str, ...]) -> list[str]:
    """The names on which the instructions work whose names end so."""
    return [str(each.argval) for each in dis.get_instructions(code) if each.opname.endswith(ends)]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of the functions that are defined inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


@functools.cache
def _identity(code: types.CodeType) -> Hashable:
    has_docstring = not code.co_name.startswith("<")  # the first constant of a function is its docstring, or None
    constants = tuple(
        repr(sorted(map(repr, item))) if isinstance(item, frozenset) else repr(item)  # whose order is that of hashes
        for item in code.co_consts[1 if has_docstring else 0 :]
        if not isinstance(item, types.CodeType)
    )
    arguments = code.co_varnames, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return code.co_code, code.co_names, arguments, constants
