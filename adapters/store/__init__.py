"""The event store: schema, codec, and stores on SQLite and in memory."""
