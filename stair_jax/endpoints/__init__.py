"""Models behind an OpenAI-compatible endpoint, asked over the network.

`EndpointService` takes `ChatRequest`s and gives back `ChatCompletion`s, as an engine does with
tokens. Each reply is on the disk before it is counted, so that a restart pays for nothing twice.
"""
