"""What an id looks like: of tenants, providers, models, deployments and whatever else a policy names."""

from __future__ import annotations

import re

IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
