"""What users do with Manent: one file per use case; each reads, decides, appends and answers."""
