"""The rules: what may follow what, what starts where, what must die. Pure; `now` is an argument."""
