"""The fixtures of ``caprpc.testing.plugin``, also where CapRPC was installed before it announced them."""

from importlib.metadata import entry_points

import pytest
from hypothesis import settings

# A machine with other work to do takes its time: what has to be fast has a test of its own.
settings.register_profile("caprpc", deadline=None)
settings.load_profile("caprpc")

if not any(point.value == "caprpc.testing.plugin" for point in entry_points(group="pytest11")):
    pytest_plugins = ["caprpc.testing.plugin", "pytester"]
else:
    pytest_plugins = ["pytester"]

# Modules that assert and are no test modules: without this their asserts would be gone under ``python -O``.
pytest.register_assert_rewrite("attack_world", "duels", "hostile_peer", "power_loss", "traced_disk", "vault_service")
pytest.register_assert_rewrite(
    "tests.docs.howto", "tests.integration.revoking_finalizers", "tests.policy.generated_policies"
)
