"""`vmrunner serve`: an engine and a reaper on intervals. Nothing else imports APScheduler."""
