"""Python's types and functions as JSON Schema, and JSON as their values: for tools and for answers of a given form. Pure.

Read in this order:

    docstring.py what a docstring says of a function and its parameters
    hints.py     what a type annotation stands for
    types.py     Python types -> JSON Schema, JSON values -> Python values
    signature.py a function's signature -> the JSON Schema of its input
    output.py    a type as the format of an answer; its text as a value of that type
"""

__all__: list[str] = []
