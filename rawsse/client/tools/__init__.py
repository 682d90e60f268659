"""The tool loop, and conversations of many answers.

Read in this order:

    tool.py          Python functions as tools, and their results
    runner.py        the tool loop: the history that the API accepts, the calls of an answer, and the cost
    conversation.py  questions and answers in turn
"""

from rawsse.client.tools.conversation import CUT_NOTE, Conversation, ConversationTurn, Reply
from rawsse.client.tools.runner import MAX_TURNS, ToolRunner, TotalUsage
from rawsse.client.tools.tool import Tool, ToolError, beta_async_tool, beta_tool, tool

__all__ = [
    "CUT_NOTE",
    "MAX_TURNS",
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
