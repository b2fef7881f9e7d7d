"""What generators that write with a language model share: prompts, schemas, kept answers, and accounts."""
