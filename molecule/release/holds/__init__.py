"""Long tasks, which the scenario adds to the application that it deploys."""
