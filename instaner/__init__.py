"""Use LLMs. Replace LLMs."""
