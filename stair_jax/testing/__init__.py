"""Models, engines and searches for tests, of this package and of code that builds on it.

| module | what is in it |
| --- | --- |
| `merging` | a model with its adapters merged, in one tree |
| `reference_search` | the search in plain Python, one tree at a time, to compare a search with |
| `scripted_engine` | an engine without a model, whose answers are a function of the request |
| `tiny_models` | random models of a few thousand parameters |
| `tiny_tokenizers` | tokenizers of 18 to 350 tokens, with the four tags and a chat template |
| `tpu_interpreter` | JAX's interpreter of Pallas TPU kernels on a CPU, without two of its faults |

Nothing here needs pytest, a network or an accelerator.
"""
