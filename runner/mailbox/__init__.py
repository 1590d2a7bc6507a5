"""The mailbox (`docs/mailbox.md`): a task set into the shared memory, its job table out of it. Pure: any buffer, no files, no clock.

The host uses the region only while the guest is paused. Nothing in it is trusted all the same: each part is copied once, and what
is checked is the copy.
"""

from runner.mailbox.reply import NoReply, read_hello, read_reply
from runner.mailbox.request import write_request

__all__ = ["NoReply", "read_hello", "read_reply", "write_request"]
