"""A pointsman in memory, for the tests of services that call one.

    from pointsman_client.testing import FakeClient

    client = FakeClient()
    client.in_memory.answer("Paris")
    assert my_service(client) == "Paris"
    assert client.in_memory.completions[0].messages[0].parts[0].text == "What is the capital of France?"

The fakes are the real clients over a channel that leads to an `InMemoryRouter` instead of a server, so requests are
built, errors typed, streams folded and calls retried as in production. Several clients may share one router.
"""

from pointsman_client.testing._clients import FakeAsyncClient, FakeClient
from pointsman_client.testing._router import InMemoryRouter, RecordedCall

__all__ = ["FakeAsyncClient", "FakeClient", "InMemoryRouter", "RecordedCall"]
