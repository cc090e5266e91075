import utils  # noqa: F401  first: it settles how threads work, which torch reads when it is loaded
