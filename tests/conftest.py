"""The fixtures of ``caprpc.testing.plugin``, also where CapRPC was installed before it announced them."""

from importlib.metadata import entry_points

if not any(point.value == "caprpc.testing.plugin" for point in entry_points(group="pytest11")):
    pytest_plugins = ["caprpc.testing.plugin", "pytester"]
else:
    pytest_plugins = ["pytester"]
