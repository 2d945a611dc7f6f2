"""What Coldframe adds to an application's processes; the application imports none of it."""
