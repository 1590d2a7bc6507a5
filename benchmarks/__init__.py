"""Programs that measure the product itself; each prints a table and says whether its goals are met."""
