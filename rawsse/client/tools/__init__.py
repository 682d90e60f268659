"""The tool loop, and conversations of many answers.

Read in this order:

    tool.py          Python functions as tools, and their results
    runner.py        the tool loop: the history that the API accepts, the calls of an answer, and the cost
    conversation.py  questions and answers in turn
"""
