"""The edge of a stage: configuration in, files out, errors in one line. The work itself stays inside."""
