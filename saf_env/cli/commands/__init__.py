"""One module for each command: ``run(context, arguments)`` returns the exit code."""
