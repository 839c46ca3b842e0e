"""Text: tokenizer, chat templates, the grammar of answers, every prompt sent to a model."""
