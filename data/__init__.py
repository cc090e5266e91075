import utils  # noqa: F401  first: it sets the threading variables, which torch reads when it is imported
