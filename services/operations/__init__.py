"""Acts and views of operators, without regard to the program that offers them: `lifecycle` is the first.

Rule: a function here joins a decision of `core` with the hands of `adapters`, and returns a typed value. Colours,
widths, options and exit statuses belong to the program.
"""
