"""When, for whom, in what order: the only room that knows Prefect."""
