"""What several public layouts have in common: towers, languages, codebooks, preprocessors."""
