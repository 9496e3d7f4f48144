"""The Genesys Cloud API: client, regions, tokens, parsing of responses, and the organisations' files."""
