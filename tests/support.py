from benchmarks.fleets import make_bundle as make_bundle
from benchmarks.fleets import publish_tenants as publish_tenants
