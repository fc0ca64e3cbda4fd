"""Load tests: locust scenarios, a comparison with other servers, a benchmark of the dispatcher."""
