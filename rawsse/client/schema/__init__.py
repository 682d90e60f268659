"""Python's types and functions as JSON Schema, and JSON as their values: for tools and for answers of a given form. Pure.

Read in this order:

    docstring.py what a docstring says of a function and its parameters
    hints.py     what a type annotation stands for
    types.py     Python types -> JSON Schema, JSON values -> Python values
    signature.py a function's signature -> the JSON Schema of its input
"""

from rawsse.client.schema.signature import Signature, schema_of_function
from rawsse.client.schema.types import MismatchError, convert, schema_of

__all__ = ["MismatchError", "Signature", "convert", "schema_of", "schema_of_function"]
