"""From a recipe to states."""
