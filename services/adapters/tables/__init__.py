"""Faust made durable: tables that lose nothing and double nothing, whatever is killed or paused.

Hides every internal of Faust that is replaced, one idea a file. To the agents it offers three words:
`begin(event)`, writes (`table.put`, `app.emit`), `finish(event)`. The rule of the whole: die, do not guess; a
supervisor starts the worker again at once, and a replay repeats identical writes. Faust 0.15.3 and aiokafka 0.14.0
are pinned for it, and a contract test looks at each internal that is replaced.

What an application owes it: a row starts with its version (8 bytes, big endian, raised only by a change); an outcome
is a function of row and event alone; a replayed event writes its row and outputs again; all topics of the app have
one partition count, and the input topics are not compacted.
"""
