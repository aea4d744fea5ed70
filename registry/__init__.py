"""The ground floor: bundles, the object store, the fleet, MLflow. Imports no other room."""
