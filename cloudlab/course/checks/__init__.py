"""The checks of the exercises: one module for each notebook, answers normalised in one place."""
