"""Extensions that are installed beside Manent, found through entry points: loaded where asked for, and kept apart."""
