"""An endpoint for each test."""

import pytest
from scripted_endpoint import Endpoint, endpoint


@pytest.fixture
def served() -> Endpoint:
    with endpoint() as found:
        yield found
