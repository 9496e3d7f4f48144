"""Durable tables on Faust: no kill and no pause of a worker loses an event or counts an event twice.

Problem: Faust 0.15.3 commits an offset before the effects of the event are durable, and often logs an error after which
a worker must not continue. docs/durable-tables.md lists each case with the cure and the test of the cure.

Approach: the modules of this folder replace those internals, one idea per module. For each event an agent takes three
steps: `await app.begin(event)`, the writes (`table.put`, `app.emit`), `app.finish(event)`. The offset of the event is
committed after every write of the event is acknowledged.

Rule: a check that fails ends the process (`exits`); no check guesses or repairs. The supervisor restarts the worker,
and the replay of the uncommitted events repeats identical writes.

The application must keep four conditions:
- A row starts with its version (8 bytes, big endian, signed). Only a change of the row raises the version.
- The outcome of an event is a function of the row and the event alone.
- A replayed event writes the row and the outputs of the event again.
- All topics of the app have the same partition count, and the input topics are not compacted.

Faust 0.15.3 and aiokafka 0.14.0 are pinned. `tests/contract/test_faust_internals.py` fails when an internal that is
replaced here reads differently.
"""
