"""Long tasks, and tasks of changing names, which the scenario adds to the application that it deploys."""
