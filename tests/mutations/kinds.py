"""Every kind, by name, in the order in which they are fed."""

from __future__ import annotations

from tests.mutations import configs, files, formats, genode, messages, names, peers, records, texts
from tests.mutations.kind import Kind

_ALL: tuple[type[Kind], ...] = (
    texts.ControlFile,
    texts.WrittenTaskSets,
    formats.TaskSetFile,
    configs.ComposedConfig,
    messages.MailboxReply,
    messages.MailboxHello,
    messages.SpokenLines,
    messages.GuestRequests,
    genode.GenodeProfiles,
    genode.GenodeRequests,
    peers.QmpPeer,
    peers.SshPeer,
    files.ResultDatabase,
    files.JsonFile,
    records.StoredRun,
    files.SavedState,
    names.Names,
    configs.CommandLine,
)
KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in _ALL}
