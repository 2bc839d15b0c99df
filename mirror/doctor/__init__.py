"""mirror doctor: every trap that a program can look for, on both sides, each with its cure. It only looks."""
