"""The whole mirror, from outside, as an operator or an application sees it."""
