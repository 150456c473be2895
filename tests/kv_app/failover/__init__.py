"""Tests of the decisions of a change of leader, which do no I/O."""
