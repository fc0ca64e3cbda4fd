"""Tools shared by the tests: a service as a real process, load from another process, censuses.

Nothing here knows what a test wants to prove, and nothing here is imported by the product.
"""
