"""Feed what the program reads from outside with mutated specimens: `python -m tests.mutations --help`.

Whatever comes in, the only answers are acceptance and a refusal of `runner.errors`: no traceback, no hang, no more than a bound of memory.

| module | what |
|---|---|
| `mutators` | bytes, tokens and values, changed |
| `kind` | what is fed, and what its answers may be |
| `feeder` | worker processes with bounds, and what became of each input |
| `texts`, `formats`, `configs`, `messages`, `peers`, `files`, `records`, `names` | the kinds |
"""
