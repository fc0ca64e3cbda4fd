"""The tests; a package so that `tests.harness` is found from everywhere in it."""
