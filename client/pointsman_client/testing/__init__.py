"""A pointsman in memory, for the tests of services that call one.

    from pointsman_client.testing import InMemoryRouter

    router = InMemoryRouter()
    router.answer("Paris")
    assert my_service(router.client()) == "Paris"
    assert router.completions[0].messages[0].parts[0].text == "What is the capital of France?"

The clients it gives are the real ones over a channel that leads here instead of to a server, so requests are built,
errors typed, streams folded and calls retried as in production.
"""

from pointsman_client.testing._router import InMemoryRouter, RecordedCall

__all__ = ["InMemoryRouter", "RecordedCall"]
