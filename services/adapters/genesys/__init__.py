"""The Genesys Cloud API: a narrow client, its regions, tokens and answers, and the organisations' files."""
