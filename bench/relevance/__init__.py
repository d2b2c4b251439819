"""How relevant the answers of the server are: test collections with judgements, and references."""
