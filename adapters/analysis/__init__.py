"""The log for analysts: Arrow, Parquet and DuckDB, which nothing else imports."""
