"""Text: tokenizers, chat templates, the grammar of structured answers, prompt wordings."""
