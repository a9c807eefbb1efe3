"""What errors say: whoever puts words around a text does it once."""

import ast
import re

AROUND = {"ArgumentError", "BadRecord", "Problem", "ResultError"}
"""Errors that say "expected" and "found" themselves, before the texts that they are given."""


def texts_of(call):
    """Yield every literal text among the arguments of a call, those inside f-strings included."""
    for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
        for node in ast.walk(argument):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def doubled(modules):
    return [
        f"{module.path}:{call.lineno}: {text!r}"
        for module in modules
        for call, name in module.calls()
        if name in AROUND
        for text in texts_of(call)
        if re.search(r"\b(expected|found|got)\b", text)
    ]


def test_no_text_repeats_the_word_that_its_error_puts_before_it(package):
    assert doubled(package) == []


def silent(modules):
    """Refusals of a file or directory, ``where=str(...)``, that do not say what to do."""
    return [
        f"{module.path}:{call.lineno}"
        for module in modules
        for call, name in module.calls()
        if name == "ConfigurationError"
        for keywords in [{keyword.arg: keyword.value for keyword in call.keywords}]
        if isinstance(keywords.get("where"), ast.Call) and "hint" not in keywords
    ]


def test_whoever_refuses_a_file_says_what_to_do(package):
    assert silent(package) == []


def test_no_text_has_a_word_twice_in_a_row(package):
    """Of the kind of ``the the``, also where two literals meet."""
    twice = [
        f"{module.path}:{node.lineno}: {node.value!r}"
        for module in package
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.search(r"(?<![\w.%/-])([A-Za-z]{2,}) \1(?![\w.%/-])", node.value)
    ]
    assert twice == []
