"""The server: a trained model behind the API that clients speak."""
