"""A fleet over many computers: what the coordinator and the workers say to each other, and who does what."""
