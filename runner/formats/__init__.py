"""Task sets in files: read from and written to the formats of the field's tools; docs/formats.md has what maps to what.

| module | what |
|---|---|
| `notes` | what was lost, rounded or assumed on the way; how a set that came back differs |
| `document`, `markup` | JSON and XML from strangers, within bounds |
| `jobs` | how many jobs, where a file only says how long |
| `native`, `native_schema` | our own JSON and JSON Lines, and its JSON Schema |
| `rt_app`, `simso`, `schedcat`, `rtspin`, `original`, `task_hash` | one foreign format each |
| `kinds` | all of them by name, and which one a file has |
| `source` | `tasksets=file`: task sets of a run, from a file |
| `export` | writing: read back what was written, and refuse what was lost |
"""
