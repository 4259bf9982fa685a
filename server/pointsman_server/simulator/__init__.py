"""A simulated provider: an HTTP server that speaks the providers' dialects, with scripted behaviour.

It knows nothing of the rest of pointsman, so that it can judge the adapters. `server` starts it, `script` tells it
what to do, and `magic` lists the model names that ask for a behaviour without a script.
"""
