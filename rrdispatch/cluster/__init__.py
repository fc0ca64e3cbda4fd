"""The primary: decides what every worker should be (pure), and makes it so (effects).

Importing this package is light; import its modules for what they hold.
"""
