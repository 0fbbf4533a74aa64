"""What only the notebooks use: checks of exercises, results files, the headless runner, and one-notebook studies."""
