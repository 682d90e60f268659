"""Answers that call functions, and conversations of many answers.

Read in this order:

    tool.py      Python functions as tools, and their results
    calls.py     which tool calls of an answer may be run
    tally.py     what several answers cost together
    turn.py      one answer with its tool calls, and their tasks
    runner.py    the tool loop
    history.py   questions, and what came of each, as the messages of a request
    conversation.py  questions and answers in turn, whatever becomes of an answer
"""

from rawsse.client.tools.conversation import Conversation, Reply
from rawsse.client.tools.history import CUT_NOTE, ConversationTurn
from rawsse.client.tools.runner import ToolRunner
from rawsse.client.tools.tally import TotalUsage
from rawsse.client.tools.tool import Tool, ToolError, beta_async_tool, beta_tool, tool

__all__ = [
    "CUT_NOTE",
    "Conversation",
    "ConversationTurn",
    "Reply",
    "Tool",
    "ToolError",
    "ToolRunner",
    "TotalUsage",
    "beta_async_tool",
    "beta_tool",
    "tool",
]
